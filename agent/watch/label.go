package watch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
)

// ErrSession means that a session's number is not one that may be given.
var ErrSession = errors.New("not a number for a session")

// Label ties a process, and what it started already, to a session that ends
// at the deadline (nanoseconds since boot; 0: none). Children that are of
// another session than their parent was stay with theirs. The pidfd names the
// process whatever becomes of its pid; -1 where there is none.
func (w *Watch) Label(pid, pidfd int, session, deadlineBootNS uint64) error {
	if session == noSession || session >= strangers {
		return fmt.Errorf("%d: %w", session, ErrSession)
	}
	return w.label(pid, pidfd, session, deadlineBootNS)
}

func (w *Watch) label(pid, pidfd int, session, deadlineBootNS uint64) error {
	done, err := w.listen()
	if err != nil {
		return err
	}
	defer done()
	if err := w.begin(session, deadlineBootNS); err != nil {
		return err
	}
	was, _, err := w.LabelOf(pid)
	if err != nil {
		return err
	}
	if err := w.mark(pid, pidfd, session); err != nil {
		return fmt.Errorf("label process %d: %w", pid, err)
	}
	// What the process starts from here on has the label. What it had started
	// before gets it now, until a look finds nobody who is left out.
	for {
		missed, err := w.descendants(pid, was, session)
		if err != nil {
			return err
		}
		if len(missed) == 0 {
			// The alarm may have looked for an end in the past before anybody
			// carried the label.
			return w.alarm.set()
		}
		for _, child := range missed {
			if err := w.mark(child, -1, session); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("label process %d: %w", child, err)
			}
		}
	}
}

// begin makes the session's entries. The counts of one that exists stay.
func (w *Watch) begin(session, deadlineBootNS uint64) error {
	err := w.maps.Sessions.Update(session, &bpf.WatchSession{}, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("begin session: %w", err)
	}
	err = w.maps.Ends.Update(session, &bpf.WatchEnd{DeadlineBootNs: deadlineBootNS}, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		return w.Extend(session, deadlineBootNS)
	}
	if err != nil {
		return fmt.Errorf("set the session's end: %w", err)
	}
	return nil
}

// Extend moves a session's deadline. One that is being killed stays so. Where
// somebody took it away, and something of the session lives, it has one again.
func (w *Watch) Extend(session, deadlineBootNS uint64) error {
	err := w.end(session, func(e *bpf.WatchEnd) { e.DeadlineBootNs = deadlineBootNS })
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		if living, failed := w.Tasks(session); failed == nil && len(living) > 0 {
			err = w.begin(session, deadlineBootNS)
		}
	}
	return errors.Join(err, w.alarm.set())
}

// end changes what we say of a session's end.
func (w *Watch) end(session uint64, change func(*bpf.WatchEnd)) error {
	w.ending.Lock()
	defer w.ending.Unlock()
	var e bpf.WatchEnd
	if err := w.maps.Ends.Lookup(session, &e); err != nil {
		return fmt.Errorf("look up the end of session %d: %w", session, err)
	}
	change(&e)
	if err := w.maps.Ends.Put(session, &e); err != nil {
		return fmt.Errorf("set the end of session %d: %w", session, err)
	}
	return nil
}

// LabelOf returns the session of a process. One that is gone has none.
func (w *Watch) LabelOf(pid int) (session uint64, ok bool, err error) {
	var l bpf.WatchLabel
	err = onPidfd(pid, 0, func(fd int) error { return w.maps.Labels.Lookup(int32(fd), &l) }) //nolint:gosec // a descriptor
	if errors.Is(err, ebpf.ErrKeyNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read the label of process %d: %w", pid, err)
	}
	return l.Session, true, nil
}

// mark writes the label of a process, and of each thread where the kernel
// lets us name one (6.9 and later). Where it does not, the programs go by the
// label of the process.
func (w *Watch) mark(pid, pidfd int, session uint64) error {
	l := bpf.WatchLabel{Session: session}
	if err := readIDs(pid, &l.Ids); err != nil {
		return err
	}
	put := func(fd int) error { return w.maps.Labels.Put(int32(fd), &l) } //nolint:gosec // a descriptor
	var err error
	if pidfd >= 0 {
		err = put(pidfd)
	} else {
		err = onPidfd(pid, 0, put)
	}
	if err != nil {
		return err
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return unix.ESRCH
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil || tid == pid {
			continue
		}
		err = onPidfd(tid, unix.PIDFD_THREAD, put)
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}

// onPidfd does something to a process by a descriptor that names it whatever
// becomes of its pid.
func onPidfd(pid, flags int, do func(fd int) error) error {
	fd, err := unix.PidfdOpen(pid, flags)
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	return errors.Join(do(fd), unix.Close(fd))
}

// descendants lists those below a process who still have the label that it
// had, or had none like it.
func (w *Watch) descendants(pid int, was, session uint64) ([]int, error) {
	var missed []int
	seen := map[int]bool{}
	for todo := children(pid); len(todo) > 0; todo = todo[1:] {
		child := todo[0]
		if seen[child] {
			continue
		}
		seen[child] = true
		has, _, err := w.LabelOf(child)
		if err != nil {
			return nil, err
		}
		if has != was && has != session {
			continue
		}
		if has != session && alive(child) {
			missed = append(missed, child)
		}
		todo = append(todo, children(child)...)
	}
	return missed, nil
}

// children lists what the threads of a process started.
func children(pid int) []int {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil // gone
	}
	var all []int
	for _, t := range threads {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/children") //nolint:gosec // a name that /proc gave
		if err != nil {
			continue // gone
		}
		for word := range bytes.FieldsSeq(b) {
			if n, err := strconv.Atoi(string(word)); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

// alive reports whether a process can still run: a zombie cannot.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i > 0 && i+2 < len(b) && b[i+2] != 'Z' && b[i+2] != 'X'
}

// readIDs reads who a process is, so that the first change is told as one.
func readIDs(pid int, ids *bpf.WatchIds) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return unix.ESRCH
	}
	for line := range bytes.Lines(b) {
		var err error
		switch {
		case bytes.HasPrefix(line, []byte("Uid:")):
			_, err = fmt.Sscanf(string(line), "Uid: %d %d", &ids.Uid, &ids.Euid)
		case bytes.HasPrefix(line, []byte("Gid:")):
			_, err = fmt.Sscanf(string(line), "Gid: %d %d", &ids.Gid, &ids.Egid)
		case bytes.HasPrefix(line, []byte("CapPrm:")):
			_, err = fmt.Sscanf(string(line), "CapPrm: %x", &ids.Caps)
		}
		if err != nil {
			return fmt.Errorf("read the ids of process %d: %w", pid, err)
		}
	}
	return nil
}
