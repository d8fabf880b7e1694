package watch

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"curfew.internal/ledger"
	"curfew.internal/test/need"
)

// TestSystemCallsAreLookedAfterOnlyForSomebody has two sessions follow one
// another: what looks after system calls is gone before, between and after
// them, works in each, and stays if the agent goes in the middle of one.
func TestSystemCallsAreLookedAfterOnlyForSomebody(t *testing.T) {
	need.Root(t)
	dir := pins(t)
	w := openSlow(t, dir)
	defer func() { closeIt(t, w) }()
	attached := func() int {
		calls, err := filepath.Glob(filepath.Join(dir, linkDir+"*", onCall))
		helper, err2 := filepath.Glob(filepath.Join(dir, onReturn))
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		return len(calls) + len(helper)
	}
	b := &book{}
	stop := run(t, w, b)
	for _, session := range []uint64{0x5001, 0x5002} {
		until(t, "rest", func() bool { return attached() == 0 })
		s := python(t, "import os\ninput()\nos.setresuid(70001, 70001, 70001)\nprint('free', flush=True)\ninput()")
		s.grow(t, w, session)
		s.hear(t)
		if n := attached(); n != 2 {
			t.Fatalf("%d programs look after system calls", n)
		}
		told := func(e ledger.Entry) bool { return e.Session == session && int(e.Process.PID) == s.Process.Pid }
		until(t, "change of ids", func() bool { return len(b.where(ledger.SetID, told)) == 1 })

		stop()
		closeIt(t, w)
		if attached() != 2 {
			t.Fatal("gone with the agent")
		}
		w = openSlow(t, dir)
		stop = run(t, w, b)
		if _, _, err := killOne(t.Context(), w, session); err != nil {
			t.Fatal(err)
		}
		if err := w.Forget([]uint64{session}); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { stop() }()
	until(t, "rest", func() bool { return attached() == 0 })
}

// TestALabelThatTakesLongHoldsNobodyUp has somebody give a label for ever: what
// reads the ring goes on, and others get theirs.
func TestALabelThatTakesLongHoldsNobodyUp(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	done, err := w.listen()
	if err != nil {
		t.Fatal(err)
	}
	other := make(chan error, 1)
	go func() {
		err := w.rest()
		free, failed := w.listen()
		if failed == nil {
			free()
		}
		other <- errors.Join(err, failed)
	}()
	select {
	case err = <-other:
	case <-time.After(2 * time.Minute):
		err = errors.New("another one waits for it")
	}
	done()
	if err != nil {
		t.Error(err)
	}
}

// openSlow opens a watch whose timer is that of a kernel before Linux 6.18.
func openSlow(t *testing.T, dir string) *Watch {
	t.Helper()
	w := open(t, dir)
	slow, err := newAlarm(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	closeIt(t, closer(w.alarm.close))
	w.alarm = slow
	return w
}
