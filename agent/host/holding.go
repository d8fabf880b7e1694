package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// EndHolding ends those of the processes that are asked before anybody opens or
// reads a file (fanotify(7)'s permission events), and names them. It opens
// nothing but what is in /proc, of which nobody is asked.
func EndHolding(pids []int) (ended []int) {
	for _, pid := range pids {
		if !holding(pid) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // gone
		}
		if holding(pid) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
			ended = append(ended, pid)
		}
		_ = unix.Close(fd) // it was only signalled
	}
	return ended
}

// holding looks at each thread: they may have descriptors of their own.
func holding(pid int) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/fd/*", pid)) // the pattern is good
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != "anon_inode:[fanotify]" {
			continue
		}
		dir, name := filepath.Split(fd)
		b, err := os.ReadFile(filepath.Join(dir, "../fdinfo", name)) //nolint:gosec // in /proc
		if err == nil && asked(string(b)) {
			return true
		}
	}
	return false
}

// asking are the events that wait for an answer (linux/fanotify.h): before a
// file is opened, read, opened to be executed, or looked at.
const asking = unix.FAN_OPEN_PERM | unix.FAN_ACCESS_PERM | unix.FAN_OPEN_EXEC_PERM | 0x100000

// asked reads what proc_pid_fdinfo(5) says of a group of fanotify.
func asked(fdinfo string) bool {
	for word := range strings.FieldsSeq(fdinfo) {
		if text, ok := strings.CutPrefix(word, "mask:"); ok {
			mask, err := strconv.ParseUint(text, 16, 64)
			if err == nil && mask&asking != 0 {
				return true
			}
		}
	}
	return false
}
