package remains

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestALeaseHoldsNobodyUp(t *testing.T) {
	w := newWorld(t)
	f, err := os.OpenFile(w.path("etc/sudoers"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	must(t, err)
	w.begin()
	if got := w.before.Files["/etc/sudoers"]; got.Ino == 0 || got.Sum != "" {
		t.Error(got)
	}
}

// A home's owner can lead us anywhere, and is not followed off her file system.
func TestAHostileHome(t *testing.T) {
	for name, do := range map[string]func(w *world){
		"a pipe":            func(w *world) { must(t, unix.Mkfifo(w.path("home/bob/.ssh/authorized_keys"), 0o600)) },
		"a folder":          func(w *world) { must(t, os.Mkdir(w.path("home/bob/.ssh/authorized_keys"), 0o700)) },
		"a link into /proc": func(w *world) { must(t, os.Symlink("/proc/kmsg", w.path("home/bob/.ssh/authorized_keys"))) },
		"a link to itself":  func(w *world) { must(t, os.Symlink("authorized_keys", w.path("home/bob/.ssh/authorized_keys"))) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.begin()
			must(t, os.Remove(w.path("home/bob/.ssh/authorized_keys")))
			do(w)
			if diff := cmp.Diff([]string{"authorized-keys /home/bob/.ssh/authorized_keys"}, w.told()); diff != "" {
				t.Error(diff)
			}
		})
	}
	w := newWorld(t)
	must(t, os.Rename(w.path("home"), w.path("srv/home")))
	must(t, os.Symlink("srv/home", w.path("home")))
	w.begin()
	if _, ok := w.before.Files["/srv/home/bob/.ssh/authorized_keys"]; !ok {
		t.Error("a home behind a link was not looked at", sorted(w.before.Files))
	}
}

func TestFindingsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.begin()
	for i := range enough + 20 {
		name := "tmp/" + time.Duration(i).String()
		must(t, unix.Mknod(w.path(name), unix.S_IFREG|0o600, 0))
		w.theirs(name)
	}
	found := w.look()
	if len(found.Findings) != enough || !strings.Contains(strings.Join(found.Skipped, ";"), "temp-file: more than") {
		t.Error(len(found.Findings), found.Skipped)
	}
	if got := (Finding{Kind: TempFile, Path: "/tmp/a\x1b[2J\n", Detail: "theirs"}).String(); got != `temp-file "/tmp/a\x1b[2J\n": theirs` {
		t.Error(got)
	}
	if slices.ContainsFunc(found.Findings, func(f Finding) bool { return !f.Kind.Inert() }) {
		t.Error("a file in /tmp holds privilege")
	}
}
