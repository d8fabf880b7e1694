// Package clock reads the time, for everybody else.
//
// It is the only package that asks the machine for it, and it decides nothing
// on what it reads.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// A Reading is one look at both clocks. The wall clock can be set back; the
// time since boot, which counts suspend too (CLOCK_BOOTTIME), cannot.
type Reading struct {
	Wall time.Time     // UTC
	Boot time.Duration // since the machine started
}

// A Clock tells the time and wakes people.
type Clock interface {
	Now() Reading
	// After delivers once d has passed by CLOCK_MONOTONIC.
	After(d time.Duration) <-chan time.Time
}

// System is the machine's own clock.
type System struct{}

// Now reads both clocks.
func (System) Now() Reading {
	var ts unix.Timespec
	// CLOCK_BOOTTIME exists on every kernel since 2.6.39; a failed read leaves
	// zero, and zero never lengthens anything: deadlines are compared with the
	// wall clock as well.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return Reading{Wall: time.Now().UTC().Round(0), Boot: time.Duration(ts.Nano())}
}

// After is time.After.
func (System) After(d time.Duration) <-chan time.Time { return time.After(d) }

// BootOffset is what to add to a time since boot to get the wall clock's
// reading of it, as of this reading.
func (r Reading) BootOffset() time.Time { return r.Wall.Add(-r.Boot) }
