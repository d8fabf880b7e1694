package host

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/enforce"
	"curfew.internal/test/need"
)

func TestMountsOverProcesses(t *testing.T) {
	const usual = "21 1 0:1 / / rw - ext4 /dev/vda rw\n22 21 0:2 / /proc rw - proc proc rw\n23 22 0:3 / /proc/sys/fs/binfmt_misc rw - autofs x rw\n" +
		"24 22 0:4 / /proc/cpuinfo rw - fuse lxcfs rw\n25 21 0:2 / /srv/proc rw - proc proc rw\n26 21 0:2 /1 /srv/proc/12 rw - proc proc rw\n"
	for name, c := range map[string]struct{ more, want string }{
		"what hosts have":               {},
		"a mount on a process":          {"27 22 0:2 /1 /proc/4711 rw - proc proc rw\n", "/proc/4711"},
		"a mount on a part of one":      {"27 22 0:1 /x /proc/4711/status rw - ext4 x rw\n", "/proc/4711/status"},
		"a mount on all processes":      {"27 22 0:5 / /proc rw - tmpfs x rw\n", "/proc,"},
		"a mount on one of its threads": {"27 22 0:1 / /proc/4711/task/4712 rw - tmpfs x rw\n", "/proc/4711/task/4712"},
	} {
		got := coveredBy(usual + c.more)
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], " on "+c.want)) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// What a mount hides is not ended, and nobody says that nothing is left.
func TestAProcessBehindAMountIsNotForgotten(t *testing.T) {
	h := machine(t)
	need.Program(t, "sleep")
	runtime.LockOSThread() // for good: the thread has mounts of its own, and goes with the test
	must(t, unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	cmd := exec.Command("sleep", "1000")
	start(t, cmd)
	at := fmt.Sprintf("/proc/%d", cmd.Process.Pid)
	says := func(want string) {
		t.Helper()
		_, left, err := h.Leftovers(t.Context(), "cfw-ana", victim)
		if text := fmt.Sprint(left, err); !strings.Contains(text, want) {
			t.Errorf("left: %s", text)
		}
		if _, err := h.KillUID(t.Context(), victim); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("kill: %v", err)
		}
		if _, err := h.EndRaised(t.Context(), nil, victim); err == nil {
			t.Error("nobody says that a login could not be looked through")
		}
	}
	must(t, unix.Mount("/proc/1", at, "", unix.MS_BIND, ""))
	says("a mount of /1 on " + at)
	must(t, unix.Mount("/proc/1", "/proc/thread-self", "", unix.MS_BIND, ""))
	says("the agent's own part of /proc is covered")
	must(t, unix.Mount("none", "/proc", "tmpfs", 0, ""))
	says("/proc is covered by another file system")
	must(t, unix.Unmount("/proc", 0))
	must(t, unix.Unmount(fmt.Sprintf("/proc/%d/task/%d", unix.Getpid(), unix.Gettid()), 0))
	must(t, unix.Unmount(at, 0))
	if n, err := h.KillUID(t.Context(), victim); n != 1 || err != nil {
		t.Error(n, err)
	}
}

// What lies under a mount on our folders is not removed, and comes back when it
// goes: nobody says that nothing is left.
func TestARuleUnderAMountIsNotForgotten(t *testing.T) {
	h := machine(t)
	run := filepath.Dir(h.path(runDir))
	must(t, unix.Mount(run, run, "", unix.MS_BIND, "")) // as the host's own
	t.Cleanup(func() { _ = unix.Unmount(run, unix.MNT_DETACH) })
	converge(t, h, wanted())
	const id = "g-abcdefghijklmnop"
	homes := h.path(homeDir)
	must(t, unix.Mount("homes", homes, "tmpfs", 0, "")) // as run-curfew-home.mount
	t.Cleanup(func() { _ = unix.Unmount(homes, unix.MNT_DETACH) })
	converge(t, h, wanted())
	if _, left, err := h.RuleLeft("g-"); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	for _, at := range []string{run, h.path(runDir), h.path(sudoersDir), h.path(userdb), homes} {
		must(t, unix.Mount("hers", at, "tmpfs", 0, ""))
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
		converge(t, h, enforce.State{})
		_, left, err := h.RuleLeft(id)
		if err != nil || len(left) != 1 || !strings.Contains(left[0], " on "+at+",") {
			t.Errorf("%s: %q %v", at, left, err)
		}
		must(t, unix.Unmount(at, unix.MNT_DETACH))
		converge(t, h, wanted())
	}
	converge(t, h, enforce.State{})
	if _, left, err := h.RuleLeft(id); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}
