package host

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/enforce"
)

// Majors of terminals that people sit at (Documentation/admin-guide/devices.txt):
// consoles and serial lines, and those of ssh, tmux and the like.
const (
	ttyMajor      = 4
	ptyFirstMajor = 136
	ptyLastMajor  = 143
)

// Tell writes a line to each terminal that one of the processes reads or
// writes, and returns to how many. It goes by the open files of the processes
// and not by names: a container has a /dev/pts/0 of its own. A terminal that
// takes nothing just now is passed over, whoever stopped it.
func (h *Host) Tell(pids []int, line string) int {
	told := map[[2]uint64]bool{}
	for _, pid := range pids {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && strings.HasPrefix(exe, enforce.LoginShell) {
			continue // what is told on the terminal that it had made shows on its own
		}
		for fd := range 3 {
			name := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
			var st unix.Stat_t
			if unix.Stat(name, &st) != nil || !isTerminal(st) || told[[2]uint64{st.Dev, st.Ino}] {
				continue
			}
			if write(name, st, "\r\n"+line+"\r\n") {
				told[[2]uint64{st.Dev, st.Ino}] = true
			}
		}
	}
	return len(told)
}

func isTerminal(st unix.Stat_t) bool {
	major := unix.Major(st.Rdev)
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && (major == ttyMajor || major >= ptyFirstMajor && major <= ptyLastMajor)
}

// write writes if the file is still the one that was looked at.
func write(name string, was unix.Stat_t, text string) bool {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // gone
	}
	defer func() { _ = unix.Close(fd) }() // nothing is buffered here
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Dev != was.Dev || st.Ino != was.Ino {
		return false
	}
	n, err := unix.Write(fd, []byte(text))
	return err == nil && n == len(text)
}
