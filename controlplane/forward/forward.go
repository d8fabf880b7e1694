// Package forward sends the record on to other people's systems: their log
// servers, SIEMs and collectors.
//
// It sends every event, in the record's order, at least once: how far a target
// has come is kept in the store, and moves only after the target took what was
// sent. One that a target takes not even alone, while it takes those after it,
// stands aside, in the store. It reads the record and changes nothing in it.
package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
)

const (
	atOnce     = 500              // events in one batch
	sendWithin = time.Minute      // for one batch
	lookAgain  = 5 * time.Second  // another program may have written to the store
	retryFirst = time.Second      // after a failure; doubled with each that follows
	retryMost  = 30 * time.Second // and no longer than that
)

// Store keeps the record, and how far each target has come.
type Store interface {
	Events(ctx context.Context, q roster.Search) ([]roster.Event, error)
	LastEvent(ctx context.Context) (uint64, error)
	// Forwarded is the last event that the target took; found is false for a
	// target that was never heard of.
	Forwarded(ctx context.Context, target string) (upTo uint64, found bool, err error)
	KeepForwarded(ctx context.Context, target string, upTo uint64) error
	Changed() <-chan struct{}
}

// A sink hands events to a receiver. It returns nil only once the receiver
// took all of them, as far as its protocol can say so.
type sink interface {
	send(ctx context.Context, events []roster.Event) error
}

// A Forwarder sends the record to all targets.
type Forwarder struct {
	store Store
	clock clock.Clock
	log   *slog.Logger
	lines []*line
}

// line is one target and what sends to it.
type line struct {
	Target
	sink        sink
	upTo, aside atomic.Uint64 // the last event that it took; how many before that it did not
	refused     refusal
	again       time.Duration // since boot: what stands aside is not sent before
}

// New puts a forwarder together. It reads the files that targets name.
func New(fleet string, targets []Target, s Store, c clock.Clock, log *slog.Logger) (*Forwarder, error) {
	f := &Forwarder{store: s, clock: c, log: log}
	for _, t := range targets {
		k, err := t.sink(fleet, c, log)
		if err != nil {
			return nil, fmt.Errorf("forward to %s: %w", t.Name, err)
		}
		f.lines = append(f.lines, &line{Target: t, sink: k})
	}
	return f, nil
}

// Behind says, for each target, how many events up to the last it has not taken.
func (f *Forwarder) Behind(last uint64) map[string]uint64 {
	all := map[string]uint64{}
	for _, l := range f.lines {
		all[l.Name] = last - min(last, l.upTo.Load()) + l.aside.Load()
	}
	return all
}

// Run forwards until ctx is done. What fails is tried again, for as long as it
// takes: what its receiver refuses, and nothing else, may come after others.
func (f *Forwarder) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range f.lines {
		g.Go(func() error { return f.run(ctx, l) })
	}
	return g.Wait()
}

func (f *Forwarder) run(ctx context.Context, l *line) error {
	said, wait := "", retryFirst
	for {
		changed := f.store.Changed() // before the look, so that nothing falls in between
		more, err := f.next(ctx, l)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to stop
		}
		if err != nil {
			if err.Error() != said {
				f.log.ErrorContext(ctx, "alert: the record is not forwarded; it is tried again until it is", "target", l.Name, "after", l.upTo.Load(), "cause", err)
			}
			said = err.Error()
			select {
			case <-ctx.Done():
			case <-f.clock.After(wait):
			}
			wait = min(2*wait, retryMost)
			continue
		}
		if said != "" {
			f.log.InfoContext(ctx, "the record is forwarded again", "target", l.Name, "up_to", l.upTo.Load())
		}
		said, wait = "", retryFirst
		if more {
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-f.clock.After(lookAgain):
		}
	}
}

// next sends one batch, and reports whether there is more.
func (f *Forwarder) next(ctx context.Context, l *line) (more bool, err error) {
	upTo, err := f.from(ctx, l)
	if err != nil {
		return false, err
	}
	l.upTo.Store(upTo)
	if err := f.again(ctx, l); err != nil {
		return false, err
	}
	events, err := f.store.Events(ctx, roster.Search{After: upTo, Limit: atOnce})
	if err != nil || len(events) == 0 {
		return false, err
	}
	all := len(events)
	taken, err := l.send(ctx, events)
	if errors.Is(err, errTooMuch) {
		taken, err = f.past(ctx, l, events, err)
	}
	if err != nil {
		return false, err
	}
	last := taken[len(taken)-1].ID
	if err := f.store.KeepForwarded(ctx, l.Name, last); err != nil {
		return false, fmt.Errorf("keep how far %s has come: %w", l.Name, err)
	}
	l.upTo.Store(last)
	return len(taken) < all || roster.More(events, atOnce), nil
}

// send sends events, or the first of them if all are too much for the target,
// and returns those that it took.
func (l *line) send(ctx context.Context, events []roster.Event) ([]roster.Event, error) {
	for {
		sending, cancel := context.WithTimeout(ctx, sendWithin)
		err := l.sink.send(sending, events)
		cancel()
		if !errors.Is(err, errTooMuch) || len(events) == 1 {
			return events, err
		}
		events = events[:len(events)/2]
	}
}

// from is the last event that the target took.
func (f *Forwarder) from(ctx context.Context, l *line) (uint64, error) {
	upTo, found, err := f.store.Forwarded(ctx, l.Name)
	if err != nil || found {
		return upTo, err
	}
	if l.Begin == BeginNow {
		if upTo, err = f.store.LastEvent(ctx); err != nil {
			return 0, err
		}
	}
	return upTo, f.store.KeepForwarded(ctx, l.Name, upTo)
}
