package watch

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
	"curfew.internal/test/need"
)

// What the kernel itself does with them is tried in test/vm.
func TestWardsAreThePlacesAndTheWayThere(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	for _, name := range []string{"etc/pam.d", "run/home", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/sudoers"), nil, 0o440); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("etc/pam.d", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	found, _, err := wardsOf([]Place{
		{Path: filepath.Join(dir, "run/home"), Free: true},
		{Path: filepath.Join(dir, "run")},
		{Path: filepath.Join(dir, "link")},
		{Path: filepath.Join(dir, "etc/sudoers")},
		{Path: filepath.Join(dir, "nothing")},
		{Path: filepath.Join(dir, "nothing/below")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bpf.WatchPlace{
		"run/home": bpf.WatchPlaceFREE, "run": bpf.WatchPlaceUNDER, "etc/pam.d": bpf.WatchPlaceUNDER, "etc/sudoers": bpf.WatchPlaceUNDER,
		"etc": bpf.WatchPlaceWAY, ".": bpf.WatchPlaceWAY, "..": bpf.WatchPlaceWAY, "other": 0,
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		ward := bpf.WatchWard{Dev: uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev)), Ino: st.Ino}
		if found[ward] != want {
			t.Errorf("%s is %d, not %d", name, found[ward], want)
		}
	}
}
