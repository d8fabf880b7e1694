package store

import (
	"context"
	"fmt"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// ownOutbox names the entries that the control plane makes itself.
const ownOutbox = "control-plane"

// tell puts what somebody did to the fleet into the record, with the change
// itself or not at all.
func (t *tx) tell(ctx context.Context, a roster.Act, format string, args ...any) error {
	return t.own(ctx, ledger.Entry{Kind: ledger.Admin, At: a.At, Person: a.By, Text: fmt.Sprintf(format, args...)}, "")
}

// Tell puts into the record what somebody did outside of the database.
func (s *Store) Tell(ctx context.Context, a roster.Act, format string, args ...any) error {
	return s.write(ctx, func(t *tx) error { return t.tell(ctx, a, format, args...) })
}

// Refuse puts into the record that somebody was said no to.
func (s *Store) Refuse(ctx context.Context, a roster.Act, format string, args ...any) error {
	return s.write(ctx, func(t *tx) error {
		t.quiet = true
		return t.own(ctx, ledger.Entry{Kind: ledger.Refused, At: a.At, Person: a.By, Text: fmt.Sprintf(format, args...)}, "")
	})
}

// sign puts a step in the life of a session of somebody's into the record.
func (t *tx) sign(ctx context.Context, v roster.Session, step string, at time.Time) error {
	on := "device " + v.Name
	if v.Browser {
		on = "browser " + v.Name
	}
	return t.own(ctx, ledger.Entry{Kind: ledger.SignIn, At: at, Person: v.Person, Step: step, Text: on, Object: v.ID}, "")
}

// TurnAway puts into the record that somebody was not let in.
func (s *Store) TurnAway(ctx context.Context, a roster.Act, why string) error {
	return s.write(ctx, func(t *tx) error {
		t.quiet = true
		return t.own(ctx, ledger.Entry{Kind: ledger.SignIn, At: a.At, Person: a.By, Step: roster.TurnedAway, Text: why}, "")
	})
}

// decided puts a step in a request's life into the record.
func (t *tx) decided(ctx context.Context, r roster.Request, d roster.Decision, c roster.Change) error {
	e := ledger.Entry{
		Kind: ledger.Decision, At: d.At, Person: d.Person, Text: d.Text, Request: r.ID, Step: d.What, Digest: r.Digest,
	}
	if d.Host != "" {
		e.Text = d.Host + ": " + d.Text
	}
	if r.Grant != nil {
		e.Grant = r.Grant.ID
	}
	if c.Grant != nil {
		e.Grant = c.Grant.ID
		if d.What == roster.SignedStep {
			e.Signed = t.signer.SignGrant(*c.Grant)
		}
	}
	return t.own(ctx, e, r.Role)
}

// own keeps an entry that the control plane makes itself, with the role that it
// is about.
func (t *tx) own(ctx context.Context, e ledger.Entry, role string) error {
	if t.grown.own == 0 {
		err := t.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM entries WHERE host = '' AND outbox = ?`, ownOutbox).Scan(&t.grown.own)
		if err != nil {
			return err
		}
	}
	t.grown.own++
	return t.keep(ctx, row{outbox: ownOutbox, seq: t.grown.own, kind: e.Kind.String(), entry: e, raw: e.Bytes(), role: role})
}
