package host

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/test/need"
)

// halfRoot turns this program into a process whose first thread is the
// victim's, and another root's.
const halfRoot = "CURFEW_TEST_HALF_ROOT"

func init() {
	if os.Getenv(halfRoot) == "" {
		return
	}
	runtime.LockOSThread() // in an init, to the first thread
	up := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(up)
		_, _, _ = unix.RawSyscall(unix.SYS_PAUSE, 0, 0, 0)
	}()
	<-up
	for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} { // of one thread, unlike Go's own
		if call == unix.SYS_SETRESGID {
			_, _, _ = unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		}
		if _, _, failed := unix.RawSyscall(call, victim, victim, victim); failed != 0 {
			os.Exit(1)
		}
	}
	fmt.Println("up")
	_, _, _ = unix.RawSyscall(unix.SYS_PAUSE, 0, 0, 0)
}

func TestWhoCanDoMoreThanTheAccount(t *testing.T) {
	const own = "Name:\tsh\nState:\tS (sleeping)\nUid:\t70007\t70007\t70007\t70007\nGid:\t70007\t70007\t70007\t70007\nGroups:\t70007 \nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
	h := machine(t)
	must(t, os.MkdirAll(h.path("etc"), 0o755))
	must(t, os.WriteFile(h.path("etc/group"), []byte("root:x:0:cfw-ana\ndisk:x:6:\nutmp:x:43:\nmakers:x:900:bob,cfw-ana\ndocker:x:901:bob\n"), 0o644))
	must(t, os.Symlink("cfw-ana.user", h.path("run/userdb/70007.user")))
	a, err := h.allowance(uid)
	must(t, err)
	for _, c := range []struct {
		name, from, to  string
		elsewhere, more bool
	}{
		{name: "a shell of hers"},
		{name: "root by a setuid file", from: "Uid:\t70007\t70007\t70007\t70007", to: "Uid:\t70007\t0\t0\t0", more: true},
		{name: "who can become root again", from: "Uid:\t70007\t70007\t70007", to: "Uid:\t70007\t70007\t0", more: true},
		{name: "another account", from: "Uid:\t70007\t70007\t70007\t70007", to: "Uid:\t33\t33\t33\t33", more: true},
		{name: "root's group", from: "Gid:\t70007\t70007", to: "Gid:\t70007\t0", more: true},
		{name: "root's group among the others", from: "Groups:\t70007", to: "Groups:\t0 70007", more: true},
		{name: "the group of the disks", from: "Gid:\t70007\t70007", to: "Gid:\t70007\t6", more: true},
		{name: "who can take the group of the disks again", from: "Gid:\t70007\t70007\t70007", to: "Gid:\t70007\t70007\t6", more: true},
		{name: "a group of others among the others", from: "Groups:\t70007", to: "Groups:\t901 70007", more: true},
		{name: "a group that the host has her in", from: "Groups:\t70007", to: "Groups:\t900 70007"},
		{name: "screen, which has a group of its own", from: "Gid:\t70007\t70007", to: "Gid:\t70007\t43"},
		{name: "capabilities", from: "CapPrm:\t0000000000000000", to: "CapPrm:\t0000000000002000", more: true},
		{name: "capabilities in a user namespace of her own", from: "CapEff:\t0000000000000000", to: "CapEff:\t000001ffffffffff", elsewhere: true},
	} {
		if got := a.statusRaised([]byte(strings.Replace(own, c.from, c.to, 1)), !c.elsewhere); got != c.more {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if deadThread([]byte(own)) || !deadThread([]byte(strings.Replace(own, "\tS (sleeping)", "\tZ (zombie)", 1))) {
		t.Error("who is dead")
	}
	for text, only := range map[string]bool{
		"         0      70007          1\n":                                   true,
		"     70007      70007          1\n":                                   true,
		"         0          0 4294967295\n":                                   false,
		"         0      70007          2\n":                                   false,
		"     70007          0          1\n":                                   false,
		"         0      70007          1\n         1          0          1\n": false,
		"": false,
	} {
		if got := onlyMapped(text, "70007"); got != only {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestOnlyWhoCanDoMoreIsEnded(t *testing.T) {
	need.Program(t, "sleep")
	space := func(first int, size int) *syscall.SysProcAttr {
		one := []syscall.SysProcIDMap{{HostID: first, Size: size}}
		return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one, GidMappingsEnableSetgroups: true}
	}
	as := func(attr *syscall.SysProcAttr, id uint32, groups ...uint32) *syscall.SysProcAttr {
		attr.Credential = &syscall.Credential{Uid: id, Gid: id, Groups: groups}
		return attr
	}
	for _, c := range []struct {
		name string
		attr *syscall.SysProcAttr
		more bool
	}{
		{name: "root's", attr: &syscall.SysProcAttr{}, more: true},
		{name: "hers", attr: as(&syscall.SysProcAttr{}, victim)},
		{name: "hers, with the group of the disks", attr: as(&syscall.SysProcAttr{}, victim, 6), more: true},
		{name: "hers in a user namespace about her alone", attr: as(space(victim, 1), 0)},
		{name: "hers in a user namespace about everyone", attr: as(space(0, 1<<20), victim), more: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("sleep", "1000")
			cmd.SysProcAttr = c.attr
			endsRaised(t, cmd, c.more)
		})
	}
	t.Run("hers, with a thread of root's", func(t *testing.T) {
		self, err := os.Executable()
		must(t, err)
		cmd := exec.Command(self)
		cmd.Env = []string{halfRoot + "=1"}
		endsRaised(t, cmd, true)
	})
}

// endsRaised starts a program, and looks whether it is ended.
func endsRaised(t *testing.T, cmd *exec.Cmd, more bool) {
	t.Helper()
	h := machine(t)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if len(cmd.Env) > 0 {
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
			t.Fatal(line, err)
		}
	}
	seen := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(seen)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-seen
	})
	n, err := h.EndRaised(t.Context(), []int{cmd.Process.Pid, 1 << 30}, victim)
	if err != nil || (n == 1) != more {
		t.Error(n, err)
	}
	if !more {
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("it was ended: %v", err)
		}
		return
	}
	select {
	case <-seen:
	case <-time.After(time.Minute):
		t.Fatal("it is alive")
	}
}
