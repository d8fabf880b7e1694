package api

import (
	"context"
	"math"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// A view of a session never looks more whole than it is: beside what was asked
// for goes how much of the record is missing there.

type gaps []roster.Event

// sum is how many there are, and how many events they say are missing. A host
// can say any number: no two of them make none.
func (g gaps) sum() (n, lost uint64) {
	for _, e := range g {
		lost += min(e.Entry.Lost, math.MaxUint64-lost)
	}
	return uint64(len(g)), lost
}

// gaps are those where a search looks, up to a thousand, whatever it looks for
// there.
func (s *Server) gaps(ctx context.Context, q roster.Search) (gaps, error) {
	return s.Store.Events(ctx, roster.Search{
		Kind: ledger.Gap.String(), Grant: q.Grant, Person: q.Person, Role: q.Role, Host: q.Host, Since: q.Since, Until: q.Until, For: q.For, Limit: maxEvents,
	})
}

// tellGaps says how much is missing of a grant's record: its own gaps, and
// those of its hosts while it stood, of which nobody knows whose events they
// cost.
func (s *Server) tellGaps(ctx context.Context, r roster.Request, m *api.Request) error {
	if r.Grant == nil {
		return nil
	}
	all, err := s.gaps(ctx, roster.Search{Grant: r.Grant.ID})
	if err != nil {
		return err
	}
	until := r.EndedAt
	if until.IsZero() {
		until = s.now()
	}
	for _, h := range r.Hosts {
		// One may be told long after what it is about.
		hosts, err := s.gaps(ctx, roster.Search{Host: h, Since: r.IssuedAt})
		if err != nil {
			return err
		}
		for _, e := range hosts {
			if from := e.Entry.Since; e.Entry.Grant == "" && (e.Entry.At.Before(until) || !from.IsZero() && from.Before(until)) {
				all = append(all, e)
			}
		}
	}
	m.Gaps, m.Lost = all.sum()
	return nil
}
