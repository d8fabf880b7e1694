package notify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"curfew.internal/controlplane/roster"
)

const (
	// patience is how often a message is not taken before the next is tried, to
	// see whether it is the message or the receiver.
	patience = 5
	// besides is how many messages of a target may stand aside. With more, it
	// is taken for the receiver, and all wait in order.
	besides = 4
)

// errAway says that nothing answered: no message is to blame.
var errAway = errors.New("send")

// A try is what became of a message that is not taken yet.
type try struct {
	since time.Time // what is older than news is given up
	times int       // that it was refused
	next  time.Time // aside: not before then
	email string    // that refused it; another one is tried at once
}

// refused reports whether the message was refused so often that the next is to
// be tried.
func (l *line) refused(m Message, err error) bool {
	t := l.tried[m.ID]
	return t != nil && t.times >= patience && !errors.Is(err, errAway)
}

// places are where the store keeps the events that stand aside for a target.
func (l *line) place(i int) string { return fmt.Sprintf("notify/%s/aside/%d", l.Name, i) }

// aside are the events that stand aside, by place; 0 is a free one. They are
// asked for each time: another server may have told meanwhile.
func (n *Notifier) aside(ctx context.Context, l *line) ([]uint64, error) {
	all := make([]uint64, besides)
	for i := range all {
		var err error
		if all[i], _, err = n.store.Forwarded(ctx, l.place(i)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// again tries what stands aside, each now and then, and returns what still does.
// That one is refused again keeps nobody waiting, so it is no error.
func (n *Notifier) again(ctx context.Context, l *line) ([]uint64, error) {
	all, err := n.aside(ctx, l)
	if err != nil {
		return nil, err
	}
	for i, id := range all {
		if id == 0 {
			continue
		}
		done, err := n.retry(ctx, l, id)
		if err != nil {
			return nil, err
		}
		if !done {
			continue
		}
		if err := n.store.KeepForwarded(context.WithoutCancel(ctx), l.place(i), 0); err != nil {
			return nil, err
		}
		all[i] = 0
	}
	return all, nil
}

// retry tells an event that stands aside, and reports whether that is over.
func (n *Notifier) retry(ctx context.Context, l *line, id uint64) (done bool, err error) {
	events, err := n.store.Events(ctx, roster.Search{After: id - 1, Limit: 1})
	if err != nil {
		return false, err
	}
	if len(events) == 0 || events[0].ID != id {
		return true, nil // the record has it no more
	}
	m, ok, err := n.message(ctx, events[0])
	if err != nil || !ok || !l.wants(m) {
		return err == nil, err
	}
	now := n.clock.Now().Wall
	if t := l.tried[m.ID]; t != nil && now.Before(t.next) {
		return false, nil
	}
	if n.tell(ctx, l, m) == nil {
		return true, nil
	}
	l.tried[m.ID].next = now.Add(retryMost)
	return false, nil
}

// stepAside keeps that events were refused, and that a later one was taken, in
// this order: what is in both is told once more, and nothing is lost.
func (n *Notifier) stepAside(ctx context.Context, l *line, aside []uint64, held []roster.Event, why error) error {
	for _, v := range held {
		i := slices.Index(aside, 0)
		if err := n.store.KeepForwarded(context.WithoutCancel(ctx), l.place(i), v.ID); err != nil {
			return err
		}
		aside[i] = v.ID
		n.log.ErrorContext(ctx, "alert: a message is refused, and steps aside for those after it; it is tried again", "target", l.Name, "event", v.ID, "kind", v.Kind, "cause", why)
	}
	return nil
}

func free(aside []uint64) int {
	n := 0
	for _, id := range aside {
		if id == 0 {
			n++
		}
	}
	return n
}
