package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
)

// Delegate implements the API.
func (s *Server) Delegate(ctx context.Context, m *api.DelegateRequest) (*api.DelegateReply, error) {
	now := s.now()
	d := roster.Delegation{ID: newID("d"), Away: who(ctx).Name, StandIn: m.StandIn, Note: m.Note, Factor: factor(m), MadeAt: now}
	if err := invalid(grant.CheckText("note", m.Note, maxNote)); err != nil {
		return nil, err
	}
	if d.StandIn == d.Away {
		return nil, roster.Refuse(roster.Invalid, "name somebody else, who approves while you are away")
	}
	if err := lentFor(&d, m, now); err != nil {
		return nil, err
	}
	// First the policy, which knows no more than what was typed: so only who
	// approves something learns who is in the fleet.
	roles, not := s.Rules.Lends(d)
	if len(roles) == 0 && len(not) == 0 {
		return nil, roster.Refuse(roster.Denied, "there is no role that you approve: nobody could do it in your place")
	}
	if len(roles) == 0 {
		return nil, roster.Refuse(roster.Denied, "the policy does not let this person approve in your place: %s", strings.Join(not, "; "))
	}
	p, err := s.Store.Person(ctx, d.StandIn)
	if is(err, roster.ErrUnknown) || err == nil && (p.Disabled || !p.Enrolled) {
		return nil, roster.Refuse(roster.Missing, "%.64q cannot approve in your place: it has to be somebody who is in the fleet, and has a second factor or a passkey", d.StandIn)
	}
	if err != nil {
		return nil, err
	}
	if err := s.spend(ctx, m); err != nil {
		return nil, err
	}
	switch err := s.Store.AddDelegation(ctx, d, now); {
	case is(err, roster.ErrTooMany):
		return nil, roster.Refuse(roster.TooMuch, "you have %d delegations that are not over: end one first (`curfew delegate list`)", roster.MaxLentOpen)
	case err != nil:
		return nil, conflict(err, nil)
	}
	s.Log.InfoContext(ctx, "approvals delegated", "by", d.Away, "to", d.StandIn, "from", d.From, "until", d.Until)
	return &api.DelegateReply{Delegation: delegationMessage(d), Roles: roles, Not: not}, nil
}

// lentFor reads from when until when.
func lentFor(d *roster.Delegation, m *api.DelegateRequest, now time.Time) error {
	if d.From = now.UTC().Truncate(time.Second); m.From != nil {
		d.From = m.From.AsTime().UTC().Truncate(time.Second)
	}
	d.Until = m.Until.AsTime().UTC().Truncate(time.Second)
	switch {
	case m.Until == nil || m.Until.CheckValid() != nil || m.From != nil && m.From.CheckValid() != nil:
		return roster.Refuse(roster.Invalid, "say until when")
	case m.From != nil && !d.From.After(now):
		return roster.Refuse(roster.Invalid, "it cannot begin at %s, which is past: leave that out, and it begins now", d.From.Format(time.RFC3339))
	case d.From.Sub(now) > roster.MaxLentAhead:
		return roster.Refuse(roster.Invalid, "it cannot begin more than %d days from now", int(roster.MaxLentAhead.Hours()/24))
	case !d.Until.After(d.From):
		return roster.Refuse(roster.Invalid, "it has to end after it begins, at %s", d.From.Format(time.RFC3339))
	case d.Until.Sub(d.From) > roster.MaxLent:
		return roster.Refuse(roster.Invalid, "somebody stands in for %d days at most", int(roster.MaxLent.Hours()/24))
	}
	return nil
}

// ListDelegations implements the API.
func (s *Server) ListDelegations(ctx context.Context, _ *api.ListDelegationsRequest) (*api.ListDelegationsReply, error) {
	all, err := s.Store.Delegations(ctx, s.now())
	reply := &api.ListDelegationsReply{}
	for _, d := range all {
		if concerns(d, who(ctx)) {
			reply.Delegations = append(reply.Delegations, delegationMessage(d))
		}
	}
	return reply, err
}

// concerns reports whether the caller may see a delegation, and end it.
func concerns(d roster.Delegation, c caller) bool {
	return c.Admin || d.Away == c.Name || d.StandIn == c.Name
}

// EndDelegation implements the API. It only takes away: no proof is needed.
func (s *Server) EndDelegation(ctx context.Context, m *api.EndDelegationRequest) (*api.EndDelegationReply, error) {
	all, err := s.Store.Delegations(ctx, s.now())
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(d roster.Delegation) bool { return d.ID == m.Id && concerns(d, who(ctx)) })
	if i >= 0 {
		err = s.Store.EndDelegation(ctx, m.Id, s.act(ctx))
	}
	if i < 0 || is(err, roster.ErrUnknown) {
		return nil, roster.Refuse(roster.Missing, "there is no such delegation: it may be over already")
	}
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "delegation ended", "of", all[i].Away, "to", all[i].StandIn, "by", who(ctx).Name)
	return &api.EndDelegationReply{Delegation: delegationMessage(all[i])}, nil
}

func delegationMessage(d roster.Delegation) *api.Delegation {
	return &api.Delegation{
		Id: d.ID, Away: d.Away, StandIn: d.StandIn, From: timestamppb.New(d.From), Until: timestamppb.New(d.Until), Note: d.Note, MadeAt: timestamppb.New(d.MadeAt),
	}
}

// lent are the delegations that stand now.
func (s *Server) lent(ctx context.Context, now time.Time) ([]roster.Delegation, error) {
	all, err := s.Store.Delegations(ctx, now)
	return slices.DeleteFunc(all, func(d roster.Delegation) bool { return !d.Stands(now) }), err
}

// standIns are those of them by which somebody may approve r in another's
// place. Where people's keys sign, hosts take only the word of those whom the
// roster of keys lets approve.
func (s *Server) standIns(r roster.Request, sc scene) []roster.Delegation {
	if len(sc.lent) == 0 {
		return nil
	}
	may := s.Rules.StandIns(r.Role, r.Person, sc.lent)
	if !r.Resolved.Signed {
		return may
	}
	return slices.DeleteFunc(may, func(d roster.Delegation) bool {
		return sc.keys == nil || !slices.ContainsFunc(sc.keys.Members, func(m grant.Member) bool { return m.Name == d.StandIn && m.Approves })
	})
}

// mayDecide says by which right the caller may say yes or no to the request.
func (s *Server) mayDecide(ctx context.Context, r roster.Request) (right, error) {
	name := who(ctx).Name
	if s.Rules.MayApprove(name, r.Person, r.Role) {
		return right{may: true}, nil
	}
	sc, err := s.look(ctx, s.now())
	if err != nil {
		return right{}, err
	}
	away := standsFor(name, s.standIns(r, sc))
	return right{may: away != "", inPlaceOf: away}, nil
}

// standsFor is in whose place the person approves.
func standsFor(name string, all []roster.Delegation) string {
	var away []string
	for _, d := range all {
		if d.StandIn == name {
			away = append(away, d.Away)
		}
	}
	slices.Sort(away)
	return strings.Join(slices.Compact(away), ", ")
}

// place says in whose place something is done.
func place(of string) string {
	if of == "" {
		return ""
	}
	return "in place of " + of
}

// askedInPlace are the steps that tell who may approve a request for somebody
// who is away, as it is asked.
func askedInPlace(st []roster.Delegation, now time.Time) []roster.Decision {
	var all []roster.Decision
	for _, d := range st {
		all = append(all, roster.Decision{At: now, What: roster.InPlaceStep, Person: d.StandIn, Text: "may approve " + place(d.Away)})
	}
	return all
}
