package watch

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/clock"
)

// A hasty clock has all time pass at once.
type hasty struct{ clock.System }

func (hasty) After(time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time{}
	return c
}

// What is done first is done in real time, and nothing after it is.
func TestWhatIsDoneFirst(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	policy := func() uint32 {
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return a.Policy
	}
	before := policy()
	var within uint32
	first(clock.System{}, func() { within = policy() })
	if within != unix.SCHED_FIFO || policy() != before {
		t.Errorf("%d, then %d; before it was %d", within, policy(), before)
	}
}

// Whom somebody of a higher rank keeps from the processor goes on in turn, once
// the longest that it may last has passed.
func TestWhatTakesTooLongGoesOnInTurn(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	first(hasty{}, func() {
		for limit := time.After(time.Minute); ; {
			a, err := unix.SchedGetAttr(0, 0)
			if err != nil {
				t.Fatal(err)
			}
			if a.Policy == unix.SCHED_NORMAL {
				return
			}
			select {
			case <-limit:
				t.Fatalf("scheduled by policy %d for a minute", a.Policy)
			case <-time.After(time.Millisecond):
			}
		}
	})
}
