package keep

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"curfew.internal/clock"
	"curfew.internal/ledger"
)

// What waited in memory when its agent ended is told as missing, however
// often an agent starts before the disk has room.
func TestWhatEndsInMemoryIsTold(t *testing.T) {
	c := Config{Dir: t.TempDir(), Run: t.TempDir(), Clock: clock.System{}}
	full := func(*os.Root, string) (file, error) { return nil, errFull }
	gaps := func(o *Outbox) (lost uint64) {
		for _, e := range all(t, o, 0) {
			if e.Kind == ledger.Gap {
				lost += e.Lost
			}
		}
		return lost
	}
	o := openBox(t, c)
	if err := o.Append(entry(1)); err != nil {
		t.Fatal(err)
	}
	o = openBox(t, c) // was killed; nothing waited
	o.create = full
	for n := range uint64(3) {
		if err := o.Append(entry(n + 2)); !errors.Is(err, ErrHeld) {
			t.Fatalf("entry %d: %v", n+2, err)
		}
	}
	// Three agents more begin and end with the disk full: by a kill, in order,
	// and with an entry of its own.
	o = openBox(t, c)
	o.create = full
	if err := o.commit(); err == nil {
		t.Fatal("the disk is full")
	}
	o = openBox(t, c)
	o.create = full
	if err := o.close(); err == nil {
		t.Fatal("the disk is full")
	}
	o = openBox(t, c)
	o.create = full
	if err := o.Append(entry(5)); !errors.Is(err, ErrHeld) {
		t.Fatal(err)
	}
	o = openBox(t, c)
	if err := o.Append(entry(6)); err != nil {
		t.Fatal(err)
	}
	if lost := gaps(o); lost < 4 {
		t.Errorf("%d are told as missing, and 4 are", lost)
	}
	told := gaps(o)
	o = openBox(t, c)
	if err := o.Append(entry(7)); err != nil {
		t.Fatal(err)
	}
	if lost := gaps(o); lost != told {
		t.Errorf("%d are told as missing, and then %d", told, lost)
	}
}

func TestACountThatCannotBeReadStopsNobody(t *testing.T) {
	c := Config{Dir: t.TempDir(), Run: t.TempDir(), Clock: clock.System{}}
	if err := os.WriteFile(filepath.Join(c.Run, "held.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := openBox(t, c)
	if err := o.Append(entry(1)); err != nil {
		t.Fatal(err)
	}
	if got := all(t, o, 0); len(got) != 2 || got[0].Kind != ledger.Gap || got[0].Lost != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(filepath.Join(c.Run, "held.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it stays: %v", err)
	}
}
