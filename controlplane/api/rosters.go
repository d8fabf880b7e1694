package api

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/url"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
)

// GetRoster implements the API.
func (s *Server) GetRoster(ctx context.Context, _ *api.GetRosterRequest) (*api.GetRosterReply, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	if s.Pages == "" {
		return nil, errNoSignPages
	}
	origin, err := url.Parse(s.Pages)
	if err != nil {
		return nil, err
	}
	b, err := s.Store.LastRoster(ctx)
	if err != nil {
		return nil, err
	}
	reply := &api.GetRosterReply{Envelope: b, Fleet: s.Fleet, Party: origin.Hostname(), Origin: s.Pages}
	people, err := s.Store.People(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range people {
		if p.Disabled {
			continue
		}
		keys, err := s.Desk.Publics(ctx, p.Name)
		if err != nil {
			return nil, err
		}
		m := &api.PersonKeys{Person: p.Name}
		for _, k := range keys {
			m.Keys = append(m.Keys, &api.PublicKey{Id: k.ID, Public: k.Public})
		}
		reply.People = append(reply.People, m)
	}
	return reply, nil
}

// PublishRoster implements the API. Hosts look at the same signatures
// themselves: what is refused here only spares them the look.
func (s *Server) PublishRoster(ctx context.Context, m *api.PublishRosterRequest) (*api.PublishRosterReply, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	var held grant.Roster
	b, err := s.Store.LastRoster(ctx)
	if err == nil && len(b) > 0 {
		held, err = grant.OpenRoster(b, s.Fleet)
	}
	if err != nil {
		return nil, err
	}
	next, err := held.Follow(m.Envelope, s.Fleet, []ed25519.PublicKey{s.Authority().Root()})
	if err != nil {
		return nil, invalid(err)
	}
	if !s.now().Before(next.Expires) {
		return nil, roster.Refuse(roster.Invalid, "this roster has expired: draw up another one")
	}
	if err := s.freshAdmin(ctx, m); err != nil {
		return nil, err
	}
	err = s.Store.AddRoster(ctx, next, m.Envelope, s.act(ctx))
	if is(err, roster.ErrExists) {
		return nil, roster.Refuse(roster.Taken, "there is a roster %d already: draw up the next one from it", next.Version)
	}
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "roster of people's keys published", "version", next.Version, "by", who(ctx).Name)
	return &api.PublishRosterReply{Version: next.Version}, nil
}

// An operator is told of a roster's end so long before, and each time that it
// is looked at from then on.
const (
	rosterNotice = 14 * 24 * time.Hour
	rosterLook   = 12 * time.Hour
)

// alertRoster tells, in the log, that the roster ends soon: hosts refuse then
// what it wants signed, and only its owners can mend that.
func (s *Server) alertRoster(ctx context.Context) error {
	now := s.now()
	if now.Sub(s.rosters) < rosterLook {
		return nil
	}
	b, err := s.Store.LastRoster(ctx)
	if err != nil {
		return fmt.Errorf("look at the roster of people's keys: %w", err)
	}
	s.rosters = now
	if len(b) == 0 {
		return nil
	}
	r, err := grant.OpenRoster(b, s.Fleet)
	if err == nil && r.Expires.Sub(now) < rosterNotice {
		s.Log.ErrorContext(ctx, "alert: the roster of people's keys ends, and hosts refuse then what it wants signed: its owners have to sign the next one",
			"version", r.Version, "expires", r.Expires)
	}
	return err
}
