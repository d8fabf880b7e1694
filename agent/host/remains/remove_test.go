package remains

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func (w *world) remove(found []Finding, kinds ...Kind) (removed, left []Finding) {
	w.t.Helper()
	removed, left, err := w.Remove(w.t.Context(), found, kinds...)
	must(w.t, err)
	return removed, left
}

func (w *world) there(name string) bool {
	w.t.Helper()
	_, err := os.Lstat(w.path(name))
	return err == nil
}

func TestWhatTheRoleSaysGoes(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.write("etc/sudoers.d/x", "ana ALL=ALL", 0o440)
	w.write("etc/sudoers", "ana ALL=ALL", 0o440)
	w.write("etc/cron.d/x", "", 0o644)
	w.write("srv/sh", "#!", 0o755)
	must(t, os.Chmod(w.path("srv/sh"), 0o755|os.ModeSetuid))
	must(t, os.Link(w.path("usr/bin/su"), w.path("srv/su")))
	for _, n := range []string{"tmp/d/e/f", "tmp/d/e", "tmp/d"} {
		if n == "tmp/d/e/f" {
			w.write(n, "", 0o600)
		}
		w.theirs(n)
	}
	found := w.look().Findings
	removed, left := w.remove(found, Setuid, SudoRule, TempFile)
	if diff := cmp.Diff([]string{"sudo-rule /etc/sudoers.d/x *", "setuid /srv/sh *", "temp-file /tmp/d *"}, short(removed)); diff != "" {
		t.Error(diff)
	}
	want := []string{"system-cron /etc/cron.d/x *", "sudo-rule /etc/sudoers", "setuid /srv/su", "setuid /usr/bin/su"}
	if diff := cmp.Diff(want, short(left)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, w.told()); diff != "" {
		t.Error(diff)
	}
	if again, _ := w.remove(removed, Setuid, SudoRule, TempFile); len(again) != len(removed) {
		t.Error("what is gone already is not the end we wanted", again)
	}
}

// A folder of very much is no file system that does not answer, and who has no
// time left leaves the rest under its name.
func TestALargeFolderGoesFileByFile(t *testing.T) {
	w := newWorld(t)
	w.begin()
	for i := range 100 {
		w.write(fmt.Sprintf("tmp/d/%d", i), "", 0o600)
	}
	w.theirs("tmp/d")
	found := w.look().Findings
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	signs := 0
	w.Tell = func(string) {
		if signs++; signs == 50 {
			cancel()
		}
	}
	_, left, err := w.Remove(ctx, found, TempFile)
	must(t, err)
	if len(left) != 1 || left[0].Err == nil || !w.there("tmp/d") {
		t.Errorf("%+v", left)
	}
	removed, left := w.remove(found, TempFile)
	if len(removed) != 1 || len(left) != 0 || w.there("tmp/d") || signs < 100 {
		t.Errorf("%+v %+v, signs: %d", removed, left, signs)
	}
}

// What stands where a finding stood, by the hand of a hostile person, stays.
func TestARemovalTakesWhatWasFound(t *testing.T) {
	for name, c := range map[string]struct {
		swap func(w *world)
		stay string
	}{
		"another file": {func(w *world) {
			must(w.t, os.Remove(w.path("tmp/d/f")))
			w.write("tmp/new", "bob's", 0o600)
			must(w.t, os.Rename(w.path("tmp/new"), w.path("tmp/d/f")))
		}, "tmp/d/f"},
		"a hard link to the passwords": {func(w *world) {
			must(w.t, os.Remove(w.path("tmp/d/f")))
			must(w.t, os.Link(w.path("etc/passwd"), w.path("tmp/d/f")))
		}, "etc/passwd"},
		"its folder, now a link to another": {func(w *world) {
			w.write("srv/d/f", "", 0o600)
			must(w.t, os.Rename(w.path("tmp/d"), w.path("tmp/e")))
			must(w.t, os.Symlink("/srv/d", w.path("tmp/d")))
		}, "srv/d/f"},
		"its folder, now a link to where it went": {func(w *world) {
			must(w.t, os.Rename(w.path("tmp/d"), w.path("srv/d")))
			must(w.t, os.Symlink("../srv/d", w.path("tmp/d")))
		}, "srv/d/f"},
		"a link to a folder": {func(w *world) {
			must(w.t, os.Remove(w.path("tmp/d/f")))
			must(w.t, os.Symlink("/etc", w.path("tmp/d/f")))
		}, "etc/passwd"},
		"a folder above it, now a link to where it went": {func(w *world) {
			must(w.t, os.Rename(w.path("tmp"), w.path("srv/tmp")))
			must(w.t, os.Symlink("srv/tmp", w.path("tmp")))
		}, "srv/tmp/d/f"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.begin()
			w.write("tmp/d/f", "", 0o600)
			w.theirs("tmp/d/f")
			found := w.look().Findings
			if diff := cmp.Diff([]string{"temp-file /tmp/d/f *"}, short(found)); diff != "" {
				t.Fatal(diff)
			}
			c.swap(w)
			removed, left := w.remove(found, TempFile)
			if len(removed) != 0 || len(left) != 1 || !strings.Contains(left[0].Detail, "could not be removed") {
				t.Error(short(removed), left)
			}
			if !w.there(c.stay) {
				t.Error(c.stay, "went")
			}
		})
	}
}

func TestAnImmutableFileIsLeft(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.write("etc/sudoers.d/x", "", 0o440)
	found := w.look().Findings
	f, err := os.Open(w.path("etc/sudoers.d/x"))
	must(t, err)
	defer f.Close()
	const immutable = 0x10 // FS_IMMUTABLE_FL
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, immutable); err != nil {
		t.Fatal("the tests need a file system that knows immutable files:", err)
	}
	t.Cleanup(func() { _ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0) })
	_, left := w.remove(found, SudoRule)
	if len(left) != 1 || !strings.Contains(left[0].Detail, "lsattr") {
		t.Error(left)
	}
	must(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0))
	if removed, _ := w.remove(found, SudoRule); len(removed) != 1 {
		t.Error("not removed once it could be")
	}
}

// Somebody exchanges the name under us, over and over: what was not found is
// never taken.
func TestExchangesDuringARemoval(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.write("tmp/d/precious", "bob's", 0o600)
	f, precious := w.path("tmp/d/f"), w.path("tmp/d/precious")
	stop, done := make(chan struct{}), sync.WaitGroup{}
	done.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, f, unix.AT_FDCWD, precious, unix.RENAME_EXCHANGE)
			}
		}
	})
	taken := 0
	for range 2000 {
		w.write("tmp/g", "", 0o600)
		st, err := look(unix.AT_FDCWD, w.path("tmp/g"))
		must(t, err)
		for _, to := range []string{f, precious} { // the one of the two that is free
			if unix.Renameat2(unix.AT_FDCWD, w.path("tmp/g"), unix.AT_FDCWD, to, unix.RENAME_NOREPLACE) == nil {
				break
			}
		}
		for _, name := range []string{"/tmp/d/f", "/tmp/d/precious", "/tmp/d/f", "/tmp/d/precious"} {
			removed, left := w.remove([]Finding{{Kind: TempFile, Path: name, Removable: true, ID: identity(st)}}, TempFile)
			taken += len(removed)
			for _, l := range left {
				if strings.Contains(l.Detail, "it is called") {
					t.Fatal(l)
				}
			}
		}
	}
	close(stop)
	done.Wait()
	names, err := os.ReadDir(w.path("tmp/d"))
	must(t, err)
	for _, n := range names {
		if b, err := os.ReadFile(filepath.Join(w.path("tmp/d"), n.Name())); err == nil && string(b) == "bob's" {
			t.Logf("%d were taken", taken)
			return
		}
	}
	t.Error("what was not found was taken")
}

func TestNamesThatMoveDuringALook(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.write("srv/a/b/c", "", 0o600)
	must(t, os.MkdirAll(w.path("srv/z"), 0o755))
	stop, done := make(chan struct{}), sync.WaitGroup{}
	done.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Rename(w.path("srv/a"), w.path("srv/z/a"))
				_ = os.Symlink("/", w.path("srv/a"))
				_ = os.Remove(w.path("srv/a"))
				_ = os.Rename(w.path("srv/z/a"), w.path("srv/a"))
			}
		}
	})
	for range 50 {
		if got := w.told(); got != nil {
			t.Fatal(got)
		}
	}
	close(stop)
	done.Wait()
}

func TestFilesThatAreNone(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"evil", "", "/", "shm 5", "..", "/tmp/.."} {
		_, left := w.remove([]Finding{{Kind: Module, Path: path, Removable: true}}, Module)
		if len(left) != 1 {
			t.Errorf("%q was removed", path)
		}
	}
	if !w.there("etc/passwd") {
		t.Error("gone")
	}
}
