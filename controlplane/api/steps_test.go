package api_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

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
