package watch

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Who is killed does not go before others as it dies.
func TestWhoIsKilledWaitsForItsTurn(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if err := onPidfd(pid, 0, func(fd int) error { return finish(pid, fd) }); err != nil {
		t.Error(err)
	}
	var si unix.Siginfo // it stays a zombie, of which the kernel still tells
	if err := unix.Waitid(unix.P_PID, pid, &si, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b)) // proc_pid_stat(5): the state, the policy
	if fields[2] != "Z" || fields[40] != strconv.Itoa(unix.SCHED_BATCH) {
		t.Errorf("its state is %s, and its policy %s", fields[2], fields[40])
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("it ended: %v", err)
	}
}
