package disk

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The disk does what tests rely on: a cut leaves what was synced, and nothing
// else.
func TestWhatACutLeaves(t *testing.T) {
	d := New(t, 16)
	for name, synced := range map[string]bool{"synced": true, "written": false} {
		f, err := os.Create(d.Path(name))
		must(t, err)
		_, err = f.WriteString("text")
		must(t, err)
		if synced {
			must(t, f.Sync())
		}
		must(t, f.Close())
	}
	// A sync of any file takes the names of before with it; this one comes after.
	must(t, os.Rename(d.Path("synced"), d.Path("renamed")))
	d.Cut(t)
	if err := os.WriteFile(d.Path("late"), nil, 0o600); !errors.Is(err, unix.EIO) {
		t.Errorf("after the cut: %v", err)
	}
	d.Off(t)
	d.On(t)
	for name, want := range map[string]string{"synced": "text", "renamed": "none", "late": "none"} {
		b, err := os.ReadFile(d.Path(name))
		if errors.Is(err, os.ErrNotExist) {
			b, err = []byte("none"), nil
		}
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
	if b, err := os.ReadFile(d.Path("written")); err == nil && len(b) > 0 {
		t.Errorf("what was not synced is there: %q", b)
	}
}

func TestAFullDisk(t *testing.T) {
	d := New(t, 16)
	d.Fill(t)
	if err := os.WriteFile(d.Path("more"), []byte("text"), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("there is room: %v", err)
	}
	d.Free(t)
	must(t, os.WriteFile(d.Path("again"), []byte("text"), 0o600))
}
