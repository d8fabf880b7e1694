package store

import (
	"context"
	"fmt"
	"time"

	"curfew.internal/controlplane/roster"
)

// Risk says what would be out of the ordinary for the person if she asked for the
// role now, from this address.
func (s *Store) Risk(ctx context.Context, person, role, source string, at time.Time) (roster.Risk, error) {
	var network, had, totp bool
	var refused int
	var passkeyAt, totpAt int64
	from := roster.NetworkOf(source)
	err := s.read.QueryRowContext(ctx, `SELECT
		EXISTS (SELECT 1 FROM requests r JOIN grants g ON g.request = r.id WHERE r.person = ? AND r.network = ? AND g.issued_at > ?),
		EXISTS (SELECT 1 FROM grants WHERE person = ? AND role = ?),
		(SELECT count(*) FROM refused_factors WHERE person = ? AND at > ?),
		(SELECT coalesce(max(added_at), 0) FROM passkeys WHERE person = ?),
		EXISTS (SELECT 1 FROM totp WHERE person = ?),
		coalesce((SELECT e.added_at FROM totp t JOIN totp_enrolled e ON e.person = t.person AND e.secret = t.secret WHERE t.person = ?), 0)`,
		person, from, ns(at.Add(-roster.KnownNetwork)), person, role, person, ns(at.Add(-roster.LatelyRefused)), person, person, person).
		Scan(&network, &had, &refused, &passkeyAt, &totp, &totpAt)
	if err != nil {
		return roster.Risk{}, fmt.Errorf("look for what is out of the ordinary: %w", err)
	}
	isNew, first := !network, !had
	r := roster.Risk{FirstTime: &first, FactorRefused: &refused}
	if from != "" {
		r.NewNetwork = &isNew
	}
	if newest := max(passkeyAt, totpAt); newest > 0 && (!totp || totpAt > 0) {
		age := max(0, at.Sub(time.Unix(0, newest)))
		r.FactorAge = &age
	}
	return r, nil
}

// refuse notes that a factor of the person's was wrong, and forgets what nobody
// asks about any more.
func (t *tx) refuse(ctx context.Context, person string, at time.Time) error {
	if at.IsZero() {
		return nil
	}
	if err := t.run(ctx, `DELETE FROM refused_factors WHERE person = ? AND at <= ?`, person, ns(at.Add(-roster.LatelyRefused))); err != nil {
		return err
	}
	return t.run(ctx, `INSERT INTO refused_factors (person, at) VALUES (?, ?)`, person, ns(at))
}
