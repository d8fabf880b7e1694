package watch

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"curfew.internal/clock"
	"curfew.internal/test/need"
)

// hardToEnd are scripts that nothing but a kill from outside ends: none of
// them forks, execs or changes its ids again.
var hardToEnd = map[string]string{
	"sleeps":             `exec sleep 1000`,
	"spins":              `while [ $SECONDS -lt 60 ]; do :; done`,
	"ignores signals":    `trap "" TERM INT HUP QUIT; echo ready; exec sleep 1000`,
	"is stopped":         `kill -STOP $$`,
	"left its session":   `setsid sleep 1000 & exec sleep 1000`,
	"is its own child":   `(setsid sh -c 'sleep 1000 & sleep 1000' &) ; exec sleep 1000`,
	"is pid 1 somewhere": `exec unshare --pid --fork --kill-child sleep 1000`,
}

func TestTheKernelEndsWhatIsOverWithTheAgentGone(t *testing.T) {
	need.Root(t)
	ways := map[string]func(t *testing.T, w *Watch){
		"as this kernel does": func(*testing.T, *Watch) {},
		// As kernels before 6.18 do: nobody is woken.
		"with a system call": func(t *testing.T, w *Watch) {
			t.Helper()
			closeIt(t, closer(w.alarm.close))
			var err error
			if w.alarm, err = newAlarm(w.dir, false); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, prepare := range ways {
		t.Run(name, func(t *testing.T) {
			need.Root(t)
			w := open(t, pins(t))
			if !strings.Contains(w.Mode(), "timer") {
				t.Fatalf("mode %s: this kernel ends nothing by itself", w.Mode())
			}
			prepare(t, w)
			endWithoutAgent(t, w)
		})
	}
}

func endWithoutAgent(t *testing.T, w *Watch) {
	t.Helper()
	var trees []*tree
	const session = 0x3001
	end := clock.System{}.Now().Boot + 3*time.Second
	for _, script := range hardToEnd {
		s := shell(t, script)
		if err := w.Label(s.Process.Pid, -1, session, uint64(end)); err != nil {
			t.Fatal(err)
		}
		trees = append(trees, s)
		s.say(t)
	}
	free := plant(t, "/bin/sleep", "1000")
	closeIt(t, w)
	for _, s := range trees {
		exited := make(chan struct{})
		go func() {
			defer close(exited)
			_ = s.Wait() // killed
		}()
		select {
		case <-exited:
		case <-time.After(2 * time.Minute):
			t.Errorf("%v lives", s.Args)
		}
	}
	if early := end - (clock.System{}).Now().Boot; early > 0 {
		t.Errorf("ended %v early", early)
	}
	next := open(t, w.dir)
	defer closeIt(t, next)
	if left := waitGone(t, next, session); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if !alive(free.Process.Pid) {
		t.Error("a process without a label was ended")
	}
}

// withoutAlarm makes the kernel one that has no such timer.
func withoutAlarm(t *testing.T, w *Watch) *Watch {
	t.Helper()
	if w.alarm != nil {
		closeIt(t, closer(w.alarm.close))
		w.alarm = nil
	}
	return w
}

type closer func() error

func (c closer) Close() error { return c() }

// waitGone waits until nothing of a session lives.
func waitGone(t *testing.T, w *Watch, session uint64) []int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		left, err := w.Tasks(session)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 || ctx.Err() != nil {
			return left
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestTheTimerFollowsTheEarliestEnd(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	now := func(d time.Duration) uint64 { return uint64(clock.System{}.Now().Boot + d) }
	sleeper := func(session, end uint64) *exec.Cmd {
		s := shell(t, "exec sleep 1000")
		if err := w.Label(s.Process.Pid, -1, session, end); err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintln(s.in, "go") // one that is over may be dead already
		return s.Cmd
	}
	long := sleeper(0x3101, now(time.Hour))
	sleeper(0x3102, now(time.Hour))
	sleeper(0x3103, now(300*time.Millisecond))
	none := sleeper(0x3104, 0)
	sleeper(0x3105, now(-time.Second)) // over before it began
	if left := append(waitGone(t, w, 0x3105), waitGone(t, w, 0x3103)...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := w.Extend(0x3102, now(-time.Second)); err != nil { // revoked
		t.Fatal(err)
	}
	if left := waitGone(t, w, 0x3102); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if !alive(long.Process.Pid) || !alive(none.Process.Pid) {
		t.Error("ended before its time")
	}
	if killed, left, err := killOne(t.Context(), w, 0x3101); killed != 1 || len(left) > 0 || err != nil {
		t.Errorf("killed %d, left %v, %v", killed, left, err)
	}
}
