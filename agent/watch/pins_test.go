package watch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"

	"curfew.internal/bpf"
	"curfew.internal/clock"
	"curfew.internal/ledger"
	"curfew.internal/test/need"
)

// An agent whose maps have another layout takes over the sessions of the one
// before it: what it cannot read is a gap, and nobody loses a label.
func TestPinsOfAnotherVersionAreAGapAndTheirSessionsAreAdopted(t *testing.T) {
	need.Root(t)
	dir := pins(t)
	w := open(t, dir)
	s := shell(t, "sleep 60 & echo; read more; sleep 60 & wait")
	s.grow(t, w, 7)
	s.hear(t)
	if err := w.maps.Layout.Put(uint32(0), uint64(99)); err != nil {
		t.Fatal(err)
	}
	closeIt(t, w)
	w = open(t, dir)
	defer closeIt(t, w)
	if !w.Fresh || !strings.Contains(w.Broken, "another version") {
		t.Errorf("fresh %v, broken %q", w.Fresh, w.Broken)
	}
	if old, err := filepath.Glob(filepath.Join(dir, asideDir+"*")); err != nil || len(old) > 0 {
		t.Errorf("old pins are left: %v, %v", old, err)
	}
	s.say(t) // she forks once more
	until(t, "three processes", func() bool {
		living, err := w.Living()
		return err == nil && len(living[7]) == 3
	})
	_, left, err := w.Kill(t.Context(), []uint64{7})
	if err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	b := &book{}
	defer run(t, w, b)()
	until(t, "gap", func() bool { return len(b.where(ledger.Gap, nil)) == 1 })
}

// What the version before set up is taken over whole; of what a later one did,
// nothing that we have no name for goes on.
func TestPinsOfVersionsAreTakenOverOrGo(t *testing.T) {
	need.Root(t)
	for _, tt := range []struct {
		name   string
		layout uint64
		fresh  bool
	}{
		{"of the version before", bpf.Oldest, false},
		{"of this version", bpf.Layout, false},
		{"of a version before that", bpf.Oldest - 1, true},
		{"of a later version", bpf.Layout + 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := pins(t)
			w := open(t, dir)
			if err := w.maps.Layout.Put(uint32(0), tt.layout); err != nil {
				t.Fatal(err)
			}
			before := pinNames(t, dir)
			if err := os.Mkdir(filepath.Join(dir, "more-1"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"more-1/on_exec", "on_more"} {
				l, err := link.AttachTracing(link.TracingOptions{Program: w.progs["on_exec"]})
				if err == nil {
					err = errors.Join(l.Pin(filepath.Join(dir, name)), l.Close())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			closeIt(t, w)
			w = open(t, dir)
			defer closeIt(t, w)
			if w.Fresh != tt.fresh {
				t.Errorf("fresh %v, broken %q", w.Fresh, w.Broken)
			}
			if after := pinNames(t, dir); !slices.Equal(after, before) {
				t.Errorf("pinned were\n%v, and are\n%v", before, after)
			}
			var layout uint64
			if err := w.maps.Layout.Lookup(uint32(0), &layout); err != nil || layout != bpf.Layout {
				t.Errorf("the layout is %d, %v", layout, err)
			}
		})
	}
}

// pinNames lists the pins, without the numbers of folders.
func pinNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimRight(e.Name(), "0123456789"))
	}
	return names
}

func TestOnlyABpffsHoldsPins(t *testing.T) {
	need.Root(t)
	if _, err := Open(Config{PinDir: t.TempDir(), Clock: clock.System{}}); err == nil || !strings.Contains(err.Error(), "mount -t bpf") {
		t.Errorf("pins on another file system: %v", err)
	}
	dir := pins(t)
	closeIt(t, open(t, dir))
	if err := Remove(dir); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left after removal: %v, %v", left, err)
	}
}
