package gate

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"curfew.internal/clock"
)

// ask waits for a turn elsewhere; what it got is delivered.
func ask(t *Turns, place string, gone <-chan struct{}) <-chan func() {
	got := make(chan func(), 1)
	go func() {
		if done, ok := t.take(place, gone, time.After(time.Minute)); ok {
			got <- done
		}
		close(got)
	}()
	synctest.Wait()
	return got
}

// has returns the turn that is there.
func has(t *testing.T, what string, got <-chan func()) (done func()) {
	t.Helper()
	synctest.Wait()
	select {
	case done = <-got:
		if done != nil {
			return done
		}
		t.Fatalf("%s was sent away", what)
	default:
		t.Fatalf("%s waits", what)
	}
	return nil
}

func waits(t *testing.T, what string, got <-chan func()) {
	t.Helper()
	synctest.Wait()
	select {
	case done := <-got:
		t.Fatalf("%s does not wait: has a turn %v", what, done != nil)
	default:
	}
}

// An address that has turns waits for one that has none, however many stand
// there, and whoever came first.
func TestTurnsGoToTheAddressThatHasFewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := &Turns{Most: 4}
		first, second := has(t, "the first", ask(turns, "crowd", nil)), has(t, "the second", ask(turns, "crowd", nil))
		crowd := ask(turns, "crowd", nil)
		waits(t, "the crowd, which has half", crowd)
		third, fourth := has(t, "another", ask(turns, "others", nil)), has(t, "one more", ask(turns, "others", nil))
		host := ask(turns, "host", nil)
		waits(t, "the host", host)
		first()
		first() // counts once
		waits(t, "the crowd", crowd)
		done := has(t, "the host", host)
		other := ask(turns, "other", nil)
		done()
		waits(t, "the crowd", crowd)
		has(t, "another host", other)()
		last := has(t, "the crowd, once nobody else waits", crowd)
		for _, done := range []func(){second, third, fourth, last} {
			done()
		}
		if turns.had != 0 || len(turns.by) != 0 || len(turns.order) != 0 {
			t.Errorf("left: %d had, %d addresses, %d in order", turns.had, len(turns.by), len(turns.order))
		}
	})
}

// The newest is next, of one address and of many: who waits longest is about to
// leave.
func TestTheNewestIsNext(t *testing.T) {
	for what, place := range map[string]func(int) string{
		"of one address": func(int) string { return "one" }, "of many": func(i int) string { return string(rune('a' + i)) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				turns := &Turns{Most: 1}
				done := has(t, "the first", ask(turns, "first", nil))
				var all []<-chan func()
				for i := range 3 {
					all = append(all, ask(turns, place(i), nil))
				}
				for i := 2; i >= 0; i-- {
					done()
					done = has(t, "the newest", all[i])
				}
				done()
			})
		})
	}
}

// Who leaves takes no turn with her, whether it has come or not.
func TestWhoLeavesTakesNoTurnAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := &Turns{Most: 1}
		done := has(t, "the first", ask(turns, "a", nil))
		gone := make(chan struct{})
		left := ask(turns, "b", gone)
		again := ask(turns, "b", nil)
		close(gone)
		if _, there := <-left; there {
			t.Error("who had left has a turn")
		}
		late := ask(turns, "c", nil)
		time.Sleep(time.Minute)
		for _, one := range []<-chan func(){again, late} {
			if _, there := <-one; there {
				t.Error("who waited too long has a turn")
			}
		}
		w := turns.enter("d")
		done()
		synctest.Wait()
		turns.leave("d", w) // it was hers, and she did not see it any more
		has(t, "the next", ask(turns, "e", nil))()
		if turns.had != 0 || len(turns.by) != 0 || len(turns.order) != 0 {
			t.Errorf("left: %d had, %d addresses, %d in order", turns.had, len(turns.by), len(turns.order))
		}
	})
}

// A gate without turns is closed to those who come, and leaves who is there.
func TestWhatRunsOutlivesTheGate(t *testing.T) {
	r := newRig(t, 9, 0)
	theirs, ours := r.in("127.0.0.1")
	if err := r.gate.Close(); err != nil {
		t.Fatal(err)
	}
	r.stands("who came before", theirs, ours)
}

// A gate with turns that is closed keeps nobody waiting, a turn or a word.
func TestStrangersGoWithTheGate(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &Listener{Listener: l, Strangers: 9, Turns: Turns{Most: 1}, Clock: clock.System{}}
	var ours []*conn
	for range 3 {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		in, err := g.Accept()
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, in.(*conn))
	}
	if _, ok := ours[0].Turn(time.Hour); !ok {
		t.Fatal("no turn")
	}
	over := make(chan bool, 2)
	go func() {
		_, ok := ours[1].Turn(time.Hour)
		over <- ok
	}()
	go func() {
		_, err := ours[2].Read(make([]byte, 1))
		over <- err == nil
	}()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if <-over {
			t.Error("it goes on")
		}
	}
}
