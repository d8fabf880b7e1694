package sim

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"curfew.internal/clock"
)

// Agent and control plane speak from goroutines of their own. They reach the
// world by turns and timers alone, and the world gives those out one at a time,
// each after all goroutines have come to rest (synctest.Wait): what comes next
// is for the seed to say, and never for Go's scheduler.

// A turn is what a goroutine is about to do outside of itself.
type turn struct {
	who   string      // no two wait at a time
	agent bool        // it changes the host: the agent may die of it
	first bool        // it comes before all that is left to chance
	ready func() bool // optional
	do    func()
	done  chan struct{}
}

// A timer is what a clock was asked to wake.
type timer struct {
	at, length time.Duration
	who        string
	ring       chan time.Time
}

// turns are what waits for the world.
type turns struct {
	mu     sync.Mutex // guards what follows
	waits  []*turn
	timers []*timer
}

// take waits until the world has done it, or ctx ends.
func (q *turns) take(ctx context.Context, t *turn) error {
	t.done = make(chan struct{})
	q.mu.Lock()
	q.waits = append(q.waits, t)
	q.mu.Unlock()
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		q.mu.Lock()
		defer q.mu.Unlock()
		q.waits = slices.DeleteFunc(q.waits, func(o *turn) bool { return o == t })
		return ctx.Err()
	}
}

// next takes a turn off the list that can be done now. A goroutine that speaks
// comes first, until it waits for something to say: what pokes it meanwhile
// would otherwise be counted as Go's select likes it.
func (w *world) nextTurn() *turn {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.waits, func(a, b *turn) int { return strings.Compare(a.who, b.who) })
	var may []*turn
	for _, t := range w.waits {
		if t.ready == nil || t.ready() {
			may = append(may, t)
		}
	}
	if len(may) == 0 {
		return nil
	}
	i := slices.IndexFunc(may, func(t *turn) bool { return t.first })
	if i < 0 {
		i = w.chance.IntN(len(may))
	}
	w.waits = slices.DeleteFunc(w.waits, func(o *turn) bool { return o == may[i] })
	return may[i]
}

// nextTimer takes the timer off the list that is due longest.
func (w *world) nextTimer() *timer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.timers) == 0 {
		return nil
	}
	t := slices.MinFunc(w.timers, func(a, b *timer) int {
		return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.who, b.who), cmp.Compare(a.length, b.length))
	})
	if t.at > w.now {
		return nil
	}
	w.timers = slices.DeleteFunc(w.timers, func(o *timer) bool { return o == t })
	return t
}

// play lets the programs do all that they can do now.
func (w *world) play() {
	for w.step() {
		synctest.Wait()
	}
}

// step does one thing, if there is any.
func (w *world) step() bool {
	if w.poked() || w.dial() {
		return true
	}
	if t := w.nextTurn(); t != nil {
		if !t.agent {
			t.do()
			close(t.done)
			return true
		}
		w.alive(t.who, func() { t.do(); close(t.done) })
		return true
	}
	if t := w.nextTimer(); t != nil {
		t.ring <- w.true()
		return true
	}
	return false
}

// ticking is a clock that wakes: the host's, or the control plane's, which is
// right.
type ticking struct {
	clock.Clock
	w   *world
	who string
}

func (c ticking) After(d time.Duration) <-chan time.Time {
	t := &timer{at: c.w.now + d, length: d, who: c.who, ring: make(chan time.Time, 1)}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.timers = append(c.w.timers, t)
	return t.ring
}

// rightClock is the control plane's.
type rightClock struct{ *world }

func (c rightClock) Now() clock.Reading {
	return clock.Reading{Wall: c.true(), Boot: c.now + time.Hour}
}

func (rightClock) After(time.Duration) <-chan time.Time { return nil }
