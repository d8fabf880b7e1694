package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// EndRaised ends those of the processes that can do more than the account: that
// have another user id, root's group, or capabilities outside a user namespace
// of their own. It returns how many that were.
func (h *Host) EndRaised(ctx context.Context, pids []int, uid uint32) (ended int, err error) {
	for _, pid := range pids {
		if ctx.Err() != nil {
			return ended, errors.Join(err, fmt.Errorf("look for processes that can do more than uid %d: %w", uid, ctx.Err()))
		}
		if !raised(pid, uid) {
			continue
		}
		ended++
		if failed := endRaised(pid, uid); failed != nil && !errors.Is(failed, unix.ESRCH) && !errors.Is(failed, unix.EINVAL) {
			err = errors.Join(err, fmt.Errorf("end process %d: %w", pid, failed))
		}
	}
	return ended, err
}

// endRaised looks at the process again once it has a name that no other gets.
func endRaised(pid int, uid uint32) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	if raised(pid, uid) {
		err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	return errors.Join(err, unix.Close(fd))
}

// raised reports whether a living process can do more than the uid. One that
// cannot be looked at, and is there, can.
func raised(pid int, uid uint32) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH)
	}
	own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
	first, _ := os.Readlink("/proc/self/ns/user")
	return statusRaised(b, uid, own == first)
}

// statusRaised reads a process's status (proc(5)). Capabilities in a user
// namespace of one's own are over what is in it alone.
func statusRaised(status []byte, uid uint32, capable bool) bool {
	id := strconv.FormatUint(uint64(uid), 10)
	for line := range bytes.Lines(status) {
		key, rest, _ := bytes.Cut(line, []byte(":"))
		fields := bytes.Fields(rest)
		is := func(text string) bool {
			return slices.ContainsFunc(fields, func(f []byte) bool { return string(f) == text })
		}
		switch string(key) {
		case "State":
			if is("Z") || is("X") {
				return false
			}
		case "Uid":
			if slices.ContainsFunc(fields, func(f []byte) bool { return string(f) != id }) {
				return true
			}
		case "Gid", "Groups":
			if is("0") {
				return true
			}
		case "CapPrm", "CapEff":
			if capable && len(fields) == 1 && len(bytes.Trim(fields[0], "0")) > 0 {
				return true
			}
		}
	}
	return false
}
