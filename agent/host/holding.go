package host

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Descriptors of one process that are looked at, and tables of them: as many as
// an open file has numbers could keep us for minutes.
const (
	maxDescriptors = 1 << 16
	maxTables      = 64
)

// EndHolding ends those of the processes that are asked before anybody opens or
// reads a file (fanotify(7)'s permission events), or do not give up a lease for
// which somebody waits (fcntl(2)), and names them; with doubted,
// those too that have more descriptors than are looked at. It opens
// nothing but what is in /proc, of which nobody is asked. It begins anywhere, and
// goes on until ctx is done.
func EndHolding(ctx context.Context, pids []int, doubted bool) (ended []int) {
	n := 0
	leases := says("/proc/locks", func(line []byte) bool { n++; return n > maxLocks || breaking(line) })
	for _, i := range rand.Perm(len(pids)) { //nolint:gosec // no secret
		if ctx.Err() != nil {
			break
		}
		pid := pids[i]
		holds := func() bool {
			h := holding{leases: leases}
			h.process(pid)
			if h.leased {
				time.Sleep(yields) // whoever means to will have
			}
			return h.asks || h.leased || h.over && doubted
		}
		if !holds() {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // gone
		}
		if holds() && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
			ended = append(ended, pid)
		}
		_ = unix.Close(fd) // it was only signalled
	}
	return ended
}

// holding is a look at one process.
type holding struct {
	tables []int // a thread of each
	looked int
	leases bool // there may be some that somebody waits for
	asks   bool // one of its descriptors is of such events
	leased bool // of such a lease
	over   bool // there are more than are looked at
}

// process looks at each thread: they may have descriptors of their own.
func (h *holding) process(pid int) {
	each(fmt.Sprintf("/proc/%d/task", pid), func(name string) bool {
		thread, err := strconv.Atoi(name)
		if err != nil || slices.ContainsFunc(h.tables, func(t int) bool { return sameTable(t, thread) }) {
			return true
		}
		if h.over = len(h.tables) == maxTables; h.over {
			return false
		}
		h.tables = append(h.tables, thread)
		dir := fmt.Sprintf("/proc/%d/task/%d", pid, thread)
		each(dir+"/fd", func(fd string) bool { return h.descriptor(dir, fd) })
		return !h.asks && !h.leased && !h.over
	})
}

func (h *holding) descriptor(dir, fd string) (more bool) {
	if h.over = h.looked == maxDescriptors; h.over {
		return false
	}
	h.looked++
	to, err := os.Readlink(filepath.Join(dir, "fd", fd))
	told := err == nil && to == "anon_inode:[fanotify]"
	if !told && !h.leases {
		return true
	}
	info := filepath.Join(dir, "fdinfo", fd)
	h.asks = told && says(info, func(line []byte) bool { return asked(string(line)) })
	h.leased = h.leases && says(info, breaking)
	return !h.asks && !h.leased
}

// yields is how long a lease for which somebody waits is not given up before its
// holder is doubted.
const yields = 200 * time.Millisecond

// maxLocks is how many of the host's locks are looked at: the kernel goes through
// them from the first again for each page. Behind more, somebody may wait.
const maxLocks = 1 << 14

// breaking reads what proc_locks(5), and a descriptor, say of a lease: whether
// somebody waits for it.
func breaking(line []byte) bool { return bytes.Contains(line, []byte("LEASE  BREAKING")) }

// says reports whether one of a file's lines is such. It holds one at a time:
// anybody can have millions of locks, and each is a line.
func says(file string, such func(line []byte) bool) bool {
	f, err := os.Open(file) //nolint:gosec // in /proc
	if err != nil {
		return false // gone
	}
	defer func() { _ = f.Close() }() // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if such(lines.Bytes()) {
			return true
		}
	}
	return false
}

// each goes through a folder, however much is in it, for as long as it is told to.
func each(dir string, more func(name string) bool) {
	f, err := os.Open(dir) //nolint:gosec // in /proc
	if err != nil {
		return // gone
	}
	defer func() { _ = f.Close() }() // only read
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			if !more(name) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// sameTable reports whether two threads share their descriptors (kcmp(2)).
func sameTable(a, b int) bool {
	const files = 2 // KCMP_FILES
	order, _, failed := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), files, 0, 0, 0)
	return failed == 0 && order == 0
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
