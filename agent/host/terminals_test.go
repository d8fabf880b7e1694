package host

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/test/need"
)

// terminal makes a pseudo-terminal, as pty(7) says.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		t.Fatal(errno, n)
	}
	slave = os.NewFile(fd, "slave")
	t.Cleanup(func() { _, _ = master.Close(), slave.Close() })
	return master, slave
}

func TestTellReachesTheTerminalOnce(t *testing.T) {
	master, slave := terminal(t)
	var pids []int
	for range 2 { // two processes at one terminal
		cmd := exec.Command("/bin/sleep", "60")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
		pids = append(pids, cmd.Process.Pid)
	}
	if n, later := new(Host).Tell(pids, "your grant ends"); n != 1 || later {
		t.Fatalf("told %d terminals", n)
	}
	r := bufio.NewReader(master)
	var got strings.Builder
	for range 2 {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString(line)
	}
	if !strings.Contains(got.String(), "\nyour grant ends\r") || r.Buffered() > 0 {
		t.Errorf("%q and %d more", got.String(), r.Buffered())
	}
}

func TestTellWritesToNoOtherFile(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sleep", "60")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, file, file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	if n, later := new(Host).Tell([]int{cmd.Process.Pid, 1 << 30}, "x"); n != 0 || later {
		t.Errorf("told %d", n)
	}
	if info, err := file.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// What a process has open may be of a file system that never answers.
func TestTellWaitsForNoFileSystem(t *testing.T) {
	need.Root(t)
	on := t.TempDir() + "/f"
	must(t, os.WriteFile(on, nil, 0o600))
	fill := hole(t, on)
	fd, err := unix.Open(on, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	file := os.NewFile(uintptr(fd), on)
	cmd := exec.CommandContext(t.Context(), "/bin/sleep", "60")
	cmd.Stdin = file
	must(t, cmd.Start())
	must(t, file.Close())
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	done := make(chan int, 1)
	go func() {
		n, _ := new(Host).Tell([]int{cmd.Process.Pid}, "x")
		done <- n
	}()
	select {
	case n := <-done:
		if n != 0 {
			t.Errorf("told %d", n)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits")
		fill()
		<-done
	}
}

// A terminal that was stopped with Ctrl-S takes nothing for ever.
func TestTellDoesNotWaitForAStoppedTerminal(t *testing.T) {
	_, slave := terminal(t)
	cmd := exec.Command("/bin/sleep", "60")
	cmd.Stdin, cmd.Stdout = slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, slave.Fd(), unix.TCXONC, unix.TCOOFF); errno != 0 {
		t.Fatal(errno)
	}
	done := make(chan bool, 1)
	go func() {
		n, later := new(Host).Tell([]int{cmd.Process.Pid}, strings.Repeat("x", 1<<20))
		done <- n == 0 && later
	}()
	select {
	case ok := <-done:
		if !ok {
			t.Error("told, or never to be")
		}
	case <-time.After(2 * time.Minute):
		t.Error("it waits")
	}
}
