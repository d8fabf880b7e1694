package host

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/grant"
	"curfew.internal/test/need"
)

// victim is a uid that no lab on the same machine gives.
const victim = grant.UIDMax - 13

// leaderless turns this program into a process whose first thread is dead.
const leaderless = "CURFEW_TEST_LEADERLESS"

func init() {
	if os.Getenv(leaderless) != "" {
		runtime.LockOSThread() // in an init, to the first thread
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	}
}

// start runs a program as the victim, and ends it with the test.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: victim, Gid: victim}}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// until waits for something to become so.
func until(t *testing.T, so func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(2 * time.Minute)
	for !so() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it did not become so")
		}
	}
}

func TestThreadsBehindADeadLeaderAreEnded(t *testing.T) {
	h := machine(t)
	self, err := os.Executable()
	must(t, err)
	b, err := os.ReadFile(self)
	must(t, err)
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755)) // for the victim to reach it
	file := filepath.Join(dir, "leaderless")
	must(t, os.WriteFile(file, b, 0o755))
	cmd := exec.Command(file)
	cmd.Env = []string{leaderless + "=1"}
	start(t, cmd)
	status := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status"
	until(t, func() bool {
		b, err := os.ReadFile(status)
		return err == nil && strings.Contains(string(b), "State:\tZ") && !strings.Contains(string(b), "Threads:\t1\n")
	})
	if n, err := h.KillUID(t.Context(), victim); n != 1 || err != nil {
		t.Error(n, err)
	}
	if b, err := os.ReadFile(status); err != nil || !strings.Contains(string(b), "Threads:\t1\n") {
		t.Errorf("threads are alive: %v", err)
	}
}

func TestABombIsEnded(t *testing.T) {
	h := machine(t)
	need.Program(t, "prlimit", "perl")
	cmd := exec.Command("prlimit", "--nproc=120", "--cpu=30", "perl", "-e", "fork while 1")
	start(t, cmd)
	until(t, func() bool {
		pids, err := processesOf(victim)
		return err == nil && len(pids) > 60
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := h.KillUID(ctx, victim)
	if err != nil || n < 60 {
		t.Error(n, err)
	}
	if left, err := processesOf(victim); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

// Su of root's above a process stops itself when that is stopped, and would
// wait for ever.
func TestNobodyAboveIsStopped(t *testing.T) {
	h := machine(t)
	need.Program(t, "sleep")
	cmd := exec.Command("sleep", "1000")
	start(t, cmd)
	seen := make(chan unix.WaitStatus, 1)
	go func() {
		var status unix.WaitStatus
		_, _ = unix.Wait4(cmd.Process.Pid, &status, unix.WUNTRACED, nil)
		seen <- status
	}()
	if n, err := h.KillUID(t.Context(), victim); n != 1 || err != nil {
		t.Error(n, err)
	}
	if status := <-seen; !status.Signaled() || status.Signal() != unix.SIGKILL {
		t.Errorf("who waits for it sees %#x", status)
	}
}

// A sweep that has no time left says what is still there.
func TestASweepEndsWithItsContext(t *testing.T) {
	h := machine(t)
	need.Program(t, "sleep")
	start(t, exec.Command("sleep", "1000"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.KillUID(ctx, victim); err == nil {
		t.Error("clean, having had no time to look again")
	}
	if n, err := h.KillUID(t.Context(), victim); n > 1 || err != nil {
		t.Error(n, err)
	}
	if left, err := processesOf(victim); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

// Whoever became root in a session, and has no label any more, is known by the
// login that it came by.
func TestWhoLoggedInIsEndedAsRoot(t *testing.T) {
	h := machine(t)
	need.Program(t, "sleep")
	cmd := exec.Command("sh", "-c", "echo $0 >/proc/self/loginuid && exec setsid sleep 1000", strconv.Itoa(victim))
	must(t, cmd.Start())
	seen := make(chan error, 1)
	go func() { seen <- cmd.Wait() }()
	until(t, func() bool {
		comm, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/comm")
		return err != nil || string(comm) == "sleep\n"
	})
	if n, err := h.KillUID(t.Context(), victim); n != 1 || err != nil {
		t.Error(n, err)
		_ = cmd.Process.Kill()
	}
	if err := <-seen; err == nil || err.Error() != "signal: killed" {
		t.Error(err)
	}
}

func TestStatusOfAProcess(t *testing.T) {
	for _, c := range []struct {
		status, login string
		has           bool
	}{
		{"State:\tS (sleeping)\nUid:\t0\t0\t70007\t0\nThreads:\t1\n", "4294967295", true},
		{"State:\tS (sleeping)\nUid:\t0\t0\t0\t0\nThreads:\t1\n", "4294967295", false},
		{"State:\tS (sleeping)\nUid:\t0\t0\t0\t0\nThreads:\t1\n", "70007", true},
		{"State:\tS (sleeping)\nUid:\t0\t0\t0\t0\nThreads:\t1\n", "70008", false},
		{"State:\tZ (zombie)\nUid:\t70007\t70007\t70007\t70007\nThreads:\t1\n", "70007", false},
		{"State:\tZ (zombie)\nUid:\t70007\t70007\t70007\t70007\nThreads:\t2\n", "", true},
		{"State:\tR (running)\nUid:\t170007\t700071\t7\t0\nThreads:\t1\n", "", false},
		{"State:\tX (dead)\nUid:\t70007\t70007\t70007\t70007\nThreads:\t0\n", "", false},
		{"State:\tR (running)\nUid:\t70007\t70007\t70007\t70007\nThreads:", "", true},
		{"", "", false},
	} {
		if statusHasUID([]byte(c.status), c.login, uid) != c.has {
			t.Errorf("%q of login %q", c.status, c.login)
		}
	}
}
