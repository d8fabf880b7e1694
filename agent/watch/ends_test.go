package watch

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/ledger"
	"curfew.internal/test/need"
)

func TestKillLeavesNobodyOfTheSession(t *testing.T) {
	need.Root(t)
	w := withoutAlarm(t, open(t, pins(t)))
	defer closeIt(t, w)
	other := shell(t, `while :; do sleep 0.05; done`)
	other.grow(t, w, 0x2001)
	stranger := shell(t, `while :; do sleep 0.05; done`)
	stranger.say(t)

	const session = 0x2003
	s := shell(t, `trap '' TERM HUP INT
for i in 1 2 3 4 5; do (trap '' TERM; while :; do :; done) & done
setsid nohup sleep 1000 &
(setsid bash -c '(trap "" TERM; sleep 1000) & sleep 1000' &)
bash -c 'trap "" TERM; while :; do (exec -a unkillable sleep 1000) & wait; done' &
# A bomb, bounded: 8 levels of 2 each, again and again.
bomb() { [ $1 -gt 0 ] && { bomb $(($1-1)) & bomb $(($1-1)) & wait; }; }
echo up; for i in 1 2 3; do bomb 8; done; wait`)
	s.grow(t, w, session)
	s.hear(t)
	until(t, "crowd", func() bool {
		pids, err := w.Tasks(session)
		if err != nil {
			t.Fatal(err)
		}
		return len(pids) > 40
	})
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	killed, left, err := killOne(ctx, w, session)
	if err != nil || len(left) > 0 || killed < 10 {
		t.Fatalf("killed %d, left %v, %v", killed, left, err)
	}
	none(t, w, session)
	for _, alive := range []*tree{other, stranger} {
		if err := alive.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("a process of nobody's session was killed: %v", err)
		}
	}
	if pids, err := w.Tasks(0x2001); err != nil || !slices.Contains(pids, other.Process.Pid) {
		t.Errorf("the other session has %v, %v", pids, err)
	}
	if _, _, err := killOne(ctx, w, 0x2001); err != nil {
		t.Error(err)
	}
	if err := w.Forget([]uint64{session}); err != nil {
		t.Error(err)
	}
	if killed, left, err := killOne(ctx, w, 0x2fff); killed != 0 || len(left) > 0 || err != nil {
		t.Errorf("a session that never was: %d, %v, %v", killed, left, err)
	}
}

func TestASessionThatIsOverNeitherForksNorExecs(t *testing.T) {
	need.Root(t)
	for name, script := range map[string]string{
		"fork": `(echo alive); echo alive`,
		"exec": `exec echo alive`,
	} {
		t.Run(name, func(t *testing.T) {
			need.Root(t)
			w := withoutAlarm(t, open(t, pins(t)))
			s := shell(t, script)
			past := uint64(clock.System{}.Now().Boot - time.Second)
			if err := w.Label(s.Process.Pid, -1, 0x2005, past); err != nil {
				t.Fatal(err)
			}
			// The kernel ends it with the agent gone.
			closeIt(t, w)
			s.say(t)
			if line, err := s.out.ReadString('\n'); err == nil {
				t.Errorf("after the end: %q", line)
			}
			var exit *exec.ExitError
			if err := s.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Errorf("shell: %v", err)
			}
		})
	}
}

func TestADeadlineCanMoveAndIsNotEarly(t *testing.T) {
	need.Root(t)
	w := withoutAlarm(t, open(t, pins(t)))
	defer closeIt(t, w)
	s := shell(t, `/bin/echo one; read x; /bin/echo two; read x; /bin/echo three`)
	now := uint64(clock.System{}.Now().Boot)
	if err := w.Label(s.Process.Pid, -1, 0x2007, now+uint64(time.Hour)); err != nil {
		t.Fatal(err)
	}
	s.say(t)
	s.hear(t)
	if err := w.Extend(0x2007, now+uint64(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	s.say(t)
	s.hear(t)
	if err := w.Extend(0x2007, now); err != nil {
		t.Fatal(err)
	}
	s.say(t)
	if line, err := s.out.ReadString('\n'); err == nil {
		t.Errorf("after the end: %q", line)
	}
	if err := w.Extend(0x2fff, 0); err == nil {
		t.Error("a session that never was has a deadline")
	}
}

// A granted root can take the ends away where the kernel takes no programs that
// refuse. Told again when a session is over, the kernel ends it.
func TestAnEndThatWasTakenAwayIsGivenAgain(t *testing.T) {
	need.Root(t)
	w := withoutAlarm(t, open(t, pins(t)))
	defer closeIt(t, w)
	s := shell(t, `/bin/echo one; read x; /bin/echo two; read x; /bin/echo three`)
	now := uint64(clock.System{}.Now().Boot)
	if err := w.Label(s.Process.Pid, -1, 0x2009, now+uint64(time.Hour)); err != nil {
		t.Fatal(err)
	}
	s.say(t)
	s.hear(t)
	if err := errors.Join(w.maps.Ends.Delete(uint64(0x2009)), w.Extend(0x2009, now+uint64(time.Hour))); err != nil {
		t.Fatal(err)
	}
	s.say(t)
	s.hear(t)
	if err := errors.Join(w.maps.Ends.Delete(uint64(0x2009)), w.Extend(0x2009, now)); err != nil {
		t.Fatal(err)
	}
	s.say(t)
	if line, err := s.out.ReadString('\n'); err == nil {
		t.Errorf("after the end: %q", line)
	}
}

func TestTheTreeThatIsThereIsLabelled(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	s := shell(t, `sleep 1000 & (sleep 1000 & sleep 1000) & echo up; read x; sleep 1000`)
	s.say(t)
	s.hear(t)
	until(t, "tree", func() bool { return len(descend(s.Process.Pid)) == 4 })
	if _, ok, err := w.LabelOf(s.Process.Pid); ok || err != nil {
		t.Fatalf("label before it was given: %v", err)
	}
	if err := w.Label(s.Process.Pid, -1, 0x2009, 0); err != nil {
		t.Fatal(err)
	}
	for _, pid := range append(descend(s.Process.Pid), s.Process.Pid) {
		if got, ok, err := w.LabelOf(pid); got != 0x2009 || !ok || err != nil {
			t.Errorf("process %d: %x, %v, %v", pid, got, ok, err)
		}
	}
	// A session inside the session: only its own part of the tree moves.
	inner := descend(s.Process.Pid)[1]
	if err := w.Label(inner, -1, 0x200b, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Label(s.Process.Pid, -1, 0x200d, 0); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := w.LabelOf(inner); got != 0x200b {
		t.Errorf("the inner session became %x", got)
	}
	if got, err := w.Sessions(); err != nil || !slices.Equal(got, []uint64{0x2009, 0x200b, 0x200d}) {
		t.Errorf("sessions %x, %v", got, err)
	}
	if err := w.Forget([]uint64{0x200b}); !errors.Is(err, ErrAlive) {
		t.Errorf("forget a session that lives: %v", err)
	}
	for _, session := range []uint64{0x200b, 0x200d} {
		if _, left, err := killOne(t.Context(), w, session); len(left) > 0 || err != nil {
			t.Errorf("kill: %v, %v", left, err)
		}
	}
	for _, session := range []uint64{0, probeSession} {
		if err := w.Label(os.Getpid(), -1, session, 0); !errors.Is(err, ErrSession) {
			t.Errorf("session %x: %v", session, err)
		}
	}
}

func descend(pid int) []int {
	var all []int
	for _, c := range children(pid) {
		all = append(append(all, c), descend(c)...)
	}
	return all
}

func TestTheNextAgentTakesOver(t *testing.T) {
	need.Root(t)
	dir := pins(t)
	w := open(t, dir)
	if !w.Fresh || w.Broken != "" {
		t.Errorf("fresh %v, broken %q", w.Fresh, w.Broken)
	}
	if _, err := Open(Config{PinDir: dir, Clock: clock.System{}}); !errors.Is(err, ErrBusy) {
		t.Errorf("a second agent: %v", err)
	}
	const session = 0x3001
	s := shell(t, `i=0; while read x; do /bin/true $((i++)); echo done; done`)
	s.grow(t, w, session)
	s.say(t)
	s.hear(t)
	closeIt(t, w)
	b := &book{}
	// With no agent; then while agents follow each other; then while one runs.
	n := 1
	for ; n < 20; n++ {
		s.say(t)
		s.hear(t)
	}
	for range 5 {
		w = open(t, dir)
		if w.Fresh || w.Broken != "" {
			t.Errorf("fresh %v, broken %q", w.Fresh, w.Broken)
		}
		if got, ok, err := w.LabelOf(s.Process.Pid); got != session || !ok || err != nil {
			t.Errorf("label %x, %v, %v", got, ok, err)
		}
		stop := run(t, w, b)
		for range 20 {
			s.say(t)
			s.hear(t)
			n++
		}
		stop()
		closeIt(t, w)
	}
	w = open(t, dir)
	defer closeIt(t, w)
	defer run(t, w, b)()
	if err := s.in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = s.Wait()
	until(t, "end", func() bool { return len(b.where(ledger.Exit, pid(s.Process.Pid))) == 1 })
	for i := range n {
		if got := b.where(ledger.Exec, argv("/bin/true", strconv.Itoa(i))); len(got) != 1 {
			t.Errorf("exec %d of %d was told %d times", i, n, len(got))
		}
	}
	if gaps := b.where(ledger.Gap, nil); len(gaps) > 0 {
		t.Errorf("gaps: %+v", gaps)
	}
	if err := w.Forget([]uint64{session}); err != nil {
		t.Fatal(err)
	}
	until(t, "end of the session", func() bool { return isGone(w, session) })
}

func isGone(w *Watch, session uint64) bool {
	var made [16]byte
	return w.maps.Sessions.Lookup(session, &made) != nil
}

func TestWhatTheSinkRefusesIsGivenAgain(t *testing.T) {
	need.Root(t)
	dir := pins(t)
	w := open(t, dir)
	b := &book{refuse: true}
	stop := run(t, w, b)
	s := shell(t, `/bin/true one; /bin/true two`)
	s.grow(t, w, 0x3003)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	// This agent dies with a full disk; the next has room after a while.
	stop()
	closeIt(t, w)
	w = open(t, dir)
	defer closeIt(t, w)
	defer run(t, w, b)()
	b.setRefuse(false)
	until(t, "end", func() bool { return len(b.where(ledger.Exit, pid(s.Process.Pid))) == 1 })
	for _, word := range []string{"one", "two"} {
		if got := b.where(ledger.Exec, argv("/bin/true", word)); len(got) != 1 {
			t.Errorf("%s was told %d times", word, len(got))
		}
	}
}

// While agents of several versions follow each other, as fast as they can,
// nothing is missed and nothing is told twice.
func TestNothingIsMissedBetweenTwoAgents(t *testing.T) {
	need.Root(t)
	dir := pins(t)
	const session, n = 0x3007, 1500
	w := open(t, dir)
	s := shell(t, `for ((i = 0; i < `+strconv.Itoa(n)+`; i++)); do /bin/true $i; done`)
	s.grow(t, w, session)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Wait() }()
	b := &book{}
	agents := 0
	for over := false; !over; agents++ {
		stop := run(t, w, b)
		select {
		case <-done:
			over = true
		case <-time.After(20 * time.Millisecond):
		}
		stop()
		closeIt(t, w)
		w = open(t, dir)
	}
	defer closeIt(t, w)
	defer run(t, w, b)()
	until(t, "end", func() bool { return len(b.where(ledger.Exit, pid(s.Process.Pid))) == 1 })
	times := map[string]int{}
	for _, e := range b.where(ledger.Exec, nil) {
		times[e.Process.Argv[1]]++
	}
	for i := range n {
		if times[strconv.Itoa(i)] != 1 {
			t.Errorf("exec %d was told %d times", i, times[strconv.Itoa(i)])
		}
	}
	if exits := len(b.where(ledger.Exit, nil)); exits != n+1 || agents < 2 {
		t.Errorf("%d exits of %d, with %d agents", exits, n+1, agents)
	}
	if gaps := b.where(ledger.Gap, nil); len(gaps) > 0 {
		t.Errorf("gaps: %+v", gaps)
	}
}

// With nobody who reads, the ring fills: what was kept and what was lost are
// what was made, and each hole is told.
func TestWhatIsLostIsCounted(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	const session = 0x3005
	s := python(t, `
import os
input()
words = ["/bin/true"] + ["z" * 120000] * 12
for i in range(30): os.waitpid(os.posix_spawn("/bin/true", words, {}), 0)
for i in range(300): os.waitpid(os.posix_spawn("/bin/true", ["/bin/true", str(i)], {}), 0)
`)
	s.grow(t, w, session)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	before, err := w.Counts()
	if err != nil || before.Lost == 0 || before.Cut == 0 {
		t.Fatalf("counts %+v, %v", before, err)
	}
	b := &book{}
	defer run(t, w, b)()
	sum := func() (told, lost uint64) {
		for _, e := range b.all() {
			if e.Kind == ledger.Gap {
				lost += e.Lost
			} else {
				told++
			}
		}
		return told, lost
	}
	// The three events of the self-test are in the count, and not told. Others
	// on this machine add to it meanwhile.
	until(t, "account of all", func() bool {
		c, err := w.Counts()
		told, lost := sum()
		return err == nil && told+lost+3 == c.Made && lost == c.Lost
	})
	if _, lost := sum(); lost < before.Lost {
		t.Errorf("%d lost, the kernel says %d", lost, before.Lost)
	}
	// A long argv whose pieces did not all fit says how much is missing.
	for _, e := range b.where(ledger.Exec, func(e ledger.Entry) bool { return len(e.Process.Argv) > 2 && e.Process.Argv[0] == "/bin/true" }) {
		here := uint64(0)
		for _, a := range e.Process.Argv {
			here += uint64(len(a)) + 1
		}
		if total := here + e.Process.ArgvCut; total < 10+12*120001 || total > 11+12*120001 {
			t.Errorf("%d bytes of argv, %d cut", here, e.Process.ArgvCut)
		}
	}
}

// By the time a caller is labelled its pid can be another's: the descriptor
// says who was meant.
func TestTheDescriptorSaysWhoIsLabelled(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	dead, other := shell(t, ""), shell(t, "read x")
	fd, err := unix.PidfdOpen(dead.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	dead.say(t)
	if err := dead.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := w.Label(other.Process.Pid, fd, 0x2011, 0); err == nil {
		t.Error("a process that has ended was labelled")
	}
	if _, ok, err := w.LabelOf(other.Process.Pid); ok || err != nil {
		t.Errorf("whoever has its pid now: labelled %v, %v", ok, err)
	}
}
