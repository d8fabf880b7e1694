package sim

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"curfew.internal/agent"
	"curfew.internal/ledger"
)

// askAgain is how long an agent waits that is unsure of its time.
const askAgain = 10 * time.Second

// story tells of a world in which nothing happens but what is told.
func story(t *testing.T, tell func(t *testing.T, w *world)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1, dir, "")
		defer w.close()
		w.begin()
		w.calm = true
		tell(t, w)
	})
}

func (w *world) give(from, length time.Duration) {
	w.server.issue("ana", w.true().Add(from), w.true().Add(from+length), 0, 0)
	w.send()
	w.pass(time.Second)
}

func (w *world) opens() bool {
	return w.agent.Knock(context.Background(), agent.Knock{Service: "sshd", User: "ana", FD: -1}).Allow
}

func (w *world) set(forward time.Duration) {
	w.skew = forward
	w.next = w.now
	w.pass(time.Second)
}

func TestAClockThatIsSetForwardAndBackRevivesNothingAndStrandsNobody(t *testing.T) {
	story(t, setForwardAndBack)
}

func setForwardAndBack(t *testing.T, w *world) {
	t.Helper()
	w.give(0, 10*time.Minute)
	if !w.opens() {
		t.Fatal("the first grant does not open the door")
	}
	w.set(time.Hour)
	if w.opens() || len(w.things) > 0 {
		t.Errorf("an hour later by the wall clock the grant still stands: %v", w.things)
	}
	w.give(0, 10*time.Minute)
	if w.opens() {
		t.Error("a grant that is over by the wall clock opens the door")
	}
	if !slices.ContainsFunc(w.said, func(e ledger.Entry) bool {
		return e.Kind == ledger.SetRefused && strings.Contains(e.Text, "ahead of the control plane's")
	}) {
		t.Errorf("nobody says why: %v", w.said)
	}
	w.set(0)
	w.pass(askAgain)
	if !w.opens() {
		t.Error("with the clock right again, the second grant does not open the door")
	}
	w.server.revoke(w.server.grants[1])
	w.send()
	w.pass(time.Second)
	if w.opens() || len(w.things) > 0 {
		t.Errorf("a grant that had ended stands again: %v", w.things)
	}
}

func TestAScheduledGrantIsNotEarlyByAClockThatIsAhead(t *testing.T) {
	story(t, scheduled)
}

func scheduled(t *testing.T, w *world) {
	t.Helper()
	w.give(10*time.Minute, 10*time.Minute)
	w.set(15 * time.Minute)
	w.startAgain()
	w.pass(9 * time.Minute)
	if w.opens() || len(w.things) > 0 {
		t.Errorf("it stands a minute early: %v", w.things)
	}
	w.set(0)
	w.pass(time.Minute)
	if !w.opens() {
		t.Error("it does not stand at its time")
	}
}

func TestAMachineThatWasOffAndLostTheTimeEndsOnTimeOnceItWasTold(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		t.Helper()
		w.give(0, time.Hour)
		w.pass(9 * time.Minute)
		w.stop()
		clear(w.things)
		clear(w.procs)
		clear(w.kernel)
		clear(w.sessions)
		w.now += 40 * time.Minute
		w.boots, w.bootAt, w.skew = w.boots+1, w.now, -40*time.Minute
		w.cut = true
		w.startAgain()
		w.pass(time.Second)
		pid := w.spawn()
		if a := w.agent.Knock(context.Background(), agent.Knock{Open: true, Service: "sshd", User: "ana", PID: pid, FD: -1}); !a.Allow {
			t.Fatalf("ten minutes before its end the grant opens nothing: %s", a.Message)
		}
		w.cut = false
		w.pass(time.Minute)
		w.cut = true
		w.pass(9*time.Minute - 2*time.Second)
		if !w.opens() || w.procs[pid].session == 0 {
			t.Error("a minute before its end the grant does not stand")
		}
		w.pass(61 * time.Second)
		if _, runs := w.procs[pid]; w.opens() || len(w.things) > 0 || runs {
			t.Errorf("after the end: the door opens: %v, on the host: %v, her process runs: %v", w.opens(), w.things, runs)
		}
	})
}

func TestTheKernelEndsByTheTimeThatWasToldWithNoAgentThere(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		t.Helper()
		w.give(0, time.Hour)
		w.now, w.cut = w.now+9*time.Minute, true
		w.stop()
		w.now += 40 * time.Minute
		w.boots, w.bootAt, w.skew = w.boots+1, w.now, -40*time.Minute
		w.startAgain()
		pid := w.spawn()
		if a := w.agent.Knock(context.Background(), agent.Knock{Open: true, Service: "sshd", User: "ana", PID: pid, FD: -1}); !a.Allow {
			t.Fatalf("before its end the grant opens nothing: %s", a.Message)
		}
		w.cut = false
		w.pass(time.Minute)
		w.stop()
		w.pass(10 * time.Minute)
		if _, runs := w.procs[pid]; runs {
			t.Error("her process outlived the grant")
		}
	})
}

// A sign of life from before time was put right lies in what is to come. When
// that comes, nobody was heard then.
func TestALeaseIsNotRenewedByATimeThatWasPutRight(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		t.Helper()
		w.server.issue("ana", w.true(), w.true().Add(2*time.Hour), time.Minute, 0)
		w.send()
		w.pass(time.Second)
		w.set(5 * time.Minute)
		w.pass(30 * time.Second)
		if !w.opens() {
			t.Fatal("the grant does not open the door")
		}
		w.slip(w.server.set(host, thief, w.true())) // refused: what is heard now is no sign of life
		w.set(0)
		w.pass(askAgain)
		w.cut = true
		for w.now < 10*time.Minute {
			w.pass(10 * time.Second)
			if w.opens() {
				t.Fatalf("at %v it opens the door, %v after its last sign of life", w.now, w.now-w.sign)
			}
		}
	})
}

// A wall clock that shows a second twice or not at all, or goes slower or
// faster until it is gone: what hosts make of a leap second.
func TestALeapSecondLengthensNoGrantAndBeginsNoneEarly(t *testing.T) {
	const end, all = time.Minute, 2 * time.Minute // where one grant ends, and another begins
	step := func(by time.Duration) func(time.Duration) time.Duration {
		return func(now time.Duration) time.Duration {
			if now < end/2 {
				return 0
			}
			return by
		}
	}
	smear := func(by float64) func(time.Duration) time.Duration {
		return func(now time.Duration) time.Duration { return time.Duration(by * float64(min(now, end)/60)) }
	}
	for name, skew := range map[string]func(time.Duration) time.Duration{
		"a second twice": step(-time.Second), "a second left out": step(time.Second),
		"slower": smear(-1), "faster": smear(1),
	} {
		for _, old := range []bool{true, false} { // it ends, or it begins
			story(t, func(t *testing.T, w *world) {
				t.Helper()
				now := w.now
				if old {
					w.give(-now, end)
				} else {
					w.give(end-now, all)
				}
				pid := 0
				for w.now < all {
					w.skew = skew(w.now)
					w.pass(time.Second)
					if pid == 0 && w.opens() {
						pid = w.spawn()
						w.agent.Knock(context.Background(), agent.Knock{Open: true, Service: "sshd", User: "ana", PID: pid, FD: -1})
					}
					_, runs := w.procs[pid]
					if is := w.opens(); old == (w.now >= end) && (is || runs || len(w.things) > 0) {
						t.Fatalf("%s: at %v the door opens: %v, on the host: %v, her process runs: %v", name, w.now, is, w.things, runs)
					}
				}
				if pid == 0 {
					t.Errorf("%s: the grant never opened the door", name)
				}
			})
		}
	}
}
