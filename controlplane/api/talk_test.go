package api_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/wire/api"
)

func TestApprovedForLess(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.rules.change(func() { w.rules.needed = 2 })
	r, err := w.ana.CreateRequest(ctx, question(t, w.ana, func(m *api.CreateRequestRequest) { m.Hosts = []string{"db1", "db2"} }))
	must(t, err)
	approve := func(p *person, minutes int, hosts ...string) (*api.Request, error) {
		return p.Approve(ctx, &api.ApproveRequest{
			Id: r.Id, Digest: r.Digest, Code: p.fresh(t), Duration: durationpb.New(time.Duration(minutes) * time.Minute), Hosts: hosts,
		})
	}
	_, err = approve(w.ben, 61)
	refused(t, err, connect.CodeInvalidArgument, "more than the 1h0m0s that was asked for")
	_, err = approve(w.ben, 60, "web1")
	refused(t, err, connect.CodeInvalidArgument, "was not asked for")
	got, err := approve(w.ben, 60, "db2", "db1") // all of it
	if err != nil || got.Approvals[0].Duration != nil || len(got.Approvals[0].Hosts) > 0 {
		t.Fatalf("%v, %v", got, err)
	}
	got, err = approve(w.cy, 20, "db2")
	must(t, err)
	if d := got.NotAfter.AsTime().Sub(got.NotBefore.AsTime()); got.State != "issued" || d != 20*time.Minute || len(got.HostStates) != 1 || got.HostStates[0].Host != "db2" {
		t.Errorf("%v", got)
	}
	if n := len(w.held(t, "db1").Grants); n != 0 {
		t.Errorf("db1, which was left out, holds %d", n)
	}
	held := w.held(t, "db2").Grants
	if len(held) != 1 || !slices.Equal(held[0].Hosts, []string{"db2"}) || !held[0].NotAfter.Equal(got.NotAfter.AsTime()) {
		t.Errorf("%v", held)
	}
	if _, err := w.ana.IssueSSHCertificate(ctx, &api.IssueSSHCertificateRequest{Host: "db1", PublicKey: "x"}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a login on db1: %v", err)
	}
	// What goes on from it goes on there alone.
	more, err := w.ana.Extend(ctx, &api.ExtendRequest{Grant: got.Grant, Duration: durationpb.New(time.Minute), Code: w.ana.fresh(t)})
	if err != nil || !slices.Equal(more.Hosts, []string{"db2"}) {
		t.Errorf("%v, %v", more, err)
	}
}

func TestApprovalsThatLeaveNothingAreRefused(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.rules.change(func() { w.rules.needed = 2 })
	r, err := w.ana.CreateRequest(ctx, question(t, w.ana, func(m *api.CreateRequestRequest) { m.Hosts = []string{"db1", "db2"} }))
	must(t, err)
	_, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t), Hosts: []string{"db1"}})
	must(t, err)
	_, err = w.cy.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.cy.fresh(t), Hosts: []string{"db2"}})
	refused(t, err, connect.CodeFailedPrecondition, "none would be left")
}

func TestRemarks(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.ask(t)
	say := func(p *person, text string) (*api.Request, error) {
		return p.Comment(ctx, &api.CommentRequest{Id: r.Id, Text: text})
	}
	_, err := say(w.ben, "which disk?")
	must(t, err)
	got, err := say(w.ana, "<b>sda</b>")
	must(t, err)
	if len(got.Remarks) != 2 || got.Remarks[0].Person != "ben" || got.Remarks[1].Text != "<b>sda</b>" || !slices.Equal(got.Digest, r.Digest) {
		t.Errorf("%v", got)
	}
	for name, c := range map[string]struct {
		who  *person
		text string
		code connect.Code
	}{
		"who may not see it":     {w.eve, "hello", connect.CodeNotFound},
		"nothing":                {w.ben, " ", connect.CodeInvalidArgument},
		"what hides":             {w.ben, "a\u202eb", connect.CodeInvalidArgument},
		"more than can be shown": {w.ben, strings.Repeat("x", 501), connect.CodeInvalidArgument},
	} {
		if _, err := say(c.who, c.text); connect.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = w.ana.Withdraw(ctx, &api.WithdrawRequest{Id: r.Id})
	must(t, err)
	_, err = say(w.ben, "too late")
	refused(t, err, connect.CodeFailedPrecondition, "this request is over")
	if all, err := w.ben.Timeline(ctx, &api.TimelineRequest{Grant: r.Id}); err != nil || !slices.ContainsFunc(all.Moments, func(m *api.Moment) bool { return m.What == "said" && m.Text == "which disk?" }) {
		t.Errorf("%v, %v", all, err)
	}
}

// Whoever comes at once, a request has one end, and every one of them is told
// that end: as what she did, or as why it could not be done.
func TestARequestHasOneEnd(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	for range 8 {
		r := w.ask(t)
		w.clock.pass(30 * time.Second)
		codes := map[*person]string{w.ben: w.ben.code(t), w.cy: w.cy.code(t)}
		approve := func(p *person) func() error {
			return func() error {
				_, err := p.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: codes[p]})
				return err
			}
		}
		ends := map[string]func() error{
			"approved by ben": approve(w.ben),
			"approved by cy":  approve(w.cy),
			"denied":          func() error { _, err := w.ben.Deny(ctx, &api.DenyRequest{Id: r.Id}); return err },
			"withdrawn":       func() error { _, err := w.ana.Withdraw(ctx, &api.WithdrawRequest{Id: r.Id}); return err },
			"time":            func() error { return w.server.Due(ctx) }, // which has nothing to end yet
		}
		var mu sync.Mutex
		var did, not []string
		var all sync.WaitGroup
		for name, end := range ends {
			all.Go(func() {
				err := end()
				mu.Lock()
				defer mu.Unlock()
				switch {
				case name == "time":
					if err != nil {
						t.Error(err)
					}
				case err == nil:
					did = append(did, name)
				case connect.CodeOf(err) == connect.CodeFailedPrecondition:
					not = append(not, err.Error())
				default:
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		all.Wait()
		if len(did) != 1 || len(not) != 3 {
			t.Fatalf("done: %q; told: %q", did, not)
		}
		word, _, _ := strings.Cut(did[0], " ")
		for _, n := range not {
			if !strings.Contains(n, "was "+word) {
				t.Errorf("%q is told to one, %s happened", n, did[0])
			}
		}
		got, err := w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id})
		must(t, err)
		if want := map[string]string{"approved": "issued", "denied": "denied", "withdrawn": "withdrawn"}[word]; got.State != want || (got.Grant != "") != (want == "issued") {
			t.Errorf("%s, and it is %s", did[0], got.State)
		}
		if got.Grant != "" {
			_, err := w.ben.Revoke(ctx, &api.RevokeRequest{Grant: got.Grant})
			must(t, err)
		}
	}
}

// At the second at which it lapses, an approval comes too late, whoever looks
// first.
func TestWhatHasLapsedIsApprovedByNobody(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.ask(t)
	w.clock.pass(time.Hour)
	var all sync.WaitGroup
	all.Go(func() {
		if err := w.server.Due(ctx); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() {
		_, err := w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.code(t)})
		refused(t, err, connect.CodeFailedPrecondition, "has lapsed")
	})
	all.Wait()
	if got, err := w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id}); err != nil || got.State != "lapsed" {
		t.Errorf("%v, %v", got, err)
	}
	if len(w.held(t, "db1").Grants) > 0 {
		t.Error("it was granted")
	}
}
