package store

import (
	"context"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// signed is a receipt of the host r.host for the end of grant g.
const signed = `e.grant_id = g.id AND e.host = r.host AND e.kind = 'removed' AND e.receipt_ok = 1`

// confirmed says that the host r.host signed that nothing is left of grant g,
// and afterwards neither that something is, nor that it installed it again, as
// when a lease was renewed. What came of a receipt stands in the outcome.
const confirmed = `EXISTS (SELECT 1 FROM entries e WHERE ` + signed + ` AND e.outcome = 'ok'
	AND NOT EXISTS (SELECT 1 FROM entries i WHERE i.grant_id = g.id AND i.host = r.host AND i.id > e.id
		AND (i.kind = 'installed' OR i.kind = 'removed' AND i.receipt_ok = 1 AND i.outcome <> 'ok')))`

// Unconfirmed returns the ends of grants, from the one instant and before the
// other, for which the host has neither signed that nothing is left nor said
// that it never held the grant.
func (s *Store) Unconfirmed(ctx context.Context, from, before time.Time) ([]roster.Unconfirmed, error) {
	return list(ctx, s.read, func(r scanner) (roster.Unconfirmed, error) {
		var u roster.Unconfirmed
		err := r.Scan(&u.Request, &u.Grant, &u.Person, &u.Host, instant{&u.EndedAt}, &u.Told, &u.Left)
		return u, err
	}, `SELECT g.request, g.id, g.person, r.host, g.ended_at,
			EXISTS (SELECT 1 FROM decisions d WHERE d.request = g.request AND d.what = ? AND d.host = r.host),
			EXISTS (SELECT 1 FROM entries e WHERE `+signed+`)
		FROM grants g JOIN request_hosts r ON r.request = g.request
		WHERE g.ended_at >= ? AND g.ended_at < ? AND g.ended_at > 0
			AND NOT `+confirmed+`
			AND (EXISTS (SELECT 1 FROM entries e WHERE e.grant_id = g.id AND e.host = r.host AND e.kind = ? OR `+signed+`)
				OR NOT EXISTS (SELECT 1 FROM host_sets s WHERE s.host = r.host AND s.at >= g.ended_at AND s.applied_at > 0))
		ORDER BY g.ended_at, g.id, r.host`,
		roster.UnconfirmedStep, ns(from), ns(before), ledger.Installed.String())
}
