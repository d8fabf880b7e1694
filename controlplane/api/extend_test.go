package api_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/wire/api"
)

func TestExtend(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	first := w.issued(t)
	w.clock.pass(30 * time.Minute)
	_, err := w.ben.Extend(ctx, &api.ExtendRequest{Grant: first.Grant, Duration: durationpb.New(time.Hour), Code: w.ben.fresh(t)})
	refused(t, err, connect.CodePermissionDenied, "only ana")
	r, err := w.ana.Extend(ctx, &api.ExtendRequest{Grant: first.Grant, Duration: durationpb.New(time.Hour), Code: w.ana.fresh(t)})
	if err != nil || r.State != "asked" || r.Extends != first.Grant || r.Reason != "disk full" {
		t.Fatalf("%v, %v", r, err)
	}
	r, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	if err != nil || !r.NotAfter.AsTime().Equal(first.NotAfter.AsTime().Add(time.Hour)) || r.Grant == first.Grant {
		t.Errorf("%v, %v", r, err)
	}
	if n := len(w.held(t, "db1").Grants); n != 2 {
		t.Errorf("db1 holds %d", n)
	}
}

// However often it is extended, a grant reaches no further from now than the
// role's longest.
func TestExtensionReachesNoFurtherThanTheLongestGrant(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	first := w.issued(t)
	const longest = 2 * time.Hour // of the rules of this test
	w.clock.pass(30 * time.Minute)
	left := first.NotAfter.AsTime().Sub(first.NotBefore.AsTime()) - 30*time.Minute
	_, err := w.ana.Extend(ctx, &api.ExtendRequest{Grant: first.Grant, Duration: durationpb.New(longest - left + 5*time.Minute), Code: w.ana.fresh(t)})
	refused(t, err, connect.CodeInvalidArgument, "up to 2h")
	if _, err := w.ana.Extend(ctx, &api.ExtendRequest{Grant: first.Grant, Duration: durationpb.New(longest - left - 5*time.Minute), Code: w.ana.fresh(t)}); err != nil {
		t.Error(err)
	}
}

// Who revokes a grant wants its person out.
func TestRevocationTakesExtensionsAlong(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	first := w.issued(t)
	w.clock.pass(30 * time.Minute)
	last := first
	for range 2 {
		r, err := w.ana.Extend(ctx, &api.ExtendRequest{Grant: last.Grant, Duration: durationpb.New(time.Minute), Code: w.ana.fresh(t)})
		must(t, err)
		last, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
		must(t, err)
		w.clock.pass(time.Minute)
	}
	if n := len(w.held(t, "db1").Grants); n != 3 {
		t.Fatalf("db1 holds %d", n)
	}
	_, err := w.eve.Revoke(ctx, &api.RevokeRequest{Grant: first.Grant})
	if err == nil || len(w.held(t, "db1").Grants) != 3 {
		t.Errorf("eve revoked: %v", err)
	}
	if r, err := w.ben.Revoke(ctx, &api.RevokeRequest{Grant: first.Grant, Note: "enough"}); err != nil || r.State != "revoked" {
		t.Errorf("%v, %v", r, err)
	}
	if n := len(w.held(t, "db1").Grants); n != 0 {
		t.Errorf("db1 holds %d", n)
	}
}

// A revocation and the approval of an extension, at once or one after the
// other, leave nothing that stands.
func TestNoExtensionOutlivesARevocation(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	for round := range 12 {
		first := w.issued(t)
		r, err := w.ana.Extend(ctx, &api.ExtendRequest{Grant: first.Grant, Duration: durationpb.New(time.Hour), Code: w.ana.fresh(t)})
		must(t, err)
		approve := &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)}
		var both sync.WaitGroup
		var approved error
		if round > 0 {
			both.Go(func() { _, approved = w.ben.Approve(ctx, approve) })
		}
		_, err = w.ada.Revoke(ctx, &api.RevokeRequest{Grant: first.Grant, Note: "stolen laptop"})
		must(t, err)
		both.Wait()
		if round == 0 {
			_, approved = w.ben.Approve(ctx, approve)
			refused(t, approved, connect.CodeFailedPrecondition, "denied by ada")
		}
		if n := len(w.held(t, "db1").Grants); n != 0 {
			t.Errorf("round %d, approval %v: db1 holds %d", round, approved, n)
		}
		got, err := w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id})
		if err != nil || got.State != "denied" && got.State != "revoked" || !strings.Contains(got.DecisionNote, first.Grant) || !strings.Contains(got.DecisionNote, "stolen laptop") {
			t.Errorf("%v, %v", got, err)
		}
	}
}

func TestExtensionApprovedTooLate(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	first := w.issued(t)
	w.clock.pass(50 * time.Minute)
	r, err := w.ana.Extend(ctx, &api.ExtendRequest{Grant: first.Grant, Duration: durationpb.New(time.Hour), Code: w.ana.fresh(t)})
	must(t, err)
	w.clock.pass(20 * time.Minute)
	must(t, w.server.Due(ctx))
	_, err = w.ana.Extend(ctx, &api.ExtendRequest{Grant: first.Grant, Duration: durationpb.New(time.Hour), Code: w.ana.fresh(t)})
	refused(t, err, connect.CodeFailedPrecondition, "new request")
	r, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	if err != nil || r.NotAfter.AsTime().Sub(r.NotBefore.AsTime()) != time.Hour || r.NotBefore.AsTime().Before(first.NotAfter.AsTime()) {
		t.Errorf("a new grant from the approval on: %v, %v", r, err)
	}
}
