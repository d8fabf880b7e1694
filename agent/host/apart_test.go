package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host/tree"
)

// apartly has this program run an errand, as the agent does with "look".
const apartly = "curfew-test-apart"

func init() {
	if os.Args[len(os.Args)-1] != apartly {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	if err := Apart(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	stop()
	os.Exit(0)
}

// hole mounts a file system that takes every question and answers none, as
// root can with fuse(4). Whoever asks waits, and cannot be killed.
func hole(t *testing.T, on string) (fill func()) {
	t.Helper()
	return mountHole(t, on, false)
}

// mountHole mounts one that takes no question, if it is deaf: whoever waits there
// can be killed.
func mountHole(t *testing.T, on string, deaf bool) (fill func()) {
	t.Helper()
	kind := unix.S_IFREG
	if info, err := os.Lstat(on); err != nil || info.IsDir() {
		kind = unix.S_IFDIR
		must(t, os.MkdirAll(on, 0o755))
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Mount("hole", on, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other", fd, kind)))
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		buf := make([]byte, 1<<17)
		for {
			n, err := unix.Read(fd, buf)
			if err == unix.EINTR || err == unix.ENOENT {
				continue
			}
			if err != nil {
				return
			}
			const initOp, header, initOut = 26, 16, 64
			if n < 16 || binary.NativeEndian.Uint32(buf[4:]) != initOp {
				continue
			}
			out := make([]byte, header+initOut)
			binary.NativeEndian.PutUint32(out, uint32(len(out)))
			copy(out[8:], buf[8:16])
			binary.NativeEndian.PutUint32(out[header:], 7)
			binary.NativeEndian.PutUint32(out[header+4:], 31)
			_, _ = unix.Write(fd, out)
			if deaf {
				return
			}
		}
	}()
	filled := false
	fill = func() {
		if !filled {
			filled = true
			_ = unix.Unmount(on, unix.MNT_FORCE) // it ends what waits, and may be busy once
			_ = unix.Unmount(on, unix.MNT_DETACH)
			<-gone
			_ = unix.Close(fd)
		}
	}
	t.Cleanup(fill)
	return fill
}

// Where nobody answers, a process of its own waits: the agent goes on, names the
// place, and finds what is in all others.
func TestAFileSystemThatNeverAnswersKeepsNobody(t *testing.T) {
	h, trace := after(t)
	h.Self = []string{"/proc/self/exe", apartly}
	must(t, os.RemoveAll(h.path("tmp")))
	// As an overlay on top of it looks, or a disk: the kernel alone would answer.
	table, err := os.ReadFile(h.path("proc/self/mountinfo"))
	must(t, err)
	must(t, os.WriteFile(h.path("proc/self/mountinfo"), append(table, "29 21 0:31 / /tmp rw - overlay o rw\n"...), 0o600))
	fill := hole(t, h.path("tmp"))
	found, err := h.Leavings(t.Context(), trace)
	must(t, err)
	if !slices.Contains(paths(found.Left), "setuid /srv/sh") || !slices.ContainsFunc(found.Skipped, func(s string) bool { return strings.HasPrefix(s, "/tmp, which does not answer") }) {
		t.Errorf("%+v", found)
	}
	if at, n := h.silentNow(); n != 1 || !slices.Equal(at, []string{"/tmp"}) {
		t.Fatalf("it is not remembered that nobody answers there: %q", at)
	}
	// What waits cannot be ended, and nobody else begins to wait.
	leave(t, h, "var/spool/cron/crontabs/cfw-ana", 0o600, uid)
	gone, err := h.Clear(t.Context(), "cfw-ana", uid)
	if err != nil || len(gone) != 1 || !strings.HasPrefix(gone[0], "crontab /var/spool/cron/crontabs/cfw-ana: ") {
		t.Error(gone, err)
	}
	looked, left, err := h.Leftovers(t.Context(), "cfw-ana", uid)
	if err != nil || len(left) > 0 || !strings.Contains(strings.Join(looked, "; "), "not in /tmp, which does not answer") {
		t.Error(looked, left, err)
	}
	fill()
	for n := 1; n > 0; time.Sleep(10 * time.Millisecond) {
		_, n = h.silentNow()
	}
	must(t, os.MkdirAll(h.path("tmp"), 0o755))
	leave(t, h, filepath.Join("tmp", "note"), 0o600, uid)
	if gone, err := h.Clear(t.Context(), "cfw-ana", uid); err != nil || len(gone) != 1 {
		t.Error(gone, err)
	}
}

// Root can put such a file system on one file of ours, or a link to one in its
// place: what is asked of that waits for ever, and the loop with it. It is told,
// and the others go.
func TestWhatNeverAnswersInTheWayOfAFileOfOursKeepsNobody(t *testing.T) {
	const id = "g-abcdefghijklmnop"
	for _, name := range []string{filepath.Join(sudoersDir, id), filepath.Join(principals, "cfw-ana"), filepath.Join(managedDir, "cfw-ana"), filepath.Join(userdb, "cfw-ana.user"), filepath.Join(userdb, "cfw-ana.group")} {
		t.Run("on "+filepath.Base(name), func(t *testing.T) {
			h := machine(t)
			converge(t, h, wanted())
			fill := hole(t, h.path(name))
			left, err := endAll(t, h, name)
			if !errors.Is(err, tree.ErrMounted) || len(left) > 1 {
				t.Errorf("not all others went: %v, %v", left, err)
			}
			if _, rule, err := h.RuleLeft(id); err != nil || len(rule) == 0 {
				t.Error(rule, err)
			}
			fill()
			converge(t, h, enforce.State{})
		})
		t.Run("a link from "+filepath.Base(name), func(t *testing.T) {
			h := machine(t)
			converge(t, h, wanted())
			fill := hole(t, h.path("hole"))
			must(t, os.Remove(h.path(name)))
			must(t, os.Symlink(h.path("hole", "x"), h.path(name)))
			if left, err := endAll(t, h, name); err != nil || len(left) > 0 {
				t.Errorf("not all went: %v, %v", left, err)
			}
			fill()
		})
	}
}

// endAll has all of a host end that was given, and says what is there still, and
// what the first look could not see.
func endAll(t *testing.T, h *Host, spoiled string) (left enforce.State, err error) {
	t.Helper()
	done := make(chan enforce.State, 1)
	go func() {
		var seen enforce.State
		seen, err = h.Observe(t.Context())
		for _, s := range enforce.Plan(enforce.State{}, seen) {
			_ = h.Apply(t.Context(), s)
		}
		_, _, _ = h.RuleLeft("g-abcdefghijklmnop")
		tree.Loosen(filepath.Dir(h.path(spoiled)), filepath.Base(spoiled))
		if _, err := h.Managed(t.Context(), "cfw-ana"); err != nil {
			t.Error(err)
		}
		seen, _ = h.Observe(t.Context())
		done <- seen
	}()
	select {
	case left = <-done:
		return left, err
	case <-time.After(20 * time.Second):
		t.Fatal("the agent waits for who never answers")
	}
	return nil, nil
}

// A name need be no text.
func TestWhatIsNoTextGoesAsWell(t *testing.T) {
	h, trace := after(t)
	h.Self, trace.Remove = []string{"/proc/self/exe", apartly}, []string{"setuid"}
	const shell, note = "srv/s\xffh", "tmp/n\xffte"
	leave(t, h, shell, os.ModeSetuid|0o755, 0)
	leave(t, h, note, 0o600, uid)
	if _, err := h.Leavings(t.Context(), trace); err != nil {
		t.Error(err)
	}
	for _, name := range []string{shell, note} {
		if _, err := os.Lstat(h.path(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q is still there: %v", name, err)
		}
	}
}

// Who waits and can be killed is waited for once as well.
func TestAFileSystemThatTakesNoQuestionIsAskedOnce(t *testing.T) {
	h, _ := after(t)
	h.Self = []string{"/proc/self/exe", apartly}
	must(t, os.RemoveAll(h.path("tmp")))
	table, err := os.ReadFile(h.path("proc/self/mountinfo"))
	must(t, err)
	must(t, os.WriteFile(h.path("proc/self/mountinfo"), append(table, "29 21 0:31 / /tmp rw - overlay o rw\n"...), 0o600))
	fill := mountHole(t, h.path("tmp"), true)
	leave(t, h, "var/spool/cron/crontabs/cfw-ana", 0o600, uid)
	if _, err := h.Clear(t.Context(), "cfw-ana", uid); err == nil {
		t.Error("all was cleared where nobody answers")
	}
	if gone, err := h.Clear(t.Context(), "cfw-ana", uid); err != nil || len(gone) != 1 {
		t.Error(gone, err)
	}
	if _, n := h.silentNow(); n != 0 {
		t.Error("it could not be ended")
	}
	fill()
}

// What goes behind all else has time to say what it found.
func TestWhoIsToldToEndComesToSayWhatItFound(t *testing.T) {
	h := machine(t)
	ready := filepath.Join(t.TempDir(), "ready")
	h.Self = []string{"/bin/sh", "-c", `trap 'sleep 2; echo "{\"Done\":{\"Skipped\":[\"late\"]}}"; exit' TERM; touch "$0"; while :; do sleep 0.1; done`, ready}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for _, err := os.Stat(ready); err != nil; _, err = os.Stat(ready) {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	if o, err := h.send(ctx, lasting, errand{What: toLook}); err != nil || len(o.Skipped) != 1 {
		t.Error(o, err)
	}
}

// Whoever is root in a session could trace it, and have it say what she likes.
func TestWhoLooksIsGuardedBeforeItLooks(t *testing.T) {
	h, _ := after(t)
	h.Self = []string{"/proc/self/exe", apartly}
	leave(t, h, "var/spool/cron/crontabs/cfw-ana", 0o600, uid)
	began := 0
	h.Began = func(pid int) error {
		began++
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !strings.Contains(string(stat), fmt.Sprintf("PPid:\t%d\n", os.Getpid())) {
			t.Errorf("%s %v", stat, err)
		}
		if _, err := os.Lstat(h.path("var/spool/cron/crontabs/cfw-ana")); err != nil {
			t.Error("it did what it is to do already:", err)
		}
		if began == 1 {
			return errors.New("it is hers")
		}
		return nil
	}
	if gone, err := h.Clear(t.Context(), "cfw-ana", uid); err == nil || len(gone) != 0 || began != 1 {
		t.Error(gone, err, began)
	}
	if gone, err := h.Clear(t.Context(), "cfw-ana", uid); err != nil || len(gone) != 2 || began != 3 {
		t.Error(gone, err, began)
	}
}

// A pass waits for a moment alone, and the door as well.
func TestAFileSystemThatNeverAnswersHoldsUpNoPass(t *testing.T) {
	h, _ := after(t)
	h.Self = []string{"/proc/self/exe", apartly}
	must(t, os.RemoveAll(h.path("etc/sudoers.d")))
	fill := hole(t, h.path("etc/sudoers.d"))
	glance, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := h.Snapshot(glance); err == nil || !strings.Contains(err.Error(), "sudoers.d") {
		t.Error("a snapshot says all of what nobody told:", err)
	}
	seen, err := h.Snapshot(t.Context())
	if err != nil || !strings.Contains(string(seen), "/etc/sudoers.d, which does not answer") {
		t.Error(string(seen), err)
	}
	fill()
}

func TestAProgramThatCannotBeEndedHoldsUpNobody(t *testing.T) {
	h := &Host{Root: "/"}
	at := t.TempDir()
	fill := hole(t, at)
	glance, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := h.run(glance, "cat", filepath.Join(at, "x")); !errors.Is(err, errStuck) {
		t.Error(err)
	}
	fill()
}

// Systemd lets the agent have so many processes and threads, and no more: without
// one that it can start, the agent is at its end.
func TestProgramsThatCannotBeEndedAreFew(t *testing.T) {
	h := &Host{Root: "/"}
	at := t.TempDir()
	fill := hole(t, at)
	glance, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for range fewAlone {
		all.Go(func() { _, _ = h.run(glance, "cat", filepath.Join(at, "x")) })
	}
	all.Wait()
	if _, err := h.run(t.Context(), "cat", "/dev/null"); !errors.Is(err, errStuck) {
		t.Error("one more was started:", err)
	}
	if _, err := h.run(t.Context(), "true"); err != nil {
		t.Error("another program:", err)
	}
	fill()
	for h.alone.add("cat", 0) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := h.run(t.Context(), "cat", "/dev/null"); err != nil {
		t.Error(err)
	}
}

// Who knocks would wait in the agent for whoever is mounted on the file.
func TestAccountsUnderAMountAreLeftToTheNameService(t *testing.T) {
	h := machine(t)
	file := h.path("etc/passwd")
	must(t, os.MkdirAll(h.path("etc"), 0o755))
	must(t, os.WriteFile(file, []byte("bob:x:1000:1000::/home/bob:/bin/sh\n"), 0o600))
	if _, found := h.local("bob"); !found {
		t.Error("not found")
	}
	must(t, unix.Mount(file, file, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(file, unix.MNT_DETACH) })
	if _, found := h.local("bob"); found {
		t.Error("it was read")
	}
}
