package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
)

// Label ties a process, and what it started already, to a session that ends
// at the deadline (nanoseconds since boot; 0: none).
func (w *Watch) Label(pid int, session, deadlineBootNS uint64) error {
	if err := w.end(session, bpf.WatchEnd{DeadlineBootNs: deadlineBootNS}); err != nil {
		return err
	}
	err := w.objs.Sessions.Update(session, &bpf.WatchSession{}, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("open session: %w", err)
	}
	// The process first: what it starts from now on has the label. Then what
	// it had started before, until a look finds nothing new.
	seen := map[int]bool{}
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		if seen[todo[0]] {
			continue
		}
		seen[todo[0]] = true
		if err := w.mark(todo[0], session); err != nil {
			if todo[0] != pid && errors.Is(err, unix.ESRCH) {
				continue
			}
			return fmt.Errorf("label process %d: %w", todo[0], err)
		}
		todo = append(todo, children(todo[0])...)
	}
	return nil
}

// children lists what the threads of a process started.
func children(pid int) []int {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var all []int
	for _, t := range threads {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/children") //nolint:gosec // below /proc
		if err != nil {
			continue
		}
		for _, f := range bytes.Fields(b) {
			if n, err := strconv.Atoi(string(f)); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

func (w *Watch) mark(pid int, session uint64) error {
	l := bpf.WatchLabel{Session: session}
	if err := readIDs(pid, &l); err != nil {
		return err
	}
	return w.onPidfd(pid, func(fd uint32) error { return w.objs.Labels.Put(fd, &l) })
}

func (w *Watch) unmark(pid int) error {
	return w.onPidfd(pid, func(fd uint32) error { return w.objs.Labels.Delete(fd) })
}

func (w *Watch) onPidfd(pid int, do func(fd uint32) error) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open process: %w", err)
	}
	return errors.Join(do(uint32(fd)), unix.Close(fd)) //nolint:gosec // a descriptor fits
}

// readIDs fills in who the process is now, so that the first change shows.
func readIDs(pid int, l *bpf.WatchLabel) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, os.ErrNotExist) {
		return unix.ESRCH
	}
	if err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		switch {
		case bytes.HasPrefix(line, []byte("Uid:")):
			_, err = fmt.Sscanf(string(line), "Uid: %d %d", &l.Ids.Uid, &l.Ids.Euid)
		case bytes.HasPrefix(line, []byte("Gid:")):
			_, err = fmt.Sscanf(string(line), "Gid: %d %d", &l.Ids.Gid, &l.Ids.Egid)
		}
		if err != nil {
			return fmt.Errorf("read ids: %w", err)
		}
	}
	return nil
}

// LabelOf returns the session of a process.
func (w *Watch) LabelOf(pid int) (session uint64, ok bool, err error) {
	var l bpf.WatchLabel
	err = w.onPidfd(pid, func(fd uint32) error { return w.objs.Labels.Lookup(fd, &l) })
	if errors.Is(err, ebpf.ErrKeyNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read label: %w", err)
	}
	return l.Session, true, nil
}

// Extend moves a session's deadline.
func (w *Watch) Extend(session, deadlineBootNS uint64) error {
	return w.end(session, bpf.WatchEnd{DeadlineBootNs: deadlineBootNS})
}

// end writes down when a session ends.
func (w *Watch) end(session uint64, e bpf.WatchEnd) error {
	if err := w.objs.Ends.Put(session, &e); err != nil {
		return fmt.Errorf("session %x: %w", session, err)
	}
	return nil
}

// Tasks lists the living processes of a session.
func (w *Watch) Tasks(session uint64) ([]int, error) {
	all, err := w.Living()
	return all[session], err
}

// Living lists the living processes of every session.
func (w *Watch) Living() (map[uint64][]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	found := map[uint64][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		session, ok, err := w.LabelOf(pid)
		if err != nil {
			return nil, err
		}
		if ok && alive(pid) {
			found[session] = append(found[session], pid)
		}
	}
	return found, nil
}

// alive reports whether the process can still run: a zombie cannot.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i > 0 && i+2 < len(b) && b[i+2] != 'Z' && b[i+2] != 'X'
}

// Kill ends every process of a session: from now on the kernel kills what
// forks or execs in it, and we kill the rest until none is left or ctx is
// done. It returns how many it ended and those that are left.
func (w *Watch) Kill(ctx context.Context, session uint64) (killed int, left []int, err error) {
	if err := w.end(session, bpf.WatchEnd{Dying: 1}); err != nil {
		return 0, nil, err
	}
	ended := map[int]bool{}
	for {
		left, err = w.Tasks(session)
		left = slices.DeleteFunc(left, func(pid int) bool { return pid == os.Getpid() })
		if err != nil || len(left) == 0 {
			return len(ended), left, err
		}
		for _, pid := range left {
			if w.kill(pid, session) {
				ended[pid] = true
			}
		}
		select {
		case <-ctx.Done():
			return len(ended), left, nil
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// kill looks at the label again through the descriptor that it kills by: a
// pid that was used again in between is left alone.
func (w *Watch) kill(pid int, session uint64) bool {
	sent := false
	_ = w.onPidfd(pid, func(fd uint32) error {
		var l bpf.WatchLabel
		if err := w.objs.Labels.Lookup(fd, &l); err != nil || l.Session != session {
			return nil //nolint:nilerr // not ours, or gone: the next look tells
		}
		sent = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) == nil
		return nil
	})
	return sent
}

// Forget drops what the kernel keeps of a session that has no process left.
func (w *Watch) Forget(session uint64) error {
	var errs []error
	for _, m := range []*ebpf.Map{w.objs.Sessions, w.objs.Ends} {
		if err := m.Delete(session); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("forget session %x: %w", session, err))
		}
	}
	return errors.Join(errs...)
}
