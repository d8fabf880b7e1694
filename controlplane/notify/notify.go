// Package notify tells people, by chat, mail and webhooks, what they are waited
// for: requests to decide on, what became of their own, ends that are near, and
// alerts.
//
// It tells what the record has, in its order, and tries again until a receiver
// took it or it is no news any more. It decides nothing, and never sends a
// secret: what it sends is a sentence and a link.
package notify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

const (
	atOnce     = 200              // events looked at in one turn
	sendWithin = 20 * time.Second // for one message
	lookAgain  = 5 * time.Second  // another server may have written to the store, or an end may be near
	retryFirst = time.Second      // after a failure; doubled with each that follows
	retryMost  = time.Minute      // and no longer than that
	news       = time.Hour        // what is older is told to nobody any more
	mostLive   = 10_000           // grants whose ends are watched
)

// Warnings are how long before its end a grant's person is told.
var warnings = []time.Duration{15 * time.Minute, 5 * time.Minute}

// Store keeps the record, and how far each target has come.
type Store interface {
	Events(ctx context.Context, q roster.Search) ([]roster.Event, error)
	LastEvent(ctx context.Context) (uint64, error)
	Requests(ctx context.Context, all bool, limit int) ([]roster.Request, error)
	Request(ctx context.Context, id string) (roster.Request, error)
	// Decisions are the steps in a request's life.
	Decisions(ctx context.Context, id string) ([]roster.Decision, error)
	// EndedDelegations are those by which the person stood in until that very
	// instant, and not until their time was over.
	EndedDelegations(ctx context.Context, standIn string, at time.Time) ([]roster.Delegation, error)
	Forwarded(ctx context.Context, target string) (upTo uint64, found bool, err error)
	KeepForwarded(ctx context.Context, target string, upTo uint64) error
	Mails
	// Alone runs f, unless another server runs what has the same name.
	Alone(ctx context.Context, name string, f func(context.Context) error) (ran bool, err error)
	Changed() <-chan struct{}
}

// A Message is what a receiver gets.
type Message struct {
	ID      string    `json:"id"` // the same each time that it is tried
	At      time.Time `json:"at"`
	About   string    `json:"about"` // requests or alerts
	What    string    `json:"what"`
	Text    string    `json:"text"`
	Link    string    `json:"link,omitempty"`
	Request string    `json:"request,omitempty"`
	Grant   string    `json:"grant,omitempty"`
	Person  string    `json:"person,omitempty"`
	Host    string    `json:"host,omitempty"`

	to  []string // whom it concerns, without the one who did it: for mail
	own bool     // it concerns nobody else
}

// A sink hands a message to a receiver; nil says that it was taken.
type sink interface {
	send(ctx context.Context, m Message) error
}

// A Notifier tells all targets.
type Notifier struct {
	// Awaited says whose word each of the requests waits for now, in circles: those
	// of the step that is open, and those whom its escalation added. It is set before
	// Run.
	Awaited func(context.Context, []roster.Request) (map[string][][]string, error)

	store Store
	clock clock.Clock
	log   *slog.Logger
	pages string
	lines []*line
	roots *x509.CertPool // that mail servers' certificates are checked against; nil: the system's
}

type line struct {
	Target
	sink  sink
	box   *box            // the same, of mail; nil: the target is of another form
	tried map[string]*try // messages that are not taken yet
	told  map[string]bool // warnings of ends, until their cursor has moved
}

// New puts a notifier together; pages is where people's are, empty if nowhere.
func New(pages string, targets []Target, s Store, c clock.Clock, log *slog.Logger) (*Notifier, error) {
	n := &Notifier{store: s, clock: c, log: log, pages: pages}
	for _, t := range targets {
		l := &line{Target: t, tried: map[string]*try{}, told: map[string]bool{}}
		var err error
		if t.Form == FormMail {
			l.box = newBox(n, t)
			l.sink = l.box
			_, err = t.relay()
		} else {
			l.sink, err = t.sink(c)
		}
		if err != nil {
			return nil, fmt.Errorf("notify %s: %w", t.Name, err)
		}
		n.lines = append(n.lines, l)
	}
	return n, nil
}

// Run notifies until ctx is done.
func (n *Notifier) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range n.lines {
		g.Go(func() error { return n.run(ctx, l) })
	}
	return g.Wait()
}

func (n *Notifier) run(ctx context.Context, l *line) error {
	wait, said := retryFirst, false
	for ctx.Err() == nil {
		changed := n.store.Changed() // before the look, so that nothing falls in between
		more := false
		ran, err := n.store.Alone(ctx, "notify/"+l.Name, func(ctx context.Context) (err error) {
			more, err = n.turn(ctx, l)
			return err
		})
		pause := lookAgain
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && !ran:
			changed = nil // another server tells what is new; should it end, we do
		case err != nil:
			if !said {
				n.log.ErrorContext(ctx, "alert: people are not notified; it is tried again", "target", l.Name, "cause", err)
			}
			said, pause, wait, changed = true, wait, min(2*wait, retryMost), nil
		case more:
			continue
		default:
			said, wait = false, retryFirst
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-n.clock.After(pause):
		}
	}
	return nil
}

// turn tells what is new, and to whom it is mailed, and whether there is more.
func (n *Notifier) turn(ctx context.Context, l *line) (more bool, err error) {
	more, err = n.tellNew(ctx, l)
	if l.box == nil || err != nil {
		return more, err
	}
	left, err := n.mail(ctx, l.box)
	return more || left, err
}

// tellNew tells what is new, and whether there is more.
func (n *Notifier) tellNew(ctx context.Context, l *line) (more bool, err error) {
	failed := n.ends(ctx, l)
	aside, err := n.again(ctx, l)
	if err != nil {
		return false, errors.Join(failed, err)
	}
	cursor := "notify/" + l.Name
	upTo, err := n.from(ctx, cursor, n.store.LastEvent)
	if err != nil {
		return false, errors.Join(failed, err)
	}
	t := &telling{n: n, l: l, cursor: cursor, aside: aside, upTo: upTo, quiet: upTo, seen: upTo}
	for more = true; more; {
		if more, err = t.batch(ctx); err != nil {
			return false, errors.Join(failed, err)
		}
		if len(t.held) == 0 {
			break // what is quiet is kept before more is looked at
		}
	}
	if len(t.held) > 0 {
		return false, errors.Join(failed, t.why) // nothing came after it that could tell
	}
	if t.quiet > t.upTo {
		failed = errors.Join(failed, n.store.KeepForwarded(ctx, cursor, t.quiet))
	}
	return failed == nil && more, failed
}

// telling is one look at what is new for a target.
type telling struct {
	n           *Notifier
	l           *line
	cursor      string
	aside       []uint64       // events that stand aside
	upTo, quiet uint64         // told up to there; and from there on, nothing is to be told up to here
	seen        uint64         // looked at up to here
	held        []roster.Event // refused, while it is not known whether anything is taken
	why         error
}

// batch tells the next events, and whether there are more.
func (t *telling) batch(ctx context.Context) (more bool, err error) {
	events, err := t.n.store.Events(ctx, roster.Search{After: t.seen, Limit: atOnce})
	if err != nil || len(events) == 0 {
		return false, err
	}
	for _, v := range events {
		if err := t.event(ctx, v); err != nil {
			return false, err
		}
		t.seen = v.ID
	}
	return roster.More(events, atOnce), nil
}

// event tells one event, if it is news for the target.
func (t *telling) event(ctx context.Context, v roster.Event) error {
	if b := t.l.box; b != nil && (v.Entry.Kind == ledger.Decision || v.Entry.Kind == ledger.Admin) {
		b.moved = true
	}
	m, ok, err := t.n.message(ctx, v)
	if err != nil {
		return err
	}
	if ok && t.l.wants(m) && !slices.Contains(t.aside, v.ID) {
		err = t.n.tell(ctx, t.l, m)
		if err != nil && t.l.refused(m, err) && len(t.held) < free(t.aside) {
			t.held, t.why = append(t.held, v), err
			return nil
		}
		if err == nil {
			err = t.n.stepAside(ctx, t.l, t.aside, t.held, t.why)
		}
		if err != nil {
			return err
		}
		t.held, t.upTo = nil, v.ID
		// What was taken is kept at once, though we are to stop.
		if err = t.n.store.KeepForwarded(context.WithoutCancel(ctx), t.cursor, v.ID); err != nil {
			return err
		}
	}
	t.quiet = v.ID
	return nil
}

// from is how far a cursor has come; a new one begins at where.
func (n *Notifier) from(ctx context.Context, cursor string, where func(context.Context) (uint64, error)) (uint64, error) {
	upTo, found, err := n.store.Forwarded(ctx, cursor)
	if err != nil || found {
		return upTo, err
	}
	if upTo, err = where(ctx); err != nil {
		return 0, err
	}
	return upTo, n.store.KeepForwarded(ctx, cursor, upTo)
}

// tell sends one message, unless it is no news any more: of hosts' clocks
// nothing is believed, so that is counted from the first try.
func (n *Notifier) tell(ctx context.Context, l *line, m Message) error {
	now := n.clock.Now().Wall
	t := l.tried[m.ID]
	if t == nil {
		t = &try{since: now}
		if m.About == AboutRequests {
			t.since = m.At
		}
		l.tried[m.ID] = t
	}
	if now.Sub(t.since) > news {
		delete(l.tried, m.ID)
		n.log.WarnContext(ctx, "too late to notify", "target", l.Name, "what", m.What, "of", m.At)
		return nil
	}
	sending, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	switch err := l.sink.send(sending, m); {
	case err == nil:
		delete(l.tried, m.ID)
		return nil
	case !errors.Is(err, errAway):
		t.times++
		return err
	default:
		return err
	}
}

// ends warns of grants whose end is near. Its cursor is the time up to which
// that was done, in seconds.
func (n *Notifier) ends(ctx context.Context, l *line) error {
	now := n.clock.Now().Wall
	until := uint64(now.Unix()) //nolint:gosec // after 1970
	cursor := "notify/" + l.Name + "/ends"
	from, err := n.from(ctx, cursor, func(context.Context) (uint64, error) { return until, nil })
	if err != nil || until <= from {
		return err
	}
	open, err := n.store.Requests(ctx, false, mostLive)
	if err != nil {
		return err
	}
	var refused error
	for _, r := range open {
		for _, m := range n.near(r, from, until) {
			if !l.wants(m) || l.told[m.ID] {
				continue
			}
			switch err := n.tell(ctx, l, m); {
			case err == nil:
				l.told[m.ID] = true
			case l.refused(m, err):
				refused = err // the others' ends are as near
			default:
				return err
			}
		}
	}
	if refused != nil {
		return refused
	}
	if err := n.store.KeepForwarded(context.WithoutCancel(ctx), cursor, until); err != nil {
		return err
	}
	clear(l.told)
	return nil
}
