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
// writes, and returns to how many; later, if there are some and none took it. It
// goes by the open files of the processes and not by names: a container has a
// /dev/pts/0 of its own. A terminal that takes nothing just now is passed over,
// whoever stopped it.
func (h *Host) Tell(pids []int, line string) (n int, later bool) {
	told := map[node]bool{}
	for _, pid := range pids {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && strings.HasPrefix(exe, enforce.LoginShell) {
			continue // what is told on the terminal that it had made shows on its own
		}
		for fd := range 3 {
			name := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
			st, err := stat(unix.AT_FDCWD, name, 0)
			if err != nil || !st.terminal || told[st] {
				continue
			}
			if write(name, st, "\r\n"+line+"\r\n") {
				told[st] = true
			} else {
				later = true
			}
		}
	}
	return len(told), later && len(told) == 0
}

// A node is a file, and whether it is a terminal.
type node struct {
	major, minor uint32 // of its file system
	ino          uint64
	terminal     bool
}

// stat looks at what the kernel knows of a file: one of a file system that does
// not answer (fuse(4), NFS) would keep whoever asks it.
func stat(dir int, name string, flags int) (node, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, name, flags|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|unix.STATX_INO, &st); err != nil {
		return node{}, err
	}
	major := st.Rdev_major
	return node{
		st.Dev_major, st.Dev_minor, st.Ino,
		st.Mode&unix.S_IFMT == unix.S_IFCHR && (major == ttyMajor || major >= ptyFirstMajor && major <= ptyLastMajor),
	}, nil
}

// write writes if the file is still the one that was looked at.
func write(name string, was node, text string) bool {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // gone
	}
	defer func() { _ = unix.Close(fd) }() // nothing is buffered here
	if is, err := stat(fd, "", unix.AT_EMPTY_PATH); err != nil || is != was {
		return false
	}
	n, err := unix.Write(fd, []byte(text))
	return err == nil && n > 0 // of the rest there is no other word
}
