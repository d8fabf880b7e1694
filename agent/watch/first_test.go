package watch

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

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
	first(func() { within = policy() })
	if within != unix.SCHED_FIFO || policy() != before {
		t.Errorf("%d, then %d; before it was %d", within, policy(), before)
	}
}
