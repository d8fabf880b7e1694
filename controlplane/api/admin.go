package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
)

func admin(ctx context.Context) error {
	if !who(ctx).Admin {
		return errAdmins
	}
	return nil
}

// provedFor is how long a proof by a factor counts for an admin's
// calls on the same session.
const provedFor = 15 * time.Minute

// freshAdmin lets an admin pass who proved herself on this session a short
// while ago, or does so now. What lets somebody in asks for it; what only
// takes away does not.
func (s *Server) freshAdmin(ctx context.Context, m proving) error {
	if err := admin(ctx); err != nil {
		return err
	}
	if ago := s.now().Sub(who(ctx).session.Proved); ago >= 0 && ago < provedFor {
		return nil
	}
	return s.prove(ctx, m, errStale)
}

// prove asks for the proof that the call does not bring.
func (s *Server) prove(ctx context.Context, m proving, missing error) error {
	if m.GetCode() == "" && len(m.GetAssertion()) == 0 {
		return missing
	}
	return s.spend(ctx, m)
}

// AddPerson implements the API.
func (s *Server) AddPerson(ctx context.Context, m *api.AddPersonRequest) (*api.InviteReply, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(grant.CheckPerson(m.Name), grant.CheckText("full name", m.FullName, 100), roster.CheckEmail(m.Email)); err != nil {
		return nil, invalid(err)
	}
	if err := s.freshAdmin(ctx, m); err != nil {
		return nil, err
	}
	p, err := s.Store.AddPerson(ctx, roster.Person{Name: m.Name, FullName: m.FullName, Admin: m.Admin, Email: m.Email}, s.act(ctx))
	if is(err, roster.ErrExists) {
		return nil, roster.Refuse(roster.Taken, "there is or was a person of the name %s: names are not given again", m.Name)
	}
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "person added", "person", p.Name, "admin", p.Admin, "by", who(ctx).Name)
	return s.invite(ctx, p)
}

// InvitePerson implements the API.
func (s *Server) InvitePerson(ctx context.Context, m *api.InvitePersonRequest) (*api.InviteReply, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	p, err := s.person(ctx, m.Name)
	if err != nil {
		return nil, err
	}
	if err := s.freshAdmin(ctx, m); err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "person invited", "person", p.Name, "by", who(ctx).Name)
	return s.invite(ctx, p)
}

func (s *Server) person(ctx context.Context, name string) (roster.Person, error) {
	p, err := s.Store.Person(ctx, name)
	if is(err, roster.ErrUnknown) {
		return p, roster.Refuse(roster.Missing, "there is no person %q: `curfew people` lists them", name)
	}
	return p, err
}

func (s *Server) invite(ctx context.Context, p roster.Person) (*api.InviteReply, error) {
	code, err := s.Codes.Invite(ctx, p.Name, who(ctx).Name)
	if is(err, roster.ErrDisabled) {
		return nil, roster.Refuse(roster.Conflict, "%s is disabled", p.Name)
	}
	if err != nil {
		return nil, err
	}
	return &api.InviteReply{Person: personMessage(p), Invite: code.Text, Link: code.Link, Expires: timestamppb.New(code.Expires)}, nil
}

// SetEmail implements the API.
func (s *Server) SetEmail(ctx context.Context, m *api.SetEmailRequest) (*api.Person, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	if err := roster.CheckEmail(m.Email); err != nil {
		return nil, invalid(err)
	}
	if _, err := s.person(ctx, m.Name); err != nil {
		return nil, err
	}
	// Whoever may set it sees from then on what its person is told.
	if err := s.freshAdmin(ctx, m); err != nil {
		return nil, err
	}
	p, err := s.Store.SetEmail(ctx, m.Name, m.Email, s.act(ctx))
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "mail address set", "person", p.Name, "by", who(ctx).Name)
	return personMessage(p), nil
}

// DisablePerson implements the API.
func (s *Server) DisablePerson(ctx context.Context, m *api.DisablePersonRequest) (*api.Person, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	if m.Name == who(ctx).Name {
		return nil, roster.Refuse(roster.Conflict, "you cannot disable yourself: another admin has to")
	}
	if _, err := s.person(ctx, m.Name); err != nil {
		return nil, err
	}
	p, err := s.Store.DisablePerson(ctx, m.Name, s.act(ctx))
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "person disabled", "person", p.Name, "by", who(ctx).Name)
	return personMessage(p), nil
}

// ListPeople implements the API.
func (s *Server) ListPeople(ctx context.Context, _ *api.ListPeopleRequest) (*api.ListPeopleReply, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	all, err := s.Store.People(ctx)
	if err != nil {
		return nil, err
	}
	reply := &api.ListPeopleReply{}
	for _, p := range all {
		reply.People = append(reply.People, personMessage(p))
	}
	return reply, nil
}

// CreateJoinToken implements the API.
func (s *Server) CreateJoinToken(ctx context.Context, m *api.CreateJoinTokenRequest) (*api.CreateJoinTokenReply, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	if m.Host != "" {
		if err := grant.CheckHost(m.Host); err != nil {
			return nil, invalid(err)
		}
	}
	if err := roster.CheckLabels(m.Labels); err != nil {
		return nil, err
	}
	if err := s.freshAdmin(ctx, m); err != nil {
		return nil, err
	}
	code, expires, err := s.Codes.Join(ctx, m.Host, m.Labels, who(ctx).Name)
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "join token made", "host", m.Host, "by", who(ctx).Name)
	return &api.CreateJoinTokenReply{Token: code, Expires: timestamppb.New(expires)}, nil
}

// ListHosts implements the API.
func (s *Server) ListHosts(ctx context.Context, _ *api.ListHostsRequest) (*api.ListHostsReply, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	all, err := s.Store.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	reply := &api.ListHostsReply{}
	for _, h := range all {
		m, err := s.hostMessage(ctx, h)
		if err != nil {
			return nil, err
		}
		reply.Hosts = append(reply.Hosts, m)
	}
	return reply, nil
}

// DecommissionHost implements the API.
func (s *Server) DecommissionHost(ctx context.Context, m *api.DecommissionHostRequest) (*api.Host, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	h, err := s.Store.DecommissionHost(ctx, m.Name, s.act(ctx))
	if is(err, roster.ErrUnknown) {
		return nil, roster.Refuse(roster.Missing, "there is no host %q: `curfew hosts` lists them", m.Name)
	}
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "host decommissioned", "host", h.Name, "by", who(ctx).Name)
	return s.hostMessage(ctx, h)
}

func (s *Server) hostMessage(ctx context.Context, h roster.Host) (*api.Host, error) {
	m := &api.Host{
		Name: h.Name, Labels: h.Labels, Addresses: h.Addresses, RevisionApplied: h.Applied, AgentVersion: h.AgentVersion,
		Mode: h.Mode, Decommissioned: h.Decommissioned, Refused: h.Refused, Connected: s.Connected(h.Name),
		Leaving: h.Leaving > 0, Unwired: h.Unwired, Access: h.Access,
	}
	if !h.Examined.IsZero() {
		m.Examined = timestamppb.New(h.Examined)
	}
	for _, f := range h.Findings {
		m.Findings = append(m.Findings, &api.Finding{Check: f.Check, Severity: f.Severity, Says: f.Says, Mend: f.Mend})
	}
	if h.Ahead > 0 {
		m.Refused = fmt.Sprintf("keeps revision %d, which this control plane has not given: was its database set back?", h.Ahead)
	}
	if !h.Seen.IsZero() {
		m.LastSeen = timestamppb.New(h.Seen)
	}
	state, err := s.Store.State(ctx, h.Name)
	if is(err, roster.ErrUnknown) {
		return m, nil // decommissioned: it is to hold nothing
	}
	m.Revision = state.Revision
	return m, err
}

// PolicyStatus implements the API.
func (s *Server) PolicyStatus(ctx context.Context, m *api.PolicyStatusRequest) (*api.PolicyStatusReply, error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	v := s.Rules.State()
	reply := &api.PolicyStatusReply{Version: v.Version, LoadedAt: timestamppb.New(v.LoadedAt), Problems: v.Problems, Warnings: v.Warnings}
	if m.Files {
		reply.Files, reply.Directory, reply.Managers = v.Files, map[string]*api.Members{}, v.Kept.Managers
		for name, people := range v.Kept.Members {
			reply.Directory[name] = &api.Members{People: people}
		}
		reply.OnCall = onCallMessage(v.Calls)
	}
	return reply, nil
}

func onCallMessage(c roster.Calls) *api.OnCall {
	m := &api.OnCall{Why: c.Why, Rotations: map[string]*api.Turns{}}
	for name, turns := range c.Rotations {
		all := &api.Turns{}
		for _, t := range turns {
			all.Turns = append(all.Turns, &api.Turn{Person: t.Person, From: timestamppb.New(t.From), Until: timestamppb.New(t.Until)})
		}
		m.Rotations[name] = all
	}
	return m
}

// IssueSSHCertificate implements the API.
func (s *Server) IssueSSHCertificate(ctx context.Context, m *api.IssueSSHCertificateRequest) (*api.IssueSSHCertificateReply, error) {
	now := s.now()
	live, err := s.Store.LiveOn(ctx, who(ctx).Name, m.Host, now)
	if err != nil {
		return nil, err
	}
	// Of the grants that are waiting for nothing but time, the one that ends
	// last; the same answer for a host that does not exist.
	if len(live) == 0 {
		return nil, roster.Refuse(roster.Denied, "you have no grant that stands on %q now: `curfew roles` says what you may ask for", cut(m.Host))
	}
	if who(ctx).session.Proved.IsZero() {
		if err := s.prove(ctx, m, errVouched); err != nil {
			return nil, err
		}
	}
	h, err := s.Store.Host(ctx, m.Host)
	if err != nil {
		return nil, err
	}
	g := *live[0].Grant
	cert, err := s.Authority().SignUser(m.PublicKey, g, now.Truncate(time.Second))
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "ssh certificate signed", "person", g.Person.Name, "host", h.Name, "grant", g.ID)
	return &api.IssueSSHCertificateReply{
		Certificate: cert, User: g.Person.Name, Addresses: h.Addresses, HostKeys: h.SSHHostKeys, Expires: timestamppb.New(g.NotAfter), Grant: g.ID,
	}, nil
}

// cut keeps a hostile name from filling the answer.
func cut(s string) string { return s[:min(len(s), 64)] }
