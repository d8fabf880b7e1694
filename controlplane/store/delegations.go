package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

const delegationColumns = `d.id, d.away, d.stand_in, d.from_at, d.until_at, d.note, d.factor, d.made_at, d.ended_at, d.ended_by FROM delegations d `

func scanDelegation(r scanner) (roster.Delegation, error) {
	var d roster.Delegation
	err := r.Scan(&d.ID, &d.Away, &d.StandIn, instant{&d.From}, instant{&d.Until}, &d.Note, &d.Factor, instant{&d.MadeAt}, instant{&d.EndedAt}, &d.EndedBy)
	return d, err
}

// Delegations returns those that are not over, by their beginning.
func (s *Store) Delegations(ctx context.Context, at time.Time) ([]roster.Delegation, error) {
	return list(ctx, s.read, scanDelegation, `SELECT `+delegationColumns+`WHERE d.until_at > ? AND d.ended_at = 0 ORDER BY d.from_at, d.id`, ns(at))
}

// EndedDelegations returns those by which the person stood in until that very
// instant, and not until their time was over.
func (s *Store) EndedDelegations(ctx context.Context, standIn string, at time.Time) ([]roster.Delegation, error) {
	return list(ctx, s.read, scanDelegation, `SELECT `+delegationColumns+`WHERE d.stand_in = ? AND d.ended_at = ? ORDER BY d.id`, standIn, ns(at))
}

// AddDelegation keeps a delegation. Who has too many already is told
// [roster.ErrTooMany].
func (s *Store) AddDelegation(ctx context.Context, d roster.Delegation, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		for _, name := range []string{d.Away, d.StandIn} {
			if err := enabled(ctx, t, name); err != nil {
				return err
			}
		}
		var open int
		err := t.QueryRowContext(ctx, `SELECT count(*) FROM delegations WHERE away = ? AND until_at > ? AND ended_at = 0`, d.Away, ns(at)).Scan(&open)
		if err == nil && open >= roster.MaxLentOpen {
			err = roster.ErrTooMany
		}
		if err != nil {
			return err
		}
		err = t.run(ctx, `INSERT INTO delegations (id, away, stand_in, from_at, until_at, note, factor, made_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			d.ID, d.Away, d.StandIn, ns(d.From), ns(d.Until), d.Note, d.Factor, ns(d.MadeAt))
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%s may approve in place of %s, from %s to %s; proved with %s", d.StandIn, d.Away, d.From.Format(time.RFC3339), d.Until.Format(time.RFC3339), d.Factor)
		if d.Note != "" {
			text += ": " + d.Note
		}
		return t.own(ctx, ledger.Entry{Kind: ledger.Admin, At: at, Person: d.Away, Step: roster.LentStep, Object: d.StandIn, Text: text}, "")
	})
}

// EndDelegation ends one before its time; [roster.ErrUnknown] if it is over.
func (s *Store) EndDelegation(ctx context.Context, id string, a roster.Act) error {
	return s.write(ctx, func(t *tx) error {
		all, err := list(ctx, t, scanDelegation, `SELECT `+delegationColumns+`WHERE d.id = ? AND d.until_at > ? AND d.ended_at = 0`, id, ns(a.At))
		if err == nil && len(all) == 0 {
			err = fmt.Errorf("delegation: %w", roster.ErrUnknown)
		}
		if err != nil {
			return err
		}
		return t.takeBack(ctx, all[0], a, "")
	})
}

// takeBack ends a delegation that is not over.
func (t *tx) takeBack(ctx context.Context, d roster.Delegation, a roster.Act, why string) error {
	if err := t.exec(ctx, `UPDATE delegations SET ended_at = ?, ended_by = ? WHERE id = ?`, ns(a.At), a.By, d.ID); err != nil {
		return err
	}
	return t.own(ctx, ledger.Entry{Kind: ledger.Admin, At: a.At, Person: a.By, Step: roster.TakenStep, Object: d.StandIn, Text: d.Taken(why)}, "")
}

// endDelegations ends those in which the person has a part, or all.
func (t *tx) endDelegations(ctx context.Context, name string, a roster.Act, why string) error {
	all, err := list(ctx, t, scanDelegation, `SELECT `+delegationColumns+`WHERE (d.away = ? OR d.stand_in = ? OR ? = '') AND d.until_at > ? AND d.ended_at = 0 ORDER BY d.id`,
		name, name, name, ns(a.At))
	for _, d := range all {
		if err == nil {
			err = t.takeBack(ctx, d, a, why)
		}
	}
	return err
}

// standIn refuses an approval in another's place that was not lent to its
// giver, or was taken back: it looks where the approval is kept, and nothing
// comes in between.
func standIn(ctx context.Context, t *tx, a roster.Approval, at time.Time) error {
	if a.InPlaceOf == "" {
		return nil
	}
	var lent int
	err := t.QueryRowContext(ctx, `SELECT count(*) FROM delegations WHERE away = ? AND stand_in = ? AND from_at <= ? AND until_at > ? AND ended_at = 0`,
		a.InPlaceOf, a.Person, ns(at), ns(at)).Scan(&lent)
	if err == nil && lent == 0 {
		err = fmt.Errorf("%s in place of %s: %w", a.Person, a.InPlaceOf, roster.ErrNotAway)
	}
	if err != nil {
		return err
	}
	return enabled(ctx, t, a.InPlaceOf)
}

// standIns looks at all the approvals that a grant stands on.
func standIns(ctx context.Context, t *tx, r roster.Request, g grant.Grant, at time.Time) error {
	for _, a := range r.Approvals {
		if !slices.ContainsFunc(g.Approvals, func(e grant.Evidence) bool { return e.Person == a.Person }) {
			continue
		}
		if err := standIn(ctx, t, a, at); err != nil {
			return err
		}
	}
	return nil
}
