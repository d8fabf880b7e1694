package watch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
)

// again is the first pause between two rounds of a kill, and seldom the last:
// each is twice as long as the one before. Whoever dies needs the processor.
const (
	again  = 2 * time.Millisecond
	seldom = 64 * time.Millisecond
)

// ErrAlive means that a session still has processes.
var ErrAlive = errors.New("processes of the session live")

// Living lists the living processes of every session, zombies left out. The
// kernel walks its own list, thread by thread: nobody hides from it by
// forking, by ending the first thread, or by mounting something over /proc.
func (w *Watch) Living() (map[uint64][]int, error) {
	r, err := w.tasks.Open()
	if err != nil {
		return nil, fmt.Errorf("walk the tasks: %w", err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("walk the tasks: %w", err)
	}
	living := map[uint64][]int{}
	size := int(unsafe.Sizeof(bpf.WatchTask{}))
	for ; len(b) >= size; b = b[size:] {
		session := binary.LittleEndian.Uint64(b)
		pid := int(binary.LittleEndian.Uint32(b[unsafe.Offsetof(bpf.WatchTask{}.Pid):]))
		if pid != 0 && session != probeSession {
			living[session] = append(living[session], pid)
		}
	}
	for session, pids := range living { // one line a thread
		slices.Sort(pids)
		living[session] = slices.Compact(pids)
	}
	return living, nil
}

// Tasks lists the living processes of a session.
func (w *Watch) Tasks(session uint64) ([]int, error) {
	living, err := w.Living()
	return living[session], err
}

// Kill ends every process of the sessions: from now on the kernel kills what
// forks or execs in them, and its timer and we kill the rest until none is
// left or ctx is done. It returns, for each, how many processes have exited
// since it was over, killed by whomever, and those that are left. It does not
// kill the agent, which is left if somebody labelled it. A session that is
// not known is over: the end we wanted.
func (w *Watch) Kill(ctx context.Context, sessions []uint64) (killed map[uint64]int, left map[uint64][]int, err error) {
	for _, s := range sessions {
		err := w.end(s, func(e *bpf.WatchEnd) { e.Dying = 1 })
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, nil, err
		}
	}
	if err := w.alarm.set(); err != nil {
		w.log.WarnContext(ctx, "the kernel's own end not asked for", "err", err)
	}
	// A child that is being made while its parent dies is in the list once
	// the parent is off it: so one empty look is not enough.
	pause := again
	for empty := 0; ; pause = min(2*pause, seldom) {
		if left, err = w.kills(sessions); err != nil {
			return nil, nil, err
		}
		if empty++; slices.ContainsFunc(slices.Collect(maps.Values(left)), othersThanUs) {
			empty = 0
		}
		if empty == 2 {
			return w.late(sessions), left, nil
		}
		select {
		case <-ctx.Done():
			return w.late(sessions), left, nil
		case <-w.clock.After(pause):
		}
	}
}

func othersThanUs(pids []int) bool {
	return slices.ContainsFunc(pids, func(pid int) bool { return pid != os.Getpid() })
}

// kills looks for processes of the sessions once, and kills those it finds.
func (w *Watch) kills(sessions []uint64) (map[uint64][]int, error) {
	living, err := w.Living()
	if err != nil {
		return nil, err
	}
	found := map[uint64][]int{}
	for _, s := range sessions {
		if len(living[s]) == 0 {
			continue
		}
		found[s] = living[s]
		for _, pid := range living[s] {
			if pid != os.Getpid() {
				w.kill(pid, s)
			}
		}
	}
	return found, nil
}

// late is how many processes have exited since each session was over.
func (w *Watch) late(sessions []uint64) map[uint64]int {
	n := map[uint64]int{}
	for _, id := range sessions {
		var s bpf.WatchSession
		// A number for people alone: none, if it cannot be had.
		_ = w.maps.Sessions.Lookup(id, &s)
		n[id] = int(s.Late) //nolint:gosec // fewer than there are pids
	}
	return n
}

// kill looks at the label again, through the descriptor that it kills by: a
// pid that was used again in between is left alone. What fails is gone, or the
// next round tells.
func (w *Watch) kill(pid int, session uint64) {
	_ = onPidfd(pid, 0, func(fd int) error {
		var l bpf.WatchLabel
		if err := w.maps.Labels.Lookup(int32(fd), &l); err != nil { //nolint:gosec // a descriptor
			return fmt.Errorf("read label: %w", err)
		}
		if l.Session != session {
			return ebpf.ErrKeyNotExist
		}
		return finish(pid, fd)
	})
}

// finish kills a process. It waits for its turn before it dies (SCHED_BATCH in
// sched(7)): it would go before us at once otherwise, and its exit would have us
// busy with what it tells before the next one is killed. Where we may not have
// it wait, as one that has another uid than ours, it is killed all the same. We
// do not go before others in real time instead: who spins there with a higher
// priority than ours keeps us from the processor for as long as she likes.
func finish(pid, fd int) error {
	if a, err := unix.SchedGetAttr(pid, 0); err == nil && a.Policy == unix.SCHED_NORMAL {
		a.Policy = unix.SCHED_BATCH
		_ = unix.SchedSetAttr(pid, a, 0)
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// Forget lets go of sessions that have no process left. Their entries go once
// [Watch.Run] has handed their last event on. Of those that have one, nothing
// is forgotten.
func (w *Watch) Forget(sessions []uint64) error {
	living, err := w.Living()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range sessions {
		if pids := living[s]; len(pids) > 0 {
			errs = append(errs, fmt.Errorf("session %d, processes %v: %w", s, pids, ErrAlive))
			continue
		}
		err := w.end(s, func(e *bpf.WatchEnd) { e.Dying, e.Over = 1, 1 })
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // forgotten already
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Sessions lists those that the kernel knows, and that were not forgotten.
func (w *Watch) Sessions() ([]uint64, error) {
	var ids []uint64
	var id uint64
	var e bpf.WatchEnd
	it := w.maps.Ends.Iterate()
	for it.Next(&id, &e) {
		if e.Over == 0 && id < strangers {
			ids = append(ids, id)
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	slices.Sort(ids)
	return ids, nil
}

// drop takes a session out of the maps.
func (w *Watch) drop(session uint64) error {
	errs := []error{w.Guard(session, true)}
	for _, m := range []*ebpf.Map{w.maps.Sessions, w.maps.Ends, w.maps.Reached, w.maps.Given} {
		if err := m.Delete(session); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("forget session %d: %w", session, err))
		}
	}
	return errors.Join(errs...)
}
