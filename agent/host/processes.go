package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"curfew.internal/agent/host/tree"
	"curfew.internal/grant"
)

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

// RuleLeft looks for the sudo rule of an ended grant.
func (h *Host) RuleLeft(grant string) (looked, left []string, err error) {
	looked = []string{"sudo rule"}
	_, err = os.Lstat(h.path(sudoersDir, grant))
	if err == nil {
		left = []string{"sudo rule " + grant}
	}
	return looked, left, ignore(err, fs.ErrNotExist)
}

// Leftovers looks for what an ended account may have left behind, and says
// where it looked.
func (h *Host) Leftovers(ctx context.Context, person string, uid uint32) (looked, left []string, err error) {
	var errs []error
	look := func(what string, found func() ([]string, error)) {
		got, err := found()
		looked, left, errs = append(looked, what), append(left, got...), append(errs, err)
	}
	look("processes of the account", func() ([]string, error) {
		pids, err := processesOf(uid)
		var names []string
		for _, p := range pids {
			names = append(names, fmt.Sprintf("process %d", p))
		}
		return names, err
	})
	look("account", func() ([]string, error) {
		_, found, err := h.getent(ctx, "passwd", person)
		if !found {
			return nil, err
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
	look("crontab, at jobs, mail, linger", func() ([]string, error) {
		return h.jobsOf(person, uid)
	})
	look("what lies directly in "+strings.Join(sharedDirs, ", "), func() ([]string, error) {
		return h.filesOf(uid, sharedDirs...)
	})
	return looked, left, errors.Join(errs...)
}

// jobsOf lists the files that bear the account's name where jobs and mail lie.
func (h *Host) jobsOf(person string, uid uint32) ([]string, error) {
	var found []string
	for _, n := range []string{"var/spool/cron/crontabs/", "var/spool/cron/", "var/mail/", "var/lib/systemd/linger/"} {
		info, err := os.Lstat(h.path(n, person))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return found, err
		}
		// logind, which is root, makes the files that say who lingers.
		st, ok := info.Sys().(*syscall.Stat_t)
		if ok && info.Mode().IsRegular() && (st.Uid == uid || n == "var/lib/systemd/linger/") {
			found = append(found, "/"+n+person)
		}
	}
	return found, nil
}

// sharedDirs are folders that everybody writes to.
var sharedDirs = []string{"/tmp", "/var/tmp", "/dev/shm", "/var/spool/cron/atjobs", "/var/spool/at"}

// filesOf lists what the uid owns directly in shared folders.
func (h *Host) filesOf(uid uint32, dirs ...string) ([]string, error) {
	var found []string
	for _, d := range dirs {
		entries, err := os.ReadDir(h.path(d))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return found, err
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				continue // gone meanwhile
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == uid {
				found = append(found, filepath.Join("/", d, e.Name()))
			}
		}
	}
	return found, nil
}

// Clear removes what the account left in places of its own: jobs that would
// run again, and files in folders that everybody shares. A folder by its name
// in the first is somebody else's: of jobs and mail, files alone are taken,
// and of those but the ones that are the account's.
func (h *Host) Clear(person string, uid uint32) error {
	if uid < grant.UIDMin || uid > grant.UIDMax || grant.CheckPerson(person) != nil {
		return fmt.Errorf("%q with uid %d is not one of ours", person, uid)
	}
	own, err := h.jobsOf(person, uid)
	errs := []error{err}
	shared, err := h.filesOf(uid, sharedDirs...)
	errs = append(errs, err)
	for _, name := range append(own, shared...) {
		errs = append(errs, tree.Remove(h.path(filepath.Dir(name)), filepath.Base(name)))
	}
	return errors.Join(errs...)
}
