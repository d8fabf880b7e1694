package tree

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/test/need"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mount puts a folder of the test's own on a place below the test's root, and
// returns a file in it that has to live on.
func mount(t *testing.T, on string) (precious string) {
	t.Helper()
	precious = filepath.Join(t.TempDir(), "shadow")
	must(t, os.WriteFile(precious, []byte("x"), 0o600))
	must(t, os.MkdirAll(on, 0o755))
	must(t, unix.Mount(filepath.Dir(precious), on, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(on, unix.MNT_DETACH) })
	return precious
}

// What cannot go keeps nothing else: not its neighbours, and not itself once
// it is unmounted.
func TestARemovalGoesOn(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	top := filepath.Join(dir, "home")
	must(t, os.MkdirAll(top+"/a/b", 0o755))
	must(t, os.WriteFile(top+"/a/b/f", nil, 0o400))
	must(t, os.Symlink("/", top+"/z"))
	must(t, unix.Mkfifo(top+"/y", 0o600))
	precious := mount(t, top+"/m")
	if err := Remove(dir, "home"); !errors.Is(err, ErrMounted) {
		t.Fatal(err)
	}
	left, err := os.ReadDir(top)
	if err != nil || len(left) != 1 || left[0].Name() != "m" {
		t.Error(left, err)
	}
	must(t, unix.Unmount(top+"/m", 0))
	must(t, Remove(dir, "home"))
	must(t, Remove(dir, "home"))
	must(t, Remove(dir+"/none", "home"))
	if _, err := os.Lstat(top); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestNoDepthOfFoldersIsTooDeep(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range 5*deepest + 3 {
		must(t, unix.Mkdirat(fd, "d", 0o700))
		next, err := unix.Openat(fd, "d", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	must(t, Remove(dir, "d"))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}
