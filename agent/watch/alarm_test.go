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

// hopper is the one whose first process ends by itself.
const hopper = "is never where one looks"

// hardToEnd are scripts that nothing but a kill from outside ends: soon after
// they said a line, all but the hopper neither fork, exec nor change their ids.
var hardToEnd = map[string]string{
	"sleeps":             `echo up; exec sleep 1000`,
	"spins":              `echo up; while [ $SECONDS -lt 600 ]; do :; done`,
	"ignores signals":    `trap "" TERM INT HUP QUIT; echo up; exec sleep 1000`,
	"is stopped":         `echo up; kill -STOP $$`,
	"left its session":   `setsid sleep 1000 & echo up; exec sleep 1000`,
	"is its own child":   `(setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo up; exec sleep 1000`,
	"is pid 1 somewhere": `exec unshare --pid --fork --kill-child sh -c 'echo up; exec sleep 1000'`,
	"lost its first thread": `exec python3 -c '
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
print("up", flush=True)
ctypes.CDLL(None).syscall(60, 0)'`,
	"has many threads": `exec python3 -c '
import threading, time
for i in range(100): threading.Thread(target=time.sleep, args=(1000,)).start()
print("up", flush=True)'`,
	"is traced": `exec python3 -c '
import ctypes, os, signal, time
if not os.fork():
	ctypes.CDLL(None).ptrace(0, 0, 0, 0)
	print("up", flush=True)
	os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(1000)'`,
	hopper: `exec python3 -c '
import os, time
print("up", flush=True)
while not os.fork(): time.sleep(0.001)'`,
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
	trees := map[string]*tree{}
	const session = 0x3001
	for name, script := range hardToEnd {
		s := shell(t, script)
		if err := w.Label(s.Process.Pid, -1, session, uint64(clock.System{}.Now().Boot+time.Hour)); err != nil {
			t.Fatal(err)
		}
		trees[name] = s
		s.say(t)
		s.hear(t)
	}
	end := clock.System{}.Now().Boot + time.Second
	if err := w.Extend(session, uint64(end)); err != nil {
		t.Fatal(err)
	}
	free := plant(t, "/bin/sleep", "1000")
	closeIt(t, w)
	for name, s := range trees {
		exited := make(chan error, 1)
		go func() { exited <- s.Wait() }()
		select {
		case err := <-exited:
			if name != hopper && (err == nil || err.Error() != "signal: killed") {
				t.Errorf("%s: %v, and was not killed", name, err)
			}
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
