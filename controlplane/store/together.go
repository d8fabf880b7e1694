package store

import (
	"context"
	"sync"
	"time"
)

// together are changes that wait to go to the disk in one transaction: those
// that a whole fleet brings at once, of which each alone would wait for its
// own write.
type together struct {
	turn sync.Mutex // held by the one who writes for all

	mu    sync.Mutex // guards what follows
	queue []share
}

// A share is one of these changes.
type share struct {
	change func(*tx) error
	done   chan error
}

// Bounds of one such transaction: others wait for it.
const (
	mostTogether   = 256
	togetherWithin = 30 * time.Second
)

func (g *together) add(one share) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queue = append(g.queue, one)
}

func (g *together) take() []share {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.queue), mostTogether)
	all := g.queue[:n:n]
	g.queue = g.queue[n:]
	return all
}

// writeTogether is [Store.write] for a change that needs no order among others
// of its kind, and that may be run twice. The first to have its turn writes
// for all who wait; it goes on for them if its own caller has gone.
func (s *Store) writeTogether(ctx context.Context, change func(*tx) error) error {
	one := share{change, make(chan error, 1)}
	s.together.add(one)
	s.together.turn.Lock()
	defer s.together.turn.Unlock()
	for {
		select {
		case err := <-one.done:
			return err
		default:
		}
		s.writeShares(ctx, s.together.take())
	}
}

// writeShares writes all, or where one of them does not go each by itself.
func (s *Store) writeShares(ctx context.Context, all []share) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), togetherWithin)
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
