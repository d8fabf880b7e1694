package api_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"connectrpc.com/connect"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// next reads messages of a stream until one fits.
func next[T any](t *testing.T, s *connect.ServerStreamForClient[T], fits func(*T) bool) {
	t.Helper()
	for s.Receive() {
		if fits(s.Msg()) {
			return
		}
	}
	t.Fatalf("the stream ended: %v", s.Err())
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := w.ask(t)
	s, err := w.ana.WatchRequest(ctx, &api.GetRequestRequest{Id: r.Id})
	must(t, err)
	defer s.Close()
	state := func(want string) func(*api.Request) bool {
		return func(r *api.Request) bool { return r.State == want }
	}
	next(t, s, state("asked"))
	r, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	must(t, err)
	next(t, s, state("issued"))
	w.hostReports(t, r, w.clock.Now().Wall)
	next(t, s, func(r *api.Request) bool { return r.HostStates[0].State == "removed" })
	_, err = w.ana.Revoke(ctx, &api.RevokeRequest{Grant: r.Grant})
	must(t, err)
	next(t, s, state("revoked"))
	if s.Receive() || s.Err() != nil {
		t.Errorf("after the end of its life: %v", s.Err())
	}
	no, err := w.eve.WatchRequest(ctx, &api.GetRequestRequest{Id: r.Id})
	must(t, err)
	defer no.Close()
	if no.Receive() {
		t.Error("eve watches")
	}
	refused(t, no.Err(), connect.CodeNotFound, "no such request")
}

func TestTail(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := w.issued(t)
	anas, err := w.ana.TailEvents(ctx, &api.SearchEventsRequest{Kind: "exec"})
	must(t, err)
	defer anas.Close()
	// It is there: what comes now is not missed, also by who asks from there again.
	last, err := w.store.LastEvent(ctx)
	must(t, err)
	if got := anas.ResponseHeader().Get(api.After); got != strconv.FormatUint(last, 10) {
		t.Errorf("it begins behind %q, not %d", got, last)
	}
	w.hostReports(t, r, w.clock.Now().Wall)
	next(t, anas, func(e *api.Event) bool { return e.Process.Argv[2] == "cron" && e.Role == "db-admin" })
	eves, err := w.eve.TailEvents(ctx, &api.SearchEventsRequest{Since: nil, After: 1})
	must(t, err)
	defer eves.Close()
	must(t, w.store.EndSession(ctx, roster.Session{ID: w.eve.session, Person: "eve"}, roster.SignedOut, noon))
	if eves.Receive() {
		t.Errorf("eve sees %v", eves.Msg())
	}
	refused(t, eves.Err(), connect.CodeUnauthenticated, "session is over")
}

// fleetEvents is what the making of a world leaves in the record: three hosts
// with a code each, five people with an invite, an enrolment and a session each,
// and the keyring.
const fleetEvents = 3*2 + 5*4 + 1

func TestSearchIsForThoseItIsFor(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.issued(t)
	w.hostReports(t, r, w.clock.Now().Wall)
	_, err := w.store.KeepRecords(ctx, "web1", "o", []roster.Record{{Seq: 1, Entry: ledger.Entry{Kind: ledger.Agent, At: noon, Host: "web1", Text: "started"}.Bytes()}})
	must(t, err)
	const decided = 5 // asked and approved, both with a factor, and signed
	for p, n := range map[*person]int{w.ana: 4 + decided, w.ben: 4 + decided, w.cy: 0, w.eve: 0, w.ada: 5 + decided + fleetEvents} {
		got, err := p.SearchEvents(ctx, &api.SearchEventsRequest{})
		if err != nil || len(got.Events) != n {
			t.Errorf("%s sees %d events, %v", p.name, len(got.GetEvents()), err)
		}
	}
	got, err := w.ben.SearchEvents(ctx, &api.SearchEventsRequest{Grant: r.Grant, Words: "cron RESTART", Limit: 1})
	if err != nil || len(got.Events) != 1 || got.Next == 0 {
		t.Errorf("%v, %v", got, err)
	}
	got, err = w.ben.SearchEvents(ctx, &api.SearchEventsRequest{Grant: r.Grant, After: got.Next, Kind: "exec", Limit: 1})
	if err != nil || len(got.Events) != 0 || got.Next != 0 {
		t.Errorf("the page after the last: %v, %v", got, err)
	}
	_, err = w.ben.SearchEvents(ctx, &api.SearchEventsRequest{Kind: "nonsense"})
	refused(t, err, connect.CodeInvalidArgument, "nonsense")
	_, err = w.ben.SearchEvents(ctx, &api.SearchEventsRequest{Limit: 5000})
	refused(t, err, connect.CodeInvalidArgument, "1000")
}
