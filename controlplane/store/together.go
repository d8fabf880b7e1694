package store

import (
	"context"
	"sync"
	"time"
)

// gathered is what a whole fleet brings at once, and one does for all of them:
// each alone would cost its own turn at the database. It is done elsewhere than
// on the stacks of those who wait, which stay small: there are as many of them
// as hosts.
type gathered[T any] struct {
	working sync.WaitGroup

	mu    sync.Mutex // guards what follows
	queue []T
	busy  bool
}

// mostTogether bounds what is done at once: others wait for it.
const mostTogether = 256

// togetherWithin is how long that may take.
const togetherWithin = 30 * time.Second

// add has one done, with those that come meanwhile.
func (g *gathered[T]) add(one T, do func([]T)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queue = append(g.queue, one)
	if g.busy {
		return
	}
	g.busy = true
	g.working.Go(func() {
		for some := g.take(); len(some) > 0; some = g.take() {
			do(some)
		}
	})
}

func (g *gathered[T]) take() []T {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.queue), mostTogether)
	all := g.queue[:n:n]
	g.queue = g.queue[n:]
	g.busy = n > 0
	return all
}

// A share is a change that goes to the disk with others.
type share struct {
	change func(*tx) error
	done   chan error
}

// writeTogether is [Store.write] for a change that needs no order among others
// of its kind, and that may be run twice. It is gone on with if its caller has
// gone.
func (s *Store) writeTogether(ctx context.Context, change func(*tx) error) error {
	one := share{change, make(chan error, 1)}
	s.shares.add(one, func(all []share) { s.writeShares(context.WithoutCancel(ctx), all) })
	return <-one.done
}

// writeShares writes all, or where one of them does not go each by itself.
func (s *Store) writeShares(ctx context.Context, all []share) {
	ctx, cancel := context.WithTimeout(ctx, togetherWithin)
	defer cancel()
	err := s.write(ctx, func(t *tx) error {
		for _, one := range all {
			if err := one.change(t); err != nil {
				return err
			}
		}
		return nil
	})
	for _, one := range all {
		if err != nil && len(all) > 1 {
			one.done <- s.write(ctx, one.change)
		} else {
			one.done <- err
		}
	}
}

// A question is one that many ask at once, each of its own host.
type question[K comparable, V any] struct {
	of     K
	answer chan<- reply[V]
}

type reply[V any] struct {
	v   V
	ok  bool
	err error
}

// readTogether answers a question from one reading of the database for all who
// ask meanwhile. The reading begins after each of them has asked. What is not in
// it is not ok.
func readTogether[K comparable, V any](ctx context.Context, g *gathered[question[K, V]], of K, read func(context.Context, []K) (map[K]V, error)) (V, bool, error) {
	answer := make(chan reply[V], 1)
	g.add(question[K, V]{of, answer}, func(all []question[K, V]) {
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), togetherWithin)
		defer cancel()
		keys := make([]K, 0, 2*len(all))
		for _, q := range all {
			keys = append(keys, q.of)
		}
		// Few lengths are few statements for the database to prepare.
		for len(keys)&(len(keys)-1) != 0 {
			keys = append(keys, keys[0])
		}
		found, err := read(within, keys)
		for _, q := range all {
			v, ok := found[q.of]
			q.answer <- reply[V]{v, ok, err}
		}
	})
	select {
	case r := <-answer:
		return r.v, r.ok, r.err
	case <-ctx.Done():
		var none V
		return none, false, ctx.Err()
	}
}
