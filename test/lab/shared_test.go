package lab

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestALimitIsGivenBack(t *testing.T) {
	for was, want := range map[string]string{"128\n": "4096", "8192\n": "8192\n"} {
		labs, limit := t.TempDir(), filepath.Join(t.TempDir(), "limit")
		if err := os.WriteFile(limit, []byte(was), 0o600); err != nil {
			t.Fatal(err)
		}
		is := func(when, want string) {
			t.Helper()
			if got, err := os.ReadFile(limit); err != nil || string(got) != want {
				t.Errorf("%s, the limit is %q (%v), not %q", when, got, err, want)
			}
		}
		do := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		one, two := filepath.Join(labs, "cfw-one"), filepath.Join(labs, "cfw-two")
		do(os.Mkdir(one, 0o700))
		do(borrow(labs, limit))
		is("with one lab", want)
		do(os.Mkdir(two, 0o700))
		do(borrow(labs, limit))
		do(os.Remove(one))
		do(giveBack(labs, limit))
		is("when the first is closed", want)
		do(os.Remove(two))
		do(giveBack(labs, limit))
		is("when the last is closed", was)
		do(giveBack(labs, limit))
		is("when nothing was borrowed", was)
	}
}

func TestHierarchies(t *testing.T) {
	const hybrid = `33 27 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 27 0:38 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
42 27 0:39 / /sys/fs/cgroup/unified rw,relatime shared:4 master:1 - cgroup2 cgroup2 rw
43 27 0:40 / /mnt rw - ext4 /dev/vda rw
`
	want := []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"}
	if got := hierarchies(hybrid); !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestAFolderWhoseLockIsHeldLives(t *testing.T) {
	labs := t.TempDir()
	alive, dead := filepath.Join(labs, "cfw-alive"), filepath.Join(labs, "cfw-dead")
	for _, dir := range []string{alive, dead} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	held, err := tryLock(filepath.Join(alive, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := sweep(t.Context(), labs); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dead); err == nil {
		t.Error("a dead lab is left")
	}
}
