package web

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// fleetView is the fleet's health.
type fleetView struct {
	Hosts                       []hostRow
	Up, Down, Behind, Unhealthy int
}

// hostRow is a host in that list.
type hostRow struct {
	*api.Host
	Broken bool // its doctor says that something does not work
}

func (s *Server) fleet(ctx context.Context, _ *http.Request) (page, error) {
	all, err := s.API.ListHosts(ctx, &api.ListHostsRequest{})
	if err != nil {
		return page{}, err
	}
	var v fleetView
	for _, h := range all.Hosts {
		if h.Decommissioned && !h.Leaving {
			continue
		}
		row := hostRow{Host: h, Broken: slices.ContainsFunc(h.Findings, func(f *api.Finding) bool { return f.Severity == "broken" })}
		v.Hosts = append(v.Hosts, row)
		if h.Connected {
			v.Up++
		} else {
			v.Down++
		}
		if h.RevisionApplied < h.Revision {
			v.Behind++
		}
		if h.Refused != "" || len(h.Unwired) > 0 || row.Broken {
			v.Unhealthy++
		}
	}
	return page{Name: "fleet", Title: "Fleet", Data: v}, nil
}

// policyView is the policy in force, and why it lets somebody ask or not.
type policyView struct {
	*api.PolicyStatusReply
	Names []string
	Case  policy.Case
	On    string
	From  string // the address
	Why   *policy.Explanation
	Odd   string // why there is no explanation
}

func (s *Server) policy(ctx context.Context, r *http.Request) (page, error) {
	p, err := s.API.PolicyStatus(ctx, &api.PolicyStatusRequest{Files: true})
	if err != nil {
		return page{}, err
	}
	v := policyView{PolicyStatusReply: p, Names: slices.Sorted(maps.Keys(p.Files)), On: strings.TrimSpace(r.FormValue("on"))}
	v.Case = policy.Case{Person: strings.TrimSpace(r.FormValue("person")), Role: strings.TrimSpace(r.FormValue("role")), At: s.Clock.Now().Wall.UTC()}
	v.From = strings.TrimSpace(r.FormValue("from"))
	if ticket := strings.TrimSpace(r.FormValue("ticket")); ticket != "" {
		v.Case.Ticket = &ticket
	}
	if v.Case.Person != "" && v.Case.Role != "" {
		if err := s.explain(ctx, r, &v); err != nil {
			return page{}, err
		}
	}
	return page{Name: "policy", Title: "Policy", Data: v}, nil
}

// explain says of each rule of the policy in force what it says of the case.
func (s *Server) explain(ctx context.Context, r *http.Request, v *policyView) error {
	rules, problems := policy.Parse(v.Files)
	if !policy.Holds(problems) || len(v.Files) == 0 {
		v.Odd = "no policy is in force that could be explained"
		return nil
	}
	if d := strings.TrimSpace(r.FormValue("for")); d != "" {
		var err error
		if v.Case.For, err = time.ParseDuration(d); err != nil {
			v.Odd = "write the length like 2h or 30m"
			return nil
		}
	}
	if v.From != "" {
		a, err := netip.ParseAddr(v.From)
		if err != nil {
			v.Odd = "write the address like 10.0.0.7"
			return nil
		}
		v.Case.Source = a.Unmap().WithZone("").String()
	}
	if err := s.lentNow(ctx, v); err != nil {
		return err
	}
	if v.On != "" {
		all, err := s.API.ListHosts(ctx, &api.ListHostsRequest{})
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all.Hosts, func(h *api.Host) bool { return h.Name == v.On && !h.Decommissioned })
		if i < 0 {
			v.Odd = "there is no such host in the fleet"
			return nil
		}
		v.Case.Host = &roster.Host{Name: v.On, Labels: all.Hosts[i].Labels}
	}
	kept := roster.Directory{Members: map[string][]string{}, Managers: v.Managers}
	for name, m := range v.Directory {
		kept.Members[name] = m.People
	}
	said := roster.Calls{Rotations: map[string][]roster.Turn{}, Why: v.OnCall.GetWhy()}
	for name, turns := range v.OnCall.GetRotations() {
		for _, t := range turns.Turns {
			said.Rotations[name] = append(said.Rotations[name], roster.Turn{Person: t.Person, From: t.From.AsTime(), Until: t.Until.AsTime()})
		}
	}
	why := rules.With(kept).Called(said).Explain(v.Case)
	v.Why = &why
	return nil
}

// lentNow has the explanation tell who stands in for whom.
func (s *Server) lentNow(ctx context.Context, v *policyView) error {
	all, err := s.API.ListDelegations(ctx, &api.ListDelegationsRequest{})
	if err != nil {
		return err
	}
	for _, m := range all.Delegations {
		if d := (roster.Delegation{Away: m.Away, StandIn: m.StandIn, From: m.From.AsTime(), Until: m.Until.AsTime()}); d.Stands(v.Case.At) {
			v.Case.Away = append(v.Case.Away, d)
		}
	}
	return nil
}

func (s *Server) people(ctx context.Context, _ *http.Request) (page, error) {
	all, err := s.API.ListPeople(ctx, &api.ListPeopleRequest{})
	if err != nil {
		return page{}, err
	}
	return page{Name: "people", Title: "People", Data: all.People}, nil
}

func (s *Server) changePeople(ctx context.Context, r *http.Request) (outcome, error) {
	name := strings.TrimSpace(r.PostFormValue("name"))
	switch r.PathValue("do") {
	case "add":
		m := &api.AddPersonRequest{Name: name, FullName: strings.TrimSpace(r.PostFormValue("full")), Email: strings.TrimSpace(r.PostFormValue("email")), Admin: r.PostFormValue("admin") != ""}
		if o, asked, err := s.challenged(ctx, r, m); asked {
			return o, err
		}
		m.Code, m.Assertion = proof(r)
		return invited(s.API.AddPerson(ctx, m))
	case "invite":
		m := &api.InvitePersonRequest{Name: name}
		if o, asked, err := s.challenged(ctx, r, m); asked {
			return o, err
		}
		m.Code, m.Assertion = proof(r)
		return invited(s.API.InvitePerson(ctx, m))
	case "email":
		m := &api.SetEmailRequest{Name: name, Email: strings.TrimSpace(r.PostFormValue("email"))}
		if o, asked, err := s.challenged(ctx, r, m); asked {
			return o, err
		}
		m.Code, m.Assertion = proof(r)
		_, err := s.API.SetEmail(ctx, m)
		return outcome{to: "/people"}, err
	case "disable":
		_, err := s.API.DisablePerson(ctx, &api.DisablePersonRequest{Name: name})
		return outcome{to: "/people"}, err
	}
	return outcome{}, errNoDeed
}

// invited shows a code. It is shown once.
func invited(m *api.InviteReply, err error) (outcome, error) {
	if err != nil {
		return outcome{}, err
	}
	return outcome{page: &page{Name: "invited", Title: "A code for " + m.Person.Name, Data: m}}, nil
}
