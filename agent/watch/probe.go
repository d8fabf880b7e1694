package watch

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
)

// probeSession is the session of the self-test. Its events are not told.
const probeSession = math.MaxUint64

// strangers is the session of those without a label who gain privilege.
const strangers = math.MaxUint64 - 1

// ErrBlind means that the kernel took the programs, and they do not work.
var ErrBlind = errors.New("the kernel loaded the programs, and does not run them as it should")

// prove shows that this kernel labels and tells: a child of ours is labelled
// and has a child of its own, and both exits have to be counted, and be in
// the ring unless it is full. No event can be counted if the label is not
// set, not inherited, or if the programs do not run.
func (w *Watch) prove() error {
	if err := w.drop(probeSession); err != nil {
		return err
	}
	begin := w.ring.start()
	if err := w.play(); err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	var s bpf.WatchSession
	if err := w.maps.Sessions.Lookup(uint64(probeSession), &s); err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	inRing := uint64(0)
	for pos := begin; ; {
		record, next, err := w.ring.read(pos)
		if err != nil {
			return fmt.Errorf("self-test: %w", err)
		}
		if next == pos {
			break
		}
		pos = next
		if h, err := load[bpf.WatchHead](record, 32); err == nil && h.Session == probeSession {
			inRing++
		}
	}
	if s.Made != 2 || inRing+s.Lost < 2 {
		return fmt.Errorf("self-test: %d events of 2 made, %d in the ring, %d lost: %w", s.Made, inRing, s.Lost, ErrBlind)
	}
	if err := w.drop(probeSession); err != nil {
		return err
	}
	var ended, guarded error
	w.gate, ended = w.proveGate(w.gate, 1)
	w.guard, guarded = w.proveGate(w.guard, 0)
	return errors.Join(ended, guarded, w.proveAfter(), w.proveAlarm())
}

// unhurried is how long the self-test waits for the kernel's kill.
const unhurried = 5 * time.Second

// proveAlarm shows that the kernel ends by itself what is over: a child of
// ours that waits for something that does not come. A timer that does not is
// let go of, so that nobody relies on it.
func (w *Watch) proveAlarm() error {
	if w.alarm == nil {
		return nil
	}
	killed, err := w.ends()
	err = errors.Join(err, w.drop(probeSession))
	if err == nil && !killed {
		w.log.Warn("the kernel took the timer that ends sessions, and it does not end one")
		err = errors.Join(w.alarm.detach(w.dir), w.alarm.close())
		w.alarm = nil
	}
	return err
}

// ends reports whether a labelled child that is over is killed.
func (w *Watch) ends() (killed bool, err error) {
	var status unix.WaitStatus
	_, err = stage(puppet, func(pid int) error {
		err := w.label(pid, -1, probeSession, 1)
		for start := w.clock.Now().Boot; err == nil && w.clock.Now().Boot-start < unhurried; {
			gone, werr := unix.Wait4(pid, &status, unix.WNOHANG, nil)
			if gone == pid {
				return errDone
			}
			if !errors.Is(werr, unix.EINTR) {
				err = werr
			}
			<-w.clock.After(time.Millisecond)
		}
		return err
	})
	return status.Signaled() && status.Signal() == unix.SIGKILL, err
}

// play lets a labelled clone of this process clone itself, and waits for it.
func (w *Watch) play() error {
	_, err := stage(puppet, func(pid int) error { return w.label(pid, -1, probeSession, 0) })
	return err
}

// errDone means that the puppet was waited for already.
var errDone = errors.New("the puppet is gone")

// stage has a puppet made, lets act do something to it, and lets it go on and
// end, as the status says.
func stage(start func(read, write int) (pid int, errno unix.Errno), act func(pid int) error) (status unix.WaitStatus, err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("make a pipe: %w", err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, errno := start(pipe[0], pipe[1])
	err = unix.Close(pipe[0])
	if errno != 0 {
		return 0, errors.Join(fmt.Errorf("clone: %w", errno), err, unix.Close(pipe[1]))
	}
	acted := act(pid)
	// With the last writer gone the puppet moves on and ends.
	err = errors.Join(err, unix.Close(pipe[1]))
	if errors.Is(acted, errDone) {
		return 0, err
	}
	for {
		_, werr := unix.Wait4(pid, &status, 0, nil)
		if !errors.Is(werr, unix.EINTR) {
			return status, errors.Join(acted, err, werr)
		}
	}
}

// puppet makes a clone of this process that waits until the pipe has no
// writer, makes a clone that exits, waits for it, and exits. Only the thread
// that calls is cloned: the Go runtime does not work in the clone, which
// therefore does nothing but these calls.
//
//go:norace
//go:nosplit
func puppet(read, write int) (pid int, errno unix.Errno) {
	var b [1]byte
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || child != 0 {
		return int(child), errno
	}
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(write), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(read), uintptr(unsafe.Pointer(&b)), 1) //nolint:gosec // on our stack
	grandchild, _, _ := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if grandchild != 0 {
		_, _, _ = unix.RawSyscall6(unix.SYS_WAIT4, grandchild, 0, 0, 0, 0, 0)
	}
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
