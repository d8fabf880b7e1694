package api_test

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	capi "curfew.internal/controlplane/api"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// An approval in two steps, of which the first passes to eve when cy says
// nothing for ten minutes.
func TestStepsAreTakenInTurn(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.rules.change(func() {
		w.rules.approvers, w.rules.needed = []string{"ben"}, 2
		w.rules.before = []roster.Step{{By: []string{"cy"}, Count: 1, After: 10 * time.Minute, Later: []string{"eve"}}}
	})
	r := w.ask(t)
	yes := func(p *person) (*api.Request, error) {
		return p.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: p.fresh(t)})
	}
	waits := func(want map[*person]int) {
		t.Helper()
		for p, n := range want {
			l, err := p.ListRequests(ctx, &api.ListRequestsRequest{ForApproval: true})
			if err != nil || len(l.Requests) != n {
				t.Errorf("%s has %d to decide on, %v", p.name, len(l.GetRequests()), err)
			}
		}
	}
	_, err := yes(w.ben)
	refused(t, err, connect.CodeFailedPrecondition, "it is not your turn: this request waits for 1 of: cy; from")
	_, err = yes(w.eve)
	refused(t, err, connect.CodeFailedPrecondition, "it is not your turn")
	waits(map[*person]int{w.cy: 1, w.ben: 0, w.eve: 0})
	w.clock.pass(10 * time.Minute)
	waits(map[*person]int{w.cy: 1, w.ben: 0, w.eve: 1})
	now, err := yes(w.eve)
	must(t, err)
	if now.State != "asked" || len(now.Approvers) != 1 || now.Approvers[0] != "ben" || now.WaitsFor != "1 of: ben" {
		t.Errorf("%v", now)
	}
	_, err = yes(w.cy)
	refused(t, err, connect.CodeFailedPrecondition, "it is not your turn: this request waits for 1 of: ben")
	waits(map[*person]int{w.cy: 0, w.ben: 1, w.eve: 0})
	now, err = yes(w.ben)
	must(t, err)
	if now.State != "issued" || len(now.Approvals) != 2 {
		t.Errorf("%v", now)
	}
	g := w.held(t, "db1").Grants
	if len(g) != 1 {
		t.Errorf("%d grants", len(g))
	}
}

// That others may approve a step too is told when it is so, to the second and
// once each: by a server that was away at that time, and whichever of two looks.
func TestEscalationIsTold(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.rules.change(func() {
		w.rules.approvers, w.rules.needed = []string{"ada"}, 3
		w.rules.before = []roster.Step{
			{By: []string{"cy"}, Count: 1, After: 10 * time.Minute, Later: []string{"cy", "eve"}},
			{By: []string{"ben"}, Count: 1, After: 10 * time.Minute, Later: []string{"eve", "cy"}},
		}
	})
	r := w.ask(t)
	other := &capi.Server{Fleet: "lab", Store: w.store, Desk: w.desk, Rules: w.rules, Clock: w.clock, Log: slog.New(slog.DiscardHandler)}
	told := func(want ...string) {
		t.Helper()
		for _, s := range []*capi.Server{w.server, other, w.server} {
			must(t, s.Escalate(ctx))
		}
		all, err := w.ada.SearchEvents(ctx, &api.SearchEventsRequest{Kind: "decision"})
		must(t, err)
		var texts []string
		for _, e := range all.Events {
			if e.Step == roster.EscalatedStep && e.Request == r.Id {
				texts = append(texts, e.Text)
			}
		}
		slices.Sort(texts)
		if !slices.Equal(texts, want) {
			t.Errorf("at %v: told %q, not %q", w.clock.Now().Wall, texts, want)
		}
	}
	w.clock.pass(r.AskedAt.AsTime().Add(10*time.Minute - time.Nanosecond).Sub(w.clock.Now().Wall))
	told()
	w.clock.pass(time.Nanosecond)
	told("eve may approve it too")
	w.clock.pass(-5 * time.Minute) // a clock that is set back
	told("eve may approve it too")
	w.clock.pass(10 * time.Minute)
	now, err := w.eve.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.eve.fresh(t)})
	must(t, err)
	if now.WaitsFor == "" {
		t.Error("it waits for nobody")
	}
	told("eve may approve it too")
	w.clock.pass(20 * time.Minute)                                                                                   // and no server ran
	other = &capi.Server{Fleet: "lab", Store: w.store, Desk: w.desk, Rules: w.rules, Clock: w.clock, Log: other.Log} // started again
	told("cy may approve it too", "eve may approve it too")
	_, err = w.ana.Withdraw(ctx, &api.WithdrawRequest{Id: r.Id})
	must(t, err)
	w.clock.pass(time.Minute)
	told("cy may approve it too", "eve may approve it too")
}

// Whoever lost her place among the approvers of a step does not count in it
// any more, and the step waits again.
func TestAStepWaitsAgain(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.rules.change(func() {
		w.rules.approvers, w.rules.needed = []string{"ben"}, 2
		w.rules.before = []roster.Step{{By: []string{"cy", "eve"}, Count: 1}}
	})
	r := w.ask(t)
	_, err := w.cy.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.cy.fresh(t)})
	must(t, err)
	w.rules.change(func() { w.rules.before = []roster.Step{{By: []string{"eve"}, Count: 1}} })
	_, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	refused(t, err, connect.CodeFailedPrecondition, "it is not your turn: this request waits for 1 of: eve")
}

// While a grant stands, what is kept apart from its role is refused; when it
// has ended, it is not.
func TestRolesAreKeptApart(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	waiting := w.ask(t)
	first := w.issued(t)
	w.rules.change(func() { w.rules.apart = map[string][]string{"db-admin": {"db-admin"}} }) // from itself: the world has one role
	_, err := w.ana.CreateRequest(ctx, question(t, w.ana, same))
	refused(t, err, connect.CodeFailedPrecondition, "keeps this role apart from db-admin, and a grant of it stands")
	yes := func() error {
		_, err := w.ben.Approve(ctx, &api.ApproveRequest{Id: waiting.Id, Digest: waiting.Digest, Code: w.ben.fresh(t)})
		return err
	}
	refused(t, yes(), connect.CodeFailedPrecondition, "keeps this role apart from db-admin, and a grant of it stands")
	if n := len(w.held(t, "db1").Grants); n != 1 {
		t.Errorf("%d grants", n)
	}
	_, err = w.ada.Revoke(ctx, &api.RevokeRequest{Grant: first.Grant})
	must(t, err)
	must(t, yes())
}
