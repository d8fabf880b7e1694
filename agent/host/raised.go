package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/enforce"
)

// harmless are groups whose setgid programs people leave running, screen and
// ssh-agent, and that own nothing which others cannot do without.
var harmless = []string{"utmp", "screen", "_ssh", "ssh"}

// An allowance is what processes of an account may have.
type allowance struct {
	uid    string
	groups []string // by number
	space  string   // the user namespace of the host
}

// EndRaised ends those of the processes that can do more than the account: that
// have in any thread another user id, a group that is not the account's,
// capabilities, or a user namespace that is about others too. It returns how
// many that were.
func (h *Host) EndRaised(ctx context.Context, pids []int, uid uint32) (ended int, err error) {
	a, err := h.allowance(uid)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if ctx.Err() != nil {
			return ended, errors.Join(err, fmt.Errorf("look for processes that can do more than uid %d: %w", uid, ctx.Err()))
		}
		if !a.raised(pid) {
			continue
		}
		ended++
		if failed := a.endRaised(pid); failed != nil && !errors.Is(failed, unix.ESRCH) && !errors.Is(failed, unix.EINVAL) {
			err = errors.Join(err, fmt.Errorf("end process %d: %w", pid, failed))
		}
	}
	return ended, errors.Join(err, uncovered())
}

// allowance finds the groups of an account: its own, and those that the host's
// file of groups has it in.
func (h *Host) allowance(uid uint32) (allowance, error) {
	id := strconv.FormatUint(uint64(uid), 10)
	a := allowance{uid: id, groups: []string{id}}
	var err error
	if a.space, err = os.Readlink("/proc/self/ns/user"); err != nil {
		return a, fmt.Errorf("look at our own user namespace: %w", err)
	}
	p := places[enforce.Account]
	record, _ := os.Readlink(h.path(p.dir, id+p.ext)) // whoever has none is in no group of the host's
	name := strings.TrimSuffix(record, p.ext)
	b, err := read(h.path("etc/group"))
	if err != nil {
		return a, nil // its own group alone
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 4 || fields[2] == "0" {
			continue
		}
		if slices.Contains(harmless, fields[0]) || name != "" && slices.Contains(strings.Split(fields[3], ","), name) {
			a.groups = append(a.groups, fields[2])
		}
	}
	return a, nil
}

// endRaised looks at the process again once it has a name that no other gets.
func (a allowance) endRaised(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	if a.raised(pid) {
		err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	return errors.Join(err, unix.Close(fd))
}

// raised reports whether any thread of a process can do more than the account.
// A process that cannot be looked at, and is there, can.
func (a allowance) raised(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	return err != nil && !gone(err) || slices.ContainsFunc(threads, func(t os.DirEntry) bool {
		return a.threadRaised(filepath.Join(dir, t.Name()))
	})
}

func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) }

func (a allowance) threadRaised(dir string) bool {
	status, err := os.ReadFile(filepath.Join(dir, "status")) //nolint:gosec // in /proc
	if err != nil {
		return !gone(err)
	}
	if deadThread(status) {
		return false
	}
	space, err := os.Readlink(filepath.Join(dir, "ns/user"))
	if err != nil {
		return !gone(err)
	}
	if a.statusRaised(status, space == a.space) {
		return true
	}
	return space != a.space && (a.othersMapped(filepath.Join(dir, "uid_map")) || a.othersMapped(filepath.Join(dir, "gid_map")))
}

// othersMapped reports whether a user namespace is about more than the
// account, whose group has its number: who has capabilities in it has them
// over all that are mapped.
func (a allowance) othersMapped(file string) bool {
	b, err := os.ReadFile(file) //nolint:gosec // in /proc
	if err != nil {
		return !gone(err)
	}
	return !onlyMapped(string(b), a.uid)
}

// onlyMapped reads user_namespaces(7)'s map: number inside, outside, and how
// many.
func onlyMapped(text, id string) bool {
	f := strings.Fields(text)
	return len(f) == 3 && f[1] == id && f[2] == "1"
}

func deadThread(status []byte) bool {
	_, state, _ := bytes.Cut(status, []byte("\nState:\t"))
	return bytes.HasPrefix(state, []byte("Z")) || bytes.HasPrefix(state, []byte("X"))
}

// statusRaised reads a thread's status (proc(5)). Capabilities in a user
// namespace that is about the account alone are over what is in it.
func (a allowance) statusRaised(status []byte, capable bool) bool {
	for line := range bytes.Lines(status) {
		key, rest, _ := bytes.Cut(line, []byte(":"))
		fields := strings.Fields(string(rest))
		raised := false
		switch string(key) {
		case "Uid":
			raised = slices.ContainsFunc(fields, func(f string) bool { return f != a.uid })
		case "Gid", "Groups":
			raised = slices.ContainsFunc(fields, func(f string) bool { return !slices.Contains(a.groups, f) })
		case "CapPrm", "CapEff":
			raised = capable && len(fields) == 1 && strings.Trim(fields[0], "0") != ""
		}
		if raised {
			return true
		}
	}
	return false
}
