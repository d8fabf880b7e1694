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

// What the self-test has to be told is done, on whatever kernel; and programs
// that do not tell it are not relied on.
func TestWhatDoesNotTellIsLetGo(t *testing.T) {
	need.Root(t)
	dir := pins(t)
	w := open(t, dir)
	defer closeIt(t, w)
	did, told, err := w.tells()
	if err != nil || did < needed || w.after == nil && told != 0 || w.after != nil && told != did {
		t.Errorf("%d done, %d told: %v", did, told, err)
	}
	err = w.after.close()
	if errs := os.RemoveAll(filepath.Join(dir, after.dir+"1")); err != nil || errs != nil {
		t.Fatal(err, errs)
	}
	w.after = &gate{}
	if err := os.Mkdir(filepath.Join(dir, after.dir+"7"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.proveAfter(); err != nil || w.after != nil {
		t.Errorf("let go: %v, %v", w.after == nil, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, after.dir+"*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
