package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/test/lab"
)

// A crowd is what a person leaves behind: processes that sleep, or that spin.
type crowd struct {
	size  int
	spins bool
}

func (c crowd) String() string {
	what := "sleeping"
	if c.spins {
		what = "spinning"
	}
	return fmt.Sprintf("%d %s", c.size, what)
}

// script starts them, each in a session of its own. Many that spin begin when
// all are there: the last would not come to be before the end.
func (c crowd) script() string {
	program := "sleep 9999"
	if c.spins {
		program = fmt.Sprintf("sh -c 'sleep %d; while :; do :; done' 9999", c.size/50)
	}
	return fmt.Sprintf("for ((i = 0; i < %d; i++)); do setsid %s >/dev/null 2>&1 & done", c.size, program)
}

// is says whether a process is of the crowd. A shell that is about to be the
// program is not yet it.
func (c crowd) is(cmdline []byte) bool {
	program := "sleep"
	if c.spins {
		program = "sh"
	}
	return bytes.HasPrefix(cmdline, []byte(program+"\x00")) && bytes.HasSuffix(cmdline, []byte("\x009999\x00"))
}

// watched is a crowd that is watched to its death, by descriptors that name
// each process whatever becomes of its pid.
type watched struct{ fds []unix.PollFd }

// leave has a person log in and leave a crowd behind.
func (b *bench) leave(ctx context.Context, p *lab.Person, c crowd) (*watched, error) {
	if _, _, err := p.Run(ctx, "", "ssh", "db1", "--", c.script()); err != nil {
		return nil, err
	}
	var w *watched
	err := b.within(ctx, c.String(), 10*time.Second, func() (err error) {
		if w, err = watch(c); err == nil && len(w.fds) != c.size {
			err = errors.Join(fmt.Errorf("%d of %d processes", len(w.fds), c.size), w.close())
		}
		return err
	})
	return w, err
}

// watch finds the crowd: the host's processes are seen here too.
func watch(c crowd) (*watched, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	w := &watched{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil || !c.is(b) {
			continue
		}
		// A child that a shell has just forked, to be another program, looks the
		// same.
		if leader, err := unix.Getsid(pid); err != nil || leader != pid {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		w.fds = append(w.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return w, nil
}

func (w *watched) close() error {
	var errs []error
	for _, fd := range w.fds {
		errs = append(errs, unix.Close(int(fd.Fd)))
	}
	w.fds = nil
	return errors.Join(errs...)
}

// dead tells when the first and the last of them died. It goes before
// whatever spins, on a thread that ends with it: what we start otherwise does
// not.
func (w *watched) dead(ctx context.Context) (first, last time.Time, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 50}, 0)
		for err == nil && len(w.fds) > 0 {
			var died bool
			if died, err = w.poll(); died {
				last = time.Now()
			}
			if first.IsZero() {
				first = last
			}
			err = errors.Join(err, ctx.Err())
		}
	}()
	<-done
	return first, last, errors.Join(err, w.close())
}

// poll waits a moment for one of them to die, and lets go of those that did.
func (w *watched) poll() (died bool, err error) {
	if _, err := unix.Poll(w.fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
		return false, err
	}
	var left []unix.PollFd
	for _, fd := range w.fds {
		if fd.Revents == 0 {
			left = append(left, fd)
			continue
		}
		died = true
		err = errors.Join(err, unix.Close(int(fd.Fd)))
	}
	w.fds = left
	return died, err
}
