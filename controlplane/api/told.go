package api

import (
	"context"
	"fmt"
	"strings"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// alerting are the kinds of entries among which there are some that somebody
// has to look at.
var alerting = [...]ledger.Kind{ledger.Privilege, ledger.Gap}

// alertTold logs what came since the last look, of whichever server. A new fleet's
// first look sees nothing.
func (s *Server) alertTold(ctx context.Context) error {
	for i, kind := range alerting {
		cursor := "alerts/" + kind.String()
		_, err := s.Store.Alone(ctx, cursor, func(ctx context.Context) error { return s.alertKind(ctx, kind, cursor, &s.alerted[i]) })
		if err != nil {
			return fmt.Errorf("look for alerts: %w", err)
		}
	}
	return nil
}

// alertKind logs what came of one kind. How far it has come is kept where there was
// some, and remembered where there was none.
func (s *Server) alertKind(ctx context.Context, kind ledger.Kind, cursor string, nothing *uint64) error {
	last, err := s.Store.LastEvent(ctx) // before the look: what comes meanwhile may be of this kind
	if err != nil {
		return err
	}
	upTo, found, err := s.Store.Forwarded(ctx, cursor)
	if err != nil {
		return err
	}
	if !found {
		return s.Store.KeepForwarded(ctx, cursor, last)
	}
	for q := (roster.Search{Kind: kind.String(), After: max(upTo, *nothing), Limit: maxEvents}); ; {
		events, err := s.Store.Events(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range events {
			q.After = e.ID
			if kind == ledger.Privilege || strings.Contains(e.Entry.Text, ledger.Demanded) || e.Host == "" && strings.HasPrefix(e.Entry.Text, roster.BadSeal) {
				s.Log.ErrorContext(ctx, "alert: a host tells what somebody has to look at", "kind", e.Kind, "host", e.Host, "event", e.ID, "what", e.Entry.Text)
			}
		}
		*nothing = q.After
		if len(events) > 0 {
			if err := s.Store.KeepForwarded(context.WithoutCancel(ctx), cursor, q.After); err != nil {
				return err
			}
		}
		if !roster.More(events, q.Limit) {
			*nothing = max(q.After, last)
			return nil
		}
	}
}
