package api_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
)

// lending is a world whose approvers may be stood in for.
func lending(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.rules.change(func() { w.rules.lends = policy.Lending{UpTo: 14 * 24 * time.Hour} })
	return w
}

// lend has somebody stand in for the person for some days.
func (p *person) lend(t *testing.T, standIn string, days int) *api.Delegation {
	t.Helper()
	r, err := p.Delegate(t.Context(), p.lends(t, standIn, days))
	must(t, err)
	return r.Delegation
}

func (p *person) lends(t *testing.T, standIn string, days int) *api.DelegateRequest {
	t.Helper()
	code := p.fresh(t)
	return &api.DelegateRequest{StandIn: standIn, Until: timestamppb.New(p.w.clock.Now().Wall.AddDate(0, 0, days)), Note: "skiing", Code: code}
}

func (p *person) yes(t *testing.T, r *api.Request, inPlaceOf string) (*api.Request, error) {
	t.Helper()
	return p.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: p.fresh(t), InPlaceOf: inPlaceOf})
}

func TestApprovedInPlaceOfAnother(t *testing.T) {
	w := lending(t)
	r := w.ask(t)
	_, err := w.eve.GetRequest(t.Context(), &api.GetRequestRequest{Id: r.Id})
	refused(t, err, connect.CodeNotFound, "")
	d := w.cy.lend(t, "eve", 7)
	seen, err := w.eve.GetRequest(t.Context(), &api.GetRequestRequest{Id: r.Id})
	must(t, err)
	if seen.InPlaceOf != "cy" || !strings.Contains(seen.WaitsFor, "eve in place of cy") || !slices.Contains(seen.Approvers, "eve") {
		t.Fatalf("%q, %s, %v", seen.InPlaceOf, seen.WaitsFor, seen.Approvers)
	}
	list, err := w.eve.ListRequests(t.Context(), &api.ListRequestsRequest{ForApproval: true})
	must(t, err)
	if len(list.Requests) != 1 {
		t.Errorf("%d wait for eve", len(list.Requests))
	}
	_, err = w.eve.yes(t, r, "")
	refused(t, err, connect.CodeFailedPrecondition, "you would approve this in place of cy")
	_, err = w.eve.yes(t, r, "ben")
	refused(t, err, connect.CodeFailedPrecondition, "you would approve this in place of cy")
	done, err := w.eve.yes(t, r, "cy")
	must(t, err)
	if a := done.Approvals[0]; done.State != "issued" || a.Person != "eve" || a.InPlaceOf != "cy" {
		t.Fatalf("%v", done)
	}
	if o := w.held(t, "db1"); len(o.Grants) != 1 || o.Grants[0].Approvals[0].Person != "eve" {
		t.Errorf("the host holds %+v", o.Grants)
	}
	for kind, want := range map[string][]string{
		"admin":    {"eve may approve in place of cy, from 2026-03-01T12:", "proved with totp: skiing"},
		"decision": {"in place of cy"},
	} {
		events, err := w.ada.SearchEvents(t.Context(), &api.SearchEventsRequest{Kind: kind, Limit: 100})
		must(t, err)
		for _, text := range want {
			if !slices.ContainsFunc(events.Events, func(e *api.Event) bool {
				return strings.Contains(e.Text, text) && (e.Person == "cy" && e.Object == "eve" || e.Person == "eve")
			}) {
				t.Errorf("no %s says %q of both", kind, text)
			}
		}
	}
	// What is taken back is taken back from what is asked then, at once.
	other := w.ask(t)
	_, err = w.ben.EndDelegation(t.Context(), &api.EndDelegationRequest{Id: d.Id})
	refused(t, err, connect.CodeNotFound, "no such delegation")
	_, err = w.eve.EndDelegation(t.Context(), &api.EndDelegationRequest{Id: d.Id})
	must(t, err)
	_, err = w.eve.yes(t, other, "cy")
	refused(t, err, connect.CodeNotFound, "")
	_, err = w.cy.EndDelegation(t.Context(), &api.EndDelegationRequest{Id: d.Id})
	refused(t, err, connect.CodeNotFound, "no such delegation")
	// Who approved in her place sees it on, and so does she.
	_, err = w.cy.GetRequest(t.Context(), &api.GetRequestRequest{Id: r.Id})
	must(t, err)
	_, err = w.eve.Revoke(t.Context(), &api.RevokeRequest{Grant: done.Grant})
	must(t, err)
}

func TestNobodyIsTwoPeople(t *testing.T) {
	w := lending(t)
	w.rules.change(func() { w.rules.needed, w.rules.approvers = 2, []string{"ben", "cy", "ada"} })
	w.cy.lend(t, "eve", 1)
	w.ben.lend(t, "eve", 1)
	w.ada.lend(t, "ana", 1)
	r := w.ask(t)
	_, err := w.ana.yes(t, r, "ada")
	refused(t, err, connect.CodePermissionDenied, "you made this request")
	done, err := w.eve.yes(t, r, "ben")
	must(t, err)
	if done.State != "asked" {
		t.Fatalf("one who stands in for two makes it %s", done.State)
	}
	_, err = w.eve.yes(t, r, "cy")
	refused(t, err, connect.CodeFailedPrecondition, "you approved this request already")
	_, err = w.ben.yes(t, r, "")
	refused(t, err, connect.CodeFailedPrecondition, "it is not your turn")
	done, err = w.cy.yes(t, r, "")
	must(t, err)
	if done.State != "issued" {
		t.Errorf("two words of two people: %s", done.State)
	}
}

func TestAWordEndsWithItsDelegation(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(w *world, d *api.Delegation) error
	}{
		{"taken back by an admin", func(w *world, d *api.Delegation) error {
			_, err := w.ada.EndDelegation(t.Context(), &api.EndDelegationRequest{Id: d.Id})
			return err
		}},
		{"taken back by who was away", func(w *world, d *api.Delegation) error {
			_, err := w.cy.EndDelegation(t.Context(), &api.EndDelegationRequest{Id: d.Id})
			return err
		}},
		{"the account of who was away is disabled", func(w *world, _ *api.Delegation) error {
			_, err := w.ada.DisablePerson(t.Context(), &api.DisablePersonRequest{Name: "cy"})
			return err
		}},
		{"its time is over", func(w *world, _ *api.Delegation) error {
			w.clock.pass(20 * time.Minute)
			return nil
		}},
		{"the policy forbids it now", func(w *world, _ *api.Delegation) error {
			w.rules.change(func() { w.rules.lends = policy.Lending{} })
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := lending(t)
			w.rules.change(func() { w.rules.needed, w.rules.approvers = 2, []string{"ben", "cy", "ada"} })
			m := w.cy.lends(t, "eve", 0)
			m.Until = timestamppb.New(w.clock.Now().Wall.Add(10 * time.Minute))
			lent, err := w.cy.Delegate(t.Context(), m)
			must(t, err)
			r := w.ask(t)
			_, err = w.eve.yes(t, r, "cy")
			must(t, err)
			must(t, c.end(w, lent.Delegation))
			done, err := w.ben.yes(t, r, "")
			must(t, err)
			if done.State != "asked" {
				t.Fatalf("a word that was lent counts on: %s", done.State)
			}
			if done, err = w.ada.yes(t, r, ""); err != nil || done.State != "issued" {
				t.Errorf("two others: %v, %v", done, err)
			}
		})
	}
}

func TestWhatMayNotBeLent(t *testing.T) {
	w := lending(t)
	days := func(n int) *timestamppb.Timestamp { return timestamppb.New(w.clock.Now().Wall.AddDate(0, 0, n)) }
	for _, c := range []struct {
		name string
		by   *person
		m    *api.DelegateRequest
		code connect.Code
		text string
	}{
		{"to oneself", w.cy, &api.DelegateRequest{StandIn: "cy", Until: days(1)}, connect.CodeInvalidArgument, "name somebody else"},
		{"without an end", w.cy, &api.DelegateRequest{StandIn: "eve"}, connect.CodeInvalidArgument, "until when"},
		{"to the past", w.cy, &api.DelegateRequest{StandIn: "eve", Until: days(-1)}, connect.CodeInvalidArgument, "has to end after it begins"},
		{"from the past", w.cy, &api.DelegateRequest{StandIn: "eve", From: days(-1), Until: days(1)}, connect.CodeInvalidArgument, "which is past"},
		{"for ever", w.cy, &api.DelegateRequest{StandIn: "eve", Until: days(31)}, connect.CodeInvalidArgument, "30 days at most"},
		{"longer than the policy lets", w.cy, &api.DelegateRequest{StandIn: "eve", Until: days(20)}, connect.CodePermissionDenied, "14 days at most"},
		{"far ahead", w.cy, &api.DelegateRequest{StandIn: "eve", From: days(100), Until: days(101)}, connect.CodeInvalidArgument, "90 days"},
		{"by whom nobody asks", w.eve, &api.DelegateRequest{StandIn: "ada", Until: days(1)}, connect.CodePermissionDenied, "no role that you approve"},
		{"nor is she told who is there", w.eve, &api.DelegateRequest{StandIn: "zoe", Until: days(1)}, connect.CodePermissionDenied, "no role that you approve"},
		{"to one who approves herself", w.cy, &api.DelegateRequest{StandIn: "ben", Until: days(1)}, connect.CodePermissionDenied, "in her own right"},
		{"to a stranger", w.cy, &api.DelegateRequest{StandIn: "zoe", Until: days(1)}, connect.CodeNotFound, "cannot approve in your place"},
		{"without a proof", w.cy, &api.DelegateRequest{StandIn: "eve", Until: days(1)}, connect.CodePermissionDenied, "code"},
		{"with a note of two lines", w.cy, &api.DelegateRequest{StandIn: "eve", Until: days(1), Note: "a\nb"}, connect.CodeInvalidArgument, "note"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.by.Delegate(t.Context(), c.m)
			refused(t, err, c.code, c.text)
		})
	}
	w.rules.change(func() { w.rules.lends = policy.Lending{} })
	_, err := w.cy.Delegate(t.Context(), w.cy.lends(t, "eve", 1))
	refused(t, err, connect.CodePermissionDenied, "has no `delegation`")
	all, err := w.ada.ListDelegations(t.Context(), &api.ListDelegationsRequest{})
	must(t, err)
	if len(all.Delegations) > 0 {
		t.Errorf("%v", all.Delegations)
	}
}

func TestDelegationsAreShownToTheirPeople(t *testing.T) {
	w := lending(t)
	w.cy.lend(t, "eve", 1)
	for _, c := range []struct {
		by   *person
		sees int
	}{{w.cy, 1}, {w.eve, 1}, {w.ada, 1}, {w.ben, 0}, {w.ana, 0}} {
		all, err := c.by.ListDelegations(t.Context(), &api.ListDelegationsRequest{})
		must(t, err)
		if len(all.Delegations) != c.sees {
			t.Errorf("%s sees %d", c.by.name, len(all.Delegations))
		}
	}
	for range roster.MaxLentOpen - 1 {
		w.cy.lend(t, "eve", 1)
	}
	_, err := w.cy.Delegate(t.Context(), w.cy.lends(t, "eve", 1))
	refused(t, err, connect.CodeResourceExhausted, "20 delegations")
}

// A delegation that is taken back between the look and the keeping counts for
// nothing: it is looked at where the approval is kept.
func TestTakenBackMeanwhile(t *testing.T) {
	w := lending(t)
	d := w.cy.lend(t, "eve", 1)
	r := w.ask(t)
	must(t, w.store.EndDelegation(t.Context(), d.Id, roster.Act{By: "cy", At: w.clock.Now().Wall}))
	_, err := w.store.Change(t.Context(), r.Id, w.clock.Now().Wall, func(roster.Request) (roster.Change, error) {
		return roster.Change{Approval: &roster.Approval{Person: "eve", InPlaceOf: "cy", Factor: "totp", At: w.clock.Now().Wall}}, nil
	})
	if !errors.Is(err, roster.ErrNotAway) {
		t.Errorf("kept: %v", err)
	}
}

func TestDeniedInPlaceOfAnother(t *testing.T) {
	w := lending(t)
	w.cy.lend(t, "eve", 1)
	r := w.ask(t)
	steps, err := w.store.Decisions(t.Context(), r.Id)
	must(t, err)
	if !slices.ContainsFunc(steps, func(d roster.Decision) bool {
		return d.What == roster.InPlaceStep && d.Person == "eve" && d.Text == "may approve in place of cy"
	}) {
		t.Errorf("nobody is told that eve may: %v", steps)
	}
	done, err := w.eve.Deny(t.Context(), &api.DenyRequest{Id: r.Id, Note: "not now"})
	must(t, err)
	steps, err = w.store.Decisions(t.Context(), r.Id)
	must(t, err)
	if last := steps[len(steps)-1]; done.DecidedBy != "eve" || last.Text != "in place of cy not now" {
		t.Errorf("%s: %+v", done.DecidedBy, last)
	}
	second := w.ask(t)
	_, err = w.eve.yes(t, second, "cy")
	must(t, err)
}

// Hosts take the word of those alone whom the roster of keys lets approve: to
// anybody else nothing is lent where people's own keys sign.
func TestWhoStandsInWhereKeysSign(t *testing.T) {
	for _, c := range []struct {
		name                 string
		named, approves, may bool
	}{
		{"whom the roster does not name has no word to give", false, false, false},
		{"nor has one whom it names, and does not let approve", true, false, false},
		{"one whom it lets approve signs with her own passkey", true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSigning(t)
			s.rules.change(func() {
				s.rules.approvers, s.rules.lends = []string{"ben"}, policy.Lending{UpTo: 14 * 24 * time.Hour}
			})
			if c.named {
				s.names("cy", c.approves)
			}
			must(t, s.publish(s.roster, append(s.owners, s.root)...))
			s.ben.lend(t, "cy", 7)
			r, err := s.sign(s.ask(t))
			must(t, err)
			if said := strings.Contains(r.WaitsFor, "cy in place of ben"); said != c.may || slices.Contains(r.Approvers, "cy") != c.may {
				t.Errorf("it waits for %s, and %v", r.WaitsFor, r.Approvers)
			}
			if _, err := s.server.GetRequest(s.browser["cy"], &api.GetRequestRequest{Id: r.Id}); (err == nil) != c.may {
				t.Errorf("cy sees it: %v", err)
			}
			if !c.may {
				return
			}
			r, err = s.approve("cy", &api.ApproveRequest{Id: r.Id, Digest: r.Digest, InPlaceOf: "ben"})
			must(t, err)
			if o := s.host(s.state()); r.State != "issued" || len(o.Grants) != 1 || o.Grants[0].Approvals[0].Person != "cy" {
				t.Errorf("%s: the host holds %+v", r.State, o)
			}
		})
	}
}

// names puts somebody into the roster.
func (s *signing) names(person string, approves bool) {
	s.t.Helper()
	m, err := s.ada.GetRoster(s.t.Context(), &api.GetRosterRequest{})
	must(s.t, err)
	for _, p := range m.People {
		if p.Person == person {
			one := grant.Member{Name: person, Approves: approves}
			for _, k := range p.Keys {
				one.Keys = append(one.Keys, grant.Passkey{ID: k.Id, Public: k.Public})
			}
			s.roster.Members = append(s.roster.Members, one)
		}
	}
}
