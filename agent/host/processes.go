package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"curfew.internal/agent/host/remains"
	"curfew.internal/agent/host/tree"
	"curfew.internal/grant"
)

// Processes lists those of the account, and those whose login was its.
func (h *Host) Processes(uid uint32) ([]int, error) {
	if uid < grant.UIDMin || uid > grant.UIDMax {
		return nil, fmt.Errorf("uid %d is not one of ours", uid)
	}
	return processesOf(uid)
}

// Argv returns a process's arguments.
func (h *Host) Argv(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil, fmt.Errorf("read arguments: %w", err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// EndSessions ends what logind knows of an account: its sessions and its user
// manager. A host without logind, or an account that it does not know, has
// none.
func (h *Host) EndSessions(ctx context.Context, uid uint32) error {
	if uid < grant.UIDMin || uid > grant.UIDMax {
		return fmt.Errorf("uid %d is not one of ours", uid)
	}
	if _, err := os.Stat(h.path("run/systemd/users", fmt.Sprint(uid))); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// Not by loginctl, which wants to know the account's name: it may be gone.
	const name, path = "org.freedesktop.login1", "/org/freedesktop/login1"
	if out, err := h.run(ctx, "busctl", "call", name, path, name+".Manager", "TerminateUser", "u", fmt.Sprint(uid)); err != nil &&
		!strings.Contains(out, "not logged in") && !strings.Contains(out, "No user") {
		return fmt.Errorf("end sessions of uid %d: %w: %s", uid, err, strings.TrimSpace(out))
	}
	return nil
}

// RuleLeft looks for the sudo rule of an ended grant, and for what may hide it.
func (h *Host) RuleLeft(grant string) (looked, left []string, err error) {
	looked = []string{"sudo rule, and mounts over what is ours"}
	left, err = h.hiding()
	_, failed := tree.Lstat(h.path(sudoersDir, grant))
	failed = ignore(failed, tree.ErrMounted) // under it lies what could not be removed
	if failed == nil {
		left = append(left, "sudo rule "+grant)
	}
	return looked, bounded(left), errors.Join(err, ignore(failed, fs.ErrNotExist))
}

// Leftovers looks for what an ended account may have left behind, and says
// where it looked.
func (h *Host) Leftovers(ctx context.Context, person string, uid uint32) (looked, left []string, err error) {
	var errs []error
	look := func(what string, found func() ([]string, error)) {
		got, err := found()
		looked, left, errs = append(looked, what), append(left, bounded(got)...), append(errs, err)
	}
	look("processes of the account and of its logins", func() ([]string, error) {
		pids, err := processesOf(uid)
		var names []string
		for _, p := range pids {
			names = append(names, fmt.Sprintf("process %d", p))
		}
		hidden, failed := covered()
		return append(names, hidden...), errors.Join(err, failed)
	})
	look("account", func() ([]string, error) {
		line, found, err := h.getent(ctx, "passwd", person)
		fields := strings.Split(line, ":")
		if !found || len(fields) > 2 && fields[2] != strconv.FormatUint(uint64(uid), 10) {
			return nil, err // none, or the host's own of that name
		}
		return []string{"account " + person}, err
	})
	look("things of the account", func() ([]string, error) {
		seen, err := h.Observe(ctx)
		var names []string
		for t := range seen {
			if t.Name == person {
				names = append(names, t.String())
			}
		}
		return names, err
	})
	where := remains.OwnLooked
	found, skipped, err := h.own(ctx, person, uid)
	if len(skipped) > 0 {
		where += "; not in " + strings.Join(skipped, ", ")
	}
	look(where, func() ([]string, error) {
		var names []string
		for _, f := range found {
			names = append(names, f.Path)
		}
		return names, err
	})
	return looked, left, errors.Join(errs...)
}
