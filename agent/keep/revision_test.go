package keep

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"curfew.internal/clock"
	"curfew.internal/grant"
)

// An older file of grants, a damaged one or none, put on the disk between two
// lives of the agent, brings nothing back, and the control plane's present set
// is taken as before.
func TestOlderFileOfGrantsDoesNotCount(t *testing.T) {
	dir, run := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, stateFile)
	begin := func(run string) *Keep {
		c := config(dir, &fixed{clock.Reading{Wall: start, Boot: time.Hour}})
		c.Run = run
		k, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { die(k) })
		return k
	}
	ringA := ring(1, root, keyA)
	k := begin(run)
	for n := range uint64(3) {
		if _, err := k.Accept(ringA, set(n+1, "db1", keyA), start); err != nil {
			t.Fatal(err)
		}
	}
	present, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	die(k)
	old := t.TempDir()
	{
		c := config(old, &fixed{clock.Reading{Wall: start, Boot: time.Hour}})
		o, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Accept(ringA, set(2, "db1", keyA), start); err != nil {
			t.Fatal(err)
		}
		die(o)
	}
	older, err := os.ReadFile(filepath.Join(old, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, on := range map[string][]byte{"older": older, "damaged": []byte("x"), "gone": nil} {
		t.Run(name, func(t *testing.T) {
			if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if on != nil {
				if err := os.WriteFile(file, on, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			k := begin(run)
			defer die(k)
			o, err := k.Kept()
			if err == nil || (name == "older") != errors.Is(err, grant.ErrRollback) {
				t.Errorf("said of it: %v", err)
			}
			wantGrants(t, o, 0)
			if _, err := k.Accept(ringA, set(1, "db1", keyA), start); !errors.Is(err, grant.ErrRollback) {
				t.Errorf("an older set: %v", err)
			}
			o, err = k.Accept(ringA, set(3, "db1", keyA), start)
			if err != nil {
				t.Error(err)
			}
			wantGrants(t, o, 1)
		})
	}
	if err := os.WriteFile(file, older, 0o600); err != nil {
		t.Fatal(err)
	}
	k = begin(t.TempDir()) // the host was started again
	o, err := k.Kept()
	if err != nil {
		t.Error(err)
	}
	wantGrants(t, o, 1)
	die(k)
	if err := os.WriteFile(file, present, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err = begin(run).Kept()
	if err != nil {
		t.Error(err)
	}
	wantGrants(t, o, 1)
}
