package host

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/test/need"
)

// holder turns this program into one that is told of a folder, by a mask, and
// answers nothing; much into one with so many descriptors and threads, which
// have descriptors of their own or not.
const (
	holder = "CURFEW_TEST_HOLDER"
	much   = "CURFEW_TEST_MUCH"
)

func init() {
	dir := os.Getenv(holder)
	if dir == "" {
		return
	}
	mask, err := strconv.ParseUint(os.Getenv(holder+"_MASK"), 10, 64)
	fd, failed := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil || failed != nil || unix.FanotifyMark(fd, unix.FAN_MARK_ADD, mask|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, dir) != nil {
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString("told\n")
	for {
		time.Sleep(time.Hour)
	}
}

func init() {
	var descriptors, threads int
	var apart bool
	if n, _ := fmt.Sscan(os.Getenv(much), &descriptors, &threads, &apart); n != 3 {
		return
	}
	for range descriptors {
		if _, err := unix.Dup(0); err != nil {
			os.Exit(1)
		}
	}
	var begun sync.WaitGroup
	begun.Add(threads)
	for range threads {
		go func() {
			runtime.LockOSThread() // each has one of its own
			if apart && unix.Unshare(unix.CLONE_FILES) != nil {
				os.Exit(1)
			}
			begun.Done()
			select {}
		}()
	}
	begun.Wait()
	_, _ = os.Stdout.WriteString("told\n")
	for {
		time.Sleep(time.Hour)
	}
}

// lessee turns this program into one with a lease of a file, which it does not
// give up.
const lessee = "CURFEW_TEST_LESSEE"

func init() {
	file := os.Getenv(lessee)
	if file == "" {
		return
	}
	fd, err := unix.Open(file, unix.O_RDONLY, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK)
	}
	if err != nil {
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString("told\n")
	for {
		time.Sleep(time.Hour)
	}
}

// become starts this program as something else, and waits until it is.
func become(t *testing.T, env ...string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if n, err := out.Read(make([]byte, 5)); n != 5 {
		t.Fatal("it does not begin:", err)
	}
	return cmd.Process.Pid
}

// Whoever has much open keeps nobody: threads that share it are looked at once,
// and there is an end, after which it is in doubt.
func TestWhoHasMuchOpenIsLookedAtInPart(t *testing.T) {
	need.Root(t)
	shared, over := become(t, much+"=2000 100 false"), become(t, much+"=10 100 true")
	pids := []int{shared, over}
	if ended := EndHolding(t.Context(), pids, false); len(ended) > 0 {
		t.Errorf("%v were ended, of %v", ended, pids)
	}
	if ended := EndHolding(t.Context(), pids, true); !slices.Equal(ended, pids[1:]) {
		t.Errorf("in doubt %v were ended, of %v", ended, pids)
	}
}

func TestWhoeverIsAskedBeforeFilesAreOpenedIsEnded(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	begin := func(mask uint64) int {
		return become(t, holder+"="+dir, holder+"_MASK="+strconv.FormatUint(mask, 10))
	}
	told, asked := begin(unix.FAN_OPEN), begin(unix.FAN_OPEN_PERM)
	opened := make(chan error)
	go func() {
		f, err := os.Open(filepath.Join(dir, "file"))
		if err == nil {
			err = f.Close()
		}
		opened <- err
	}()
	pids := []int{os.Getpid(), told, asked}
	if ended := EndHolding(t.Context(), pids, false); !slices.Equal(ended, pids[2:]) {
		t.Errorf("%v were ended, of %v", ended, pids)
		_ = unix.Kill(asked, unix.SIGKILL)
	}
	must(t, <-opened)
	must(t, unix.Kill(told, 0))
}

func TestWhoeverGivesUpNoLeaseIsEndedOnceSomebodyWaits(t *testing.T) {
	need.Root(t)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	pid := become(t, lessee+"="+file)
	if ended := EndHolding(t.Context(), []int{pid}, false); len(ended) > 0 {
		t.Error("it was ended, and nobody waits")
	}
	opened := make(chan error)
	go func() {
		f, err := os.Open(file)
		if err == nil {
			err = f.Close()
		}
		opened <- err
	}()
	var ended []int
	for began := time.Now(); len(ended) == 0 && time.Since(began) < 10*time.Second; {
		ended = EndHolding(t.Context(), []int{os.Getpid(), pid}, false)
	}
	if !slices.Equal(ended, []int{pid}) {
		t.Error(ended)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	must(t, <-opened)
}

// Anybody can have any number of locks: to look at them takes no memory, and
// what stands behind them is looked for.
func TestAnyNumberOfLocksIsLookedAt(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "locked"))
	must(t, err)
	defer func() { _ = f.Close() }() // opened to lock it
	for i := maxLocks; i >= 0; i-- {
		must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: int64(2 * i), Len: 1}))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if ended := EndHolding(t.Context(), []int{os.Getpid()}, true); len(ended) > 0 {
		t.Error(ended)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("it took %d bytes", n)
	}
}

func TestWhatAGroupIsAsked(t *testing.T) {
	for text, want := range map[string]bool{
		"pos:\t0\nfanotify flags:4 event-flags:0\nfanotify sdev:2d mflags:0 mask:10000 ignored_mask:0\n": true,
		"fanotify flags:4 event-flags:0\nfanotify mnt_id:1f mflags:0 mask:40000 ignored_mask:0\n":        true,
		"fanotify ino:1 sdev:2d mflags:0 mask:20 ignored_mask:10000 fhandle-bytes:8":                     false,
		"fanotify flags:4 event-flags:0\n": false,
		"mask:":                            false, "mask:zz": false,
	} {
		if asked(text) != want {
			t.Errorf("%q", text)
		}
	}
}
