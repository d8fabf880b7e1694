package forward

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"curfew.internal/controlplane/roster"
)

const (
	// patience is how often an event that is sent alone is refused before those
	// after it are tried, to see whether it is the event or the receiver.
	patience = 5
	// besides is how many events of a target may stand aside. With more, it is
	// taken for the receiver, and all wait in order.
	besides = 4
	// anew is how long those that stand aside wait before they are sent again.
	anew = 10 * time.Minute
)

// refusal is an event that was sent alone and refused, and how often.
type refusal struct {
	event uint64
	times int
}

// place is where the store keeps an event that stands aside. No target's name
// has a slash.
func (l *line) place(i int) string { return fmt.Sprintf("%s/aside/%d", l.Name, i) }

// standing are the events that stand aside, by place; 0 is a free one. They are
// asked for each time: another server may have forwarded meanwhile.
func (f *Forwarder) standing(ctx context.Context, l *line) ([]uint64, error) {
	all := make([]uint64, besides)
	n := uint64(0)
	for i := range all {
		var err error
		if all[i], _, err = f.store.Forwarded(ctx, l.place(i)); err != nil {
			return nil, err
		}
		if all[i] != 0 {
			n++
		}
	}
	l.aside.Store(n)
	return all, nil
}

// past sends the event after one that the target refuses, once it did so often
// enough. If it takes that, the first stands aside. This is kept before
// how far the target has come: what is in both is sent once more, and nothing
// is lost.
func (f *Forwarder) past(ctx context.Context, l *line, events []roster.Event, why error) ([]roster.Event, error) {
	if l.refused.event != events[0].ID {
		l.refused = refusal{event: events[0].ID}
	}
	if l.refused.times++; l.refused.times < patience {
		return nil, why
	}
	aside, err := f.standing(ctx, l)
	if err != nil {
		return nil, err
	}
	free := slices.DeleteFunc(slices.Clone(aside), func(id uint64) bool { return id != 0 })
	for n := 1; n <= len(free) && n < len(events); n++ {
		taken, err := l.send(ctx, events[n:n+1])
		if errors.Is(err, errTooMuch) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return taken, f.stepAside(ctx, l, aside, events[:n], why)
	}
	return nil, why
}

func (f *Forwarder) stepAside(ctx context.Context, l *line, aside []uint64, events []roster.Event, why error) error {
	for _, v := range events {
		if slices.Contains(aside, v.ID) {
			continue // kept before a crash
		}
		i := slices.Index(aside, 0)
		if err := f.store.KeepForwarded(ctx, l.place(i), v.ID); err != nil {
			return fmt.Errorf("keep that %d stands aside for %s: %w", v.ID, l.Name, err)
		}
		aside[i] = v.ID
		f.log.ErrorContext(ctx, "alert: an entry is refused, and stands aside for those after it; it is sent again now and then until it is taken",
			"target", l.Name, "entry", v.ID, "kind", v.Kind, "cause", why)
	}
	l.again = f.clock.Now().Boot + anew
	return nil
}

// again sends what stands aside, now and then and at the start. That one is
// refused again keeps nobody waiting, so it is no error.
func (f *Forwarder) again(ctx context.Context, l *line) error {
	aside, err := f.standing(ctx, l)
	if err != nil || f.clock.Now().Boot < l.again {
		return err
	}
	l.again = f.clock.Now().Boot + anew
	for i, id := range aside {
		if id == 0 {
			continue
		}
		events, err := f.store.Events(ctx, roster.Search{After: id - 1, Limit: 1})
		if err != nil {
			return err
		}
		if len(events) == 0 {
			continue // the record has none, as a backup that was restored
		}
		_, err = l.send(ctx, events)
		if errors.Is(err, errTooMuch) {
			continue
		}
		if err != nil {
			return nil //nolint:nilerr // it is the receiver, of which the next batch tells
		}
		if err := f.store.KeepForwarded(ctx, l.place(i), 0); err != nil {
			return fmt.Errorf("keep that %s took %d: %w", l.Name, id, err)
		}
		f.log.InfoContext(ctx, "an entry that stood aside is forwarded", "target", l.Name, "entry", id, "deleted", events[0].Deleted)
	}
	_, err = f.standing(ctx, l)
	return err
}
