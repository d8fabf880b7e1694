package api_test

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

func TestTheWholeLife(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	who, err := w.ana.Whoami(ctx, &api.WhoamiRequest{})
	must(t, err)
	if who.Person.Name != "ana" || who.Person.Uid < grant.UIDMin || !who.Person.Enrolled {
		t.Errorf("whoami: %v", who)
	}
	if roles, err := w.ana.ListRoles(ctx, &api.ListRolesRequest{}); err != nil || len(roles.Roles) != 1 || roles.Roles[0].Commands[0] != "/bin/systemctl restart cron" {
		t.Errorf("roles: %v, %v", roles, err)
	}
	r := w.ask(t)
	if r.State != "asked" || len(r.Digest) != 32 || r.Grant != "" || r.ApprovalsNeeded != 1 || r.FullName != "ANA" {
		t.Errorf("asked: %v", r)
	}
	if n := len(w.held(t, "db1").Grants); n != 0 {
		t.Errorf("%d grants before the approval", n)
	}
	for p, n := range map[*person]int{w.ana: 0, w.ben: 1, w.cy: 1, w.eve: 0} {
		l, err := p.ListRequests(ctx, &api.ListRequestsRequest{ForApproval: true})
		if err != nil || len(l.Requests) != n {
			t.Errorf("%s has %d to decide on, %v", p.name, len(l.GetRequests()), err)
		}
	}
	asked := w.clock.Now().Wall
	w.clock.pass(10*time.Minute + 500*time.Millisecond)
	r, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t), Note: "go on"})
	must(t, err)
	approved := w.clock.Now().Wall
	if r.State != "issued" || !r.NotBefore.AsTime().Equal(approved.Truncate(time.Second)) || r.NotAfter.AsTime().Sub(r.NotBefore.AsTime()) != time.Hour {
		t.Errorf("the clock starts at the approval: asked %v, approved %v, %v", asked, approved, r)
	}
	o := w.held(t, "db1")
	if len(o.Grants) != 1 || o.Grants[0].ID != r.Grant || !bytes.Equal(o.Grants[0].Digest, r.Digest) || o.Grants[0].Approvals[0].Person != "ben" {
		t.Fatalf("db1 holds %+v", o)
	}
	if len(w.held(t, "db2").Grants)+len(w.held(t, "web1").Grants) != 0 {
		t.Error("another host holds it too")
	}
	w.hostReports(t, r, approved)
	w.clock.pass(time.Hour)
	must(t, w.server.Due(ctx))
	if r, err = w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Grant}); err != nil || r.State != "ended" || r.HostStates[0].State != "removed" ||
		len(r.HostStates[0].Leftovers) != 1 {
		t.Errorf("at the end: %v, %v", r, err)
	}
	if n := len(w.held(t, "db1").Grants); n != 0 {
		t.Errorf("%d grants after the end", n)
	}
	tl, err := w.ben.Timeline(ctx, &api.TimelineRequest{Grant: r.Grant})
	must(t, err)
	var told []string
	for _, m := range tl.Moments {
		told = append(told, m.What)
	}
	if got := strings.Join(told, " "); got != "asked mfa mfa approved signed sent installed exec removed ended leftovers" {
		t.Errorf("timeline: %s", got)
	}
	for _, m := range tl.Moments {
		if m.What == "installed" && m.Took.AsDuration() != 300*time.Millisecond {
			t.Errorf("installed after %v", m.Took.AsDuration())
		}
		if m.What == "removed" && (!m.Event.Receipt.SignatureValid || len(m.Event.Receipt.Left) != 0) {
			t.Errorf("receipt: %v", m.Event.Receipt)
		}
		if m.What == "leftovers" {
			checkLeftovers(t, m)
		}
	}
}

func checkLeftovers(t *testing.T, m *api.Moment) {
	t.Helper()
	r := m.Event.Receipt
	if m.Took.AsDuration() != 5*time.Second || !r.SignatureValid || len(r.Removed) != 1 || len(r.Left) != 1 || len(r.Looked) != 1 || len(r.Skipped) != 1 {
		t.Errorf("leftovers: %v after %v", r, m.Took.AsDuration())
	}
}

// hostReports is what db1 would send of the grant's life.
func (w *world) hostReports(t *testing.T, r *api.Request, from time.Time) {
	t.Helper()
	end := r.NotAfter.AsTime()
	must(t, w.store.Applied(t.Context(), "db1", roster.Report{Revision: 2}, from.Add(100*time.Millisecond)))
	receipt := ledger.Receipt{Fleet: "lab", Host: "db1", Grant: r.Grant, Person: "ana", Why: "time", EndedAt: end, DoneAt: end.Add(200 * time.Millisecond)}
	left := ledger.LeftoversReceipt{
		Fleet: "lab", Host: "db1", Grant: r.Grant, Person: "ana", Since: from, DoneAt: end.Add(5 * time.Second),
		Removed: []string{"setuid /tmp/sh"}, Left: []string{"authorized-keys /root/.ssh/authorized_keys"}, Looked: []string{"/"}, Skipped: []string{"/mnt"},
	}
	var records []roster.Record
	for i, e := range []ledger.Entry{
		{Kind: ledger.Installed, At: from.Add(300 * time.Millisecond)},
		{Kind: ledger.Exec, At: from.Add(time.Minute), Process: &ledger.Process{Argv: []string{"systemctl", "restart", "cron"}}},
		{Kind: ledger.Removed, At: end.Add(200 * time.Millisecond), Receipt: receipt.Seal(w.hostKey)},
		{Kind: ledger.Leftovers, At: end.Add(5 * time.Second), Took: 5 * time.Second, Receipt: left.Seal(w.hostKey)},
	} {
		e.Host, e.Grant, e.Person = "db1", r.Grant, "ana"
		records = append(records, roster.Record{Seq: uint64(i + 1), Entry: e.Bytes()})
	}
	seal := ledger.Seal{Fleet: "lab", Host: "db1", Number: 1}
	for _, r := range records {
		seal.Digests = append(seal.Digests, ledger.EntryDigest(r.Entry))
	}
	sealed := ledger.Entry{Kind: ledger.Sealed, At: end, Host: "db1", Receipt: seal.Sign(w.hostKey)}
	records = append(records, roster.Record{Seq: uint64(len(records) + 1), Entry: sealed.Bytes()})
	_, err := w.store.KeepRecords(t.Context(), "db1", "o", records)
	must(t, err)
}

func TestWhatIsAskedWrongIsRefused(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name  string
		alter func(*api.CreateRequestRequest)
		code  connect.Code
		text  string
	}{
		{"no reason", func(m *api.CreateRequestRequest) { m.Reason = "" }, connect.CodeInvalidArgument, "why"},
		{"too long", func(m *api.CreateRequestRequest) { m.Duration = durationpb.New(3 * time.Hour) }, connect.CodeInvalidArgument, "2h"},
		{"for no time", func(m *api.CreateRequestRequest) { m.Duration = nil }, connect.CodeInvalidArgument, "how long"},
		{"for zero", func(m *api.CreateRequestRequest) { m.Duration = durationpb.New(0) }, connect.CodeInvalidArgument, "how long"},
		{"negative", func(m *api.CreateRequestRequest) { m.Duration = durationpb.New(-time.Hour) }, connect.CodeInvalidArgument, "how long"},
		{"overflow", func(m *api.CreateRequestRequest) { m.Duration = &durationpb.Duration{Seconds: 1 << 62} }, connect.CodeInvalidArgument, "how long"},
		{"half a second", func(m *api.CreateRequestRequest) { m.Duration = durationpb.New(time.Second / 2) }, connect.CodeInvalidArgument, "how long"},
		{"host outside the selector", func(m *api.CreateRequestRequest) { m.Hosts = []string{"web1"} }, connect.CodeInvalidArgument, "tier=db"},
		{"no host", func(m *api.CreateRequestRequest) { m.Hosts = nil }, connect.CodeInvalidArgument, "which hosts"},
		{"unknown host", func(m *api.CreateRequestRequest) { m.Hosts = []string{"db9"} }, connect.CodeInvalidArgument, "db9"},
		{"hostile host", func(m *api.CreateRequestRequest) { m.Hosts = []string{"../x\n"} }, connect.CodeInvalidArgument, `"../x\n"`},
		{"another role", func(m *api.CreateRequestRequest) { m.Role = "root" }, connect.CodePermissionDenied, "root"},
		{"hostile role", func(m *api.CreateRequestRequest) { m.Role = "a\x00b" }, connect.CodeInvalidArgument, "role"},
		{"escape in the reason", func(m *api.CreateRequestRequest) { m.Reason = "a\x1b[31mb" }, connect.CodeInvalidArgument, "U+001B"},
		{"right-to-left in the reason", func(m *api.CreateRequestRequest) { m.Reason = "a\u202eb" }, connect.CodeInvalidArgument, "U+202E"},
		{"NUL in the reason", func(m *api.CreateRequestRequest) { m.Reason = "a\x00b" }, connect.CodeInvalidArgument, "U+0000"},
		{"long reason", func(m *api.CreateRequestRequest) { m.Reason = strings.Repeat("x", 501) }, connect.CodeInvalidArgument, "500"},
		{"1 MB reason", func(m *api.CreateRequestRequest) { m.Reason = strings.Repeat("x", 1<<20) }, connect.CodeUnknown, "1 MiB"},
		{"no code", func(m *api.CreateRequestRequest) { m.Code = "" }, connect.CodeUnauthenticated, "prove yourself for this"},
		{"wrong code", func(m *api.CreateRequestRequest) { m.Code = "000000" }, connect.CodePermissionDenied, "that code is not right"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := w.ana.CreateRequest(t.Context(), question(t, w.ana, c.alter))
			if c.code == connect.CodeUnknown {
				if err == nil || !strings.Contains(err.Error(), c.text) {
					t.Errorf("got %v", err)
				}
				return
			}
			refused(t, err, c.code, c.text)
		})
	}
	if l, err := w.ana.ListRequests(t.Context(), &api.ListRequestsRequest{All: true}); err != nil || len(l.Requests) != 0 {
		t.Errorf("kept all the same: %v, %v", l, err)
	}
	_, err := w.eve.CreateRequest(t.Context(), question(t, w.eve, same))
	refused(t, err, connect.CodePermissionDenied, "may not ask")
}

func TestMarkupIsCarriedAsItIs(t *testing.T) {
	w := newWorld(t)
	const reason = `<script>alert("x")</script> $(rm -rf /) ü ' --`
	r, err := w.ana.CreateRequest(t.Context(), question(t, w.ana, func(m *api.CreateRequestRequest) { m.Reason = reason }))
	if err != nil || r.Reason != reason {
		t.Errorf("%v, %v", r, err)
	}
}

func TestMistakesCostNoCode(t *testing.T) {
	w := newWorld(t)
	m := question(t, w.ana, func(m *api.CreateRequestRequest) { m.Hosts = []string{"web1"} })
	_, err := w.ana.CreateRequest(t.Context(), m)
	refused(t, err, connect.CodeInvalidArgument, "web1")
	m.Hosts = []string{"db1"}
	r, err := w.ana.CreateRequest(t.Context(), m)
	must(t, err)
	_, err = w.ana.CreateRequest(t.Context(), m)
	refused(t, err, connect.CodePermissionDenied, "used already")

	code := w.ben.fresh(t)
	_, err = w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: make([]byte, 32), Code: code})
	refused(t, err, connect.CodeFailedPrecondition, "not the request as you were shown it")
	_, err = w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: code})
	must(t, err)
}

func TestSameKeySameRequest(t *testing.T) {
	w := newWorld(t)
	m := question(t, w.ana, func(m *api.CreateRequestRequest) { m.Key = "k1" })
	first, err := w.ana.CreateRequest(t.Context(), m)
	must(t, err)
	again, err := w.ana.CreateRequest(t.Context(), m)
	if err != nil || again.Id != first.Id {
		t.Errorf("%v, %v", again, err)
	}
	m.Reason = "another"
	_, err = w.ana.CreateRequest(t.Context(), m)
	refused(t, err, connect.CodeAlreadyExists, "key")
}

func TestWhoApproves(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.ask(t)
	yes := func(p *person) error {
		_, err := p.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: p.fresh(t)})
		return err
	}
	refused(t, yes(w.ana), connect.CodePermissionDenied, "someone else has to approve it")
	refused(t, yes(w.eve), connect.CodeNotFound, "no such request")
	refused(t, yes(w.ada), connect.CodePermissionDenied, "not among the approvers")
	_, err := w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: "123"})
	refused(t, err, connect.CodePermissionDenied, "that code is not right")
	_, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ana.fresh(t)})
	refused(t, err, connect.CodePermissionDenied, "that code is not right")
	must(t, yes(w.ben))
	refused(t, yes(w.cy), connect.CodeFailedPrecondition, "approved already")
	refused(t, yes(w.ben), connect.CodeFailedPrecondition, "approved already")
}

func TestApproverIsNoApproverOfHerOwn(t *testing.T) {
	w := newWorld(t)
	r, err := w.cy.CreateRequest(t.Context(), question(t, w.cy, same))
	must(t, err)
	_, err = w.cy.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.cy.fresh(t)})
	refused(t, err, connect.CodePermissionDenied, "someone else")
	if len(r.Approvers) != 1 || r.Approvers[0] != "ben" {
		t.Errorf("approvers shown: %v", r.Approvers)
	}
}

func TestTwoApprovals(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.rules.change(func() { w.rules.needed = 2 })
	r := w.ask(t)
	r, err := w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	if err != nil || r.State != "asked" || len(r.Approvals) != 1 {
		t.Fatalf("after one: %v, %v", r, err)
	}
	_, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	refused(t, err, connect.CodeFailedPrecondition, "you approved this request already")
	r, err = w.cy.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.cy.fresh(t)})
	if err != nil || r.State != "issued" || len(w.held(t, "db1").Grants[0].Approvals) != 2 {
		t.Errorf("after two: %v, %v", r, err)
	}
}

func TestFirstApproverLosesTheRight(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.rules.change(func() { w.rules.needed, w.rules.approvers = 2, []string{"ben", "cy", "ada"} })
	r := w.ask(t)
	_, err := w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	must(t, err)
	w.rules.change(func() { w.rules.approvers = []string{"cy", "ada"} })
	r, err = w.cy.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.cy.fresh(t)})
	if err != nil || r.State != "asked" {
		t.Errorf("ben's word still counted: %v, %v", r, err)
	}
	r, err = w.ada.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ada.fresh(t)})
	if err != nil || r.State != "issued" || len(w.held(t, "db1").Grants[0].Approvals) != 2 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestPolicyChangesMeanwhile(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*rules)
		code   connect.Code
		text   string
	}{
		{"not eligible any more", func(r *rules) { r.eligible = nil }, connect.CodeFailedPrecondition, "not allow this request any more"},
		{"role gives more", func(r *rules) { r.role.Commands = nil; r.role.AnyCommand = true }, connect.CodeFailedPrecondition, "has changed"},
		{"approver no more", func(r *rules) { r.approvers = []string{"cy"} }, connect.CodeNotFound, "no such request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			r := w.ask(t)
			w.rules.change(func() { c.change(w.rules) })
			_, err := w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
			refused(t, err, c.code, c.text)
			if len(w.held(t, "db1").Grants) != 0 {
				t.Error("a grant all the same")
			}
		})
	}
}

// Of each grant the record says which version of the policy gave it: another one
// than it was asked under, if that still gave it.
func TestTheRecordSaysWhichPolicyGaveAGrant(t *testing.T) {
	w := newWorld(t)
	r := w.ask(t)
	w.rules.change(func() { w.rules.version = "v2" })
	r, err := w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	must(t, err)
	events, err := w.store.Events(t.Context(), roster.Search{Grant: r.Grant, Kind: ledger.Decision.String(), Limit: 100})
	must(t, err)
	if !slices.ContainsFunc(events, func(e roster.Event) bool {
		return e.Entry.Step == roster.SignedStep && strings.HasSuffix(e.Entry.Text, ", by policy v2")
	}) {
		t.Errorf("%v", events)
	}
	kept, err := w.store.Request(t.Context(), r.Id)
	if err != nil || kept.Policy != "v1" {
		t.Errorf("it was asked under %q, %v", kept.Policy, err)
	}
}

func TestEligibilityEndsDuringTheGrant(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.issued(t)
	must(t, w.server.Recheck(ctx))
	if n := len(w.held(t, "db1").Grants); n != 1 {
		t.Fatalf("nothing has changed, and db1 holds %d", n)
	}
	w.rules.change(func() { w.rules.eligible = nil })
	must(t, w.server.Recheck(ctx))
	r, err := w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id})
	if err != nil || r.State != "revoked" || !strings.Contains(r.DecisionNote, "no longer eligible") || len(w.held(t, "db1").Grants) != 0 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestNeedsNobody(t *testing.T) {
	w := newWorld(t)
	w.rules.change(func() { w.rules.needed = 0 })
	if r := w.ask(t); r.State != "issued" || len(w.held(t, "db1").Grants) != 1 {
		t.Errorf("%v", r)
	}
}

func TestLapsed(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.ask(t)
	w.clock.pass(time.Hour)
	_, err := w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	refused(t, err, connect.CodeFailedPrecondition, "lapsed")
	must(t, w.server.Due(ctx))
	if r, err = w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id}); err != nil || r.State != "lapsed" {
		t.Errorf("%v, %v", r, err)
	}
}

func TestOtherEnds(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.ask(t)
	_, err := w.ben.Withdraw(ctx, &api.WithdrawRequest{Id: r.Id})
	refused(t, err, connect.CodePermissionDenied, "only ana")
	_, err = w.ana.Deny(ctx, &api.DenyRequest{Id: r.Id})
	refused(t, err, connect.CodePermissionDenied, "withdraw")
	_, err = w.ben.Revoke(ctx, &api.RevokeRequest{Grant: r.Id})
	refused(t, err, connect.CodeFailedPrecondition, "not approved yet")
	if r, err := w.ana.Withdraw(ctx, &api.WithdrawRequest{Id: r.Id}); err != nil || r.State != "withdrawn" {
		t.Errorf("%v, %v", r, err)
	}
	r = w.ask(t)
	if r, err := w.ben.Deny(ctx, &api.DenyRequest{Id: r.Id, Note: "not now"}); err != nil || r.State != "denied" || r.DecidedBy != "ben" || r.DecisionNote != "not now" {
		t.Errorf("%v, %v", r, err)
	}
	_, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	refused(t, err, connect.CodeFailedPrecondition, "denied by ben")
	for _, p := range []*person{w.ana, w.ben, w.cy, w.ada} {
		r := w.issued(t)
		_, err := w.eve.Revoke(ctx, &api.RevokeRequest{Grant: r.Grant})
		refused(t, err, connect.CodeNotFound, "no such request")
		if r, err := p.Revoke(ctx, &api.RevokeRequest{Grant: r.Grant, Note: "enough"}); err != nil || r.State != "revoked" || r.EndedAt == nil {
			t.Errorf("%s: %v, %v", p.name, r, err)
		}
		if len(w.held(t, "db1").Grants) != 0 {
			t.Error("the grant stands after its revocation")
		}
		_, err = p.Revoke(ctx, &api.RevokeRequest{Grant: r.Grant})
		refused(t, err, connect.CodeFailedPrecondition, "over")
	}
}

// The last day of an eligibility ends no grant that was given on it, whenever
// the policy is looked at again; a policy that moves that day before the grant
// does.
func TestGrantOfTheLastDay(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.issued(t)
	for _, c := range []struct {
		until time.Duration // after the grant was issued
		want  string
	}{{time.Minute, "issued"}, {-time.Minute, "revoked"}} {
		w.rules.mu.Lock()
		w.rules.until = r.NotBefore.AsTime().Add(c.until)
		w.rules.mu.Unlock()
		w.clock.pass(5 * time.Minute)
		must(t, w.server.Recheck(ctx))
		if got, err := w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id}); err != nil || got.State != c.want {
			t.Errorf("until %v: %v, %v", c.until, got, err)
		}
	}
}

func TestRaceOfDecisions(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	for range 5 {
		r := w.ask(t)
		bens, cys := w.ben.fresh(t), w.cy.code(t)
		var mu sync.Mutex
		var won []string
		var wg sync.WaitGroup
		for what, f := range map[string]func() (*api.Request, error){
			"ben approves": func() (*api.Request, error) {
				return w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: bens})
			},
			"cy approves": func() (*api.Request, error) {
				return w.cy.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: cys})
			},
			"cy denies":     func() (*api.Request, error) { return w.cy.Deny(ctx, &api.DenyRequest{Id: r.Id}) },
			"ana withdraws": func() (*api.Request, error) { return w.ana.Withdraw(ctx, &api.WithdrawRequest{Id: r.Id}) },
		} {
			wg.Go(func() {
				if _, err := f(); err == nil {
					mu.Lock()
					won = append(won, what)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("won: %v", won)
		}
	}
}
