package watch

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"curfew.internal/clock"
	"curfew.internal/test/need"
)

// With the agent dead, and on a kernel whose timer ends nobody, what sleeps is
// ended by the pins alone, and nobody else is.
func TestWhatIsOverIsEndedByThePinsAlone(t *testing.T) {
	need.Root(t)
	dir := pins(t)
	if n, err := EndDue(t.Context(), dir, clock.System{}); n != 0 || err != nil {
		t.Error("without pins:", n, err)
	}
	w := withoutAlarm(t, open(t, dir))
	now := (clock.System{}).Now().Boot
	sleeper, other, free := shell(t, "sleep 1000 & sleep 1000; true"), shell(t, "sleep 1000"), shell(t, "sleep 1000")
	for session, s := range map[uint64]*tree{0x3101: sleeper, 0x3102: other} {
		if err := w.Label(s.Process.Pid, -1, session, uint64(now+time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	sleeper.say(t)
	other.say(t)
	free.say(t)
	until(t, "children", func() bool {
		all, err := w.Tasks(0x3101)
		return err == nil && len(all) == 3
	})
	if n, err := EndDue(t.Context(), dir, clock.System{}); n != 0 || err != nil {
		t.Error("before the end:", n, err)
	}
	if err := w.Extend(0x3101, uint64((clock.System{}).Now().Boot)); err != nil {
		t.Fatal(err)
	}
	closeIt(t, w)
	if n, err := EndDue(t.Context(), dir, clock.System{}); n != 3 || err != nil {
		t.Error("after the end:", n, err)
	}
	next := open(t, dir)
	defer closeIt(t, next)
	if left := waitGone(t, next, 0x3101); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if !alive(other.Process.Pid) || !alive(free.Process.Pid) {
		t.Error("somebody was ended whose time is not over")
	}
}

// A thread of the kernel's dies of no signal, as a process in the middle of a
// write to a disk that hangs: a sweep has more to do than to wait for it.
func TestNobodyWaitsForWhatCannotDie(t *testing.T) {
	need.Root(t)
	out, err := exec.Command("pgrep", "-x", "kswapd0").Output()
	if err != nil {
		t.Fatal(err)
	}
	immortal, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	w := withoutAlarm(t, open(t, pins(t)))
	defer closeIt(t, w)
	if err := w.Label(immortal, -1, 0x3103, 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if n, err := EndDue(ctx, w.dir, clock.System{}); n != 1 || err != nil || ctx.Err() != nil {
		t.Error(n, err, ctx.Err())
	}
}
