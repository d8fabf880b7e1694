package watch

import (
	"testing"
	"time"

	"curfew.internal/test/need"
)

// The kernel rings for the first event behind those that the ring has back,
// and again once there is a lot.
func TestTheKernelRings(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	b, err := hang(w.ring.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}()
	made := func() uint64 {
		c, err := w.Counts()
		if err != nil {
			t.Fatal(err)
		}
		return c.Made
	}
	rings := func(what string) {
		select {
		case <-b.rung:
		case <-time.After(time.Minute):
			t.Fatalf("the kernel did not ring for %s", what)
		}
	}
	const session = 0x6e11
	s := shell(t, `echo; for round in 1 2; do read go; /bin/true; echo; done; read go; x=$(printf %3000s x); for i in {1..150}; do /bin/true "$x"; done; echo; read go`)
	s.grow(t, w, session)
	s.hear(t)
	for range 2 {
		w.ring.release(w.ring.made())
		select {
		case <-b.rung: // for what came before
		default:
		}
		before := made()
		s.say(t)
		s.hear(t)
		rings("what came after the ring had its room back")
		until(t, "start and end", func() bool { return made() >= before+2 })
	}
	select {
	case <-b.rung:
	default:
	}
	s.say(t)
	s.hear(t)
	rings("a lot")
	if !w.ring.holds(w.ring.start() + lot) {
		t.Error("and there is none")
	}
}
