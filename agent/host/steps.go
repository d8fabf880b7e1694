package host

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// Steps calls stepped each time somebody sets the wall clock, until ctx is done:
// a timer of that clock is told (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
func Steps(ctx context.Context, stepped func()) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch the wall clock: %w", err)
	}
	timer := os.NewFile(uintptr(fd), "wall clock")
	stop := context.AfterFunc(ctx, func() { _ = timer.Close() }) // ends the wait below
	defer func() {
		if stop() {
			_ = timer.Close() // nothing was written
		}
	}()
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxUint32 << 1}} // in the 23rd century
	for {
		err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil)
		if err == nil {
			_, err = timer.Read(make([]byte, 8))
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, unix.ECANCELED):
			stepped()
		case err != nil:
			return fmt.Errorf("watch the wall clock: %w", err)
		}
	}
}
