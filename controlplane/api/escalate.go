package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"curfew.internal/controlplane/roster"
)

// escalated are the requests of which it was told that others may approve them
// too, with how many approvals each had then: until it has another, there is
// nothing more to tell of it. What an earlier run has told, the store knows.
type escalated map[string]int

// Escalate tells, once each, of steps of approvals that waited so long that
// others may approve them too. What counts is that time, whether it was told or
// not. It is called by one at a time.
func (s *Server) Escalate(ctx context.Context) error {
	all, err := s.Store.Asked(ctx)
	if err != nil {
		return fmt.Errorf("look for what nobody approved: %w", err)
	}
	now, told := s.now(), escalated{}
	var sc *scene
	for _, r := range all {
		after := s.Rules.Escalates(r.Role)
		if after == 0 || now.Before(r.AskedAt.Add(after)) || unsigned(r) {
			continue
		}
		if n, ok := s.escalated[r.ID]; ok && n == len(r.Approvals) {
			told[r.ID] = n
			continue
		}
		if sc == nil {
			v, err := s.look(ctx, now)
			if err == nil {
				v.hosts, err = s.liveHosts(ctx)
			}
			if err != nil {
				return fmt.Errorf("look for what nobody approved: %w", err)
			}
			sc = &v
		}
		n, err := s.escalate(ctx, r.ID, *sc)
		if err != nil {
			return fmt.Errorf("tell of %s that others may approve it: %w", r.ID, err)
		}
		if n >= 0 {
			told[r.ID] = n
		}
	}
	s.escalated = told
	return nil
}

// escalate tells of a request, if there is something to tell: then it says how
// many approvals there were.
func (s *Server) escalate(ctx context.Context, id string, sc scene) (approvals int, err error) {
	approvals = -1
	err = s.Store.Escalate(ctx, id, func(r roster.Request) (time.Time, *roster.Decision) {
		if r.State != stateAsked || !sc.now.Before(r.LapsesAt) {
			return time.Time{}, nil
		}
		st, ok := s.standing(r, sc)
		if !ok || len(st.Joined) == 0 {
			return time.Time{}, nil
		}
		approvals = len(r.Approvals)
		return st.Since, &roster.Decision{At: sc.now, What: roster.EscalatedStep, Text: strings.Join(st.Joined, ", ") + " may approve it too"}
	})
	return approvals, err
}
