package api_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// Who waits is told why nobody is on call, and the record says of an approval
// that its giver was.
func TestWhoWasOnCallIsOnRecord(t *testing.T) {
	w := newWorld(t)
	r := w.ask(t)
	w.rules.change(func() { w.rules.nobody = "group oncall: nobody is on call: it is silent" })
	seen, err := w.ana.GetRequest(t.Context(), &api.GetRequestRequest{Id: r.Id})
	must(t, err)
	if seen.WaitsFor != "group oncall: nobody is on call: it is silent" || len(seen.Approvers) != 0 {
		t.Errorf("it waits for %q, %v", seen.WaitsFor, seen.Approvers)
	}
	_, err = w.ben.yes(t, r, "")
	refused(t, err, connect.CodeFailedPrecondition, "nobody could approve it (group oncall: nobody is on call: it is silent)")
	w.rules.change(func() {
		w.rules.nobody, w.rules.onCall = "", map[string]string{"ben": "on call in oncall until 2026-03-02 09:00 UTC"}
	})
	done, err := w.ben.yes(t, r, "")
	must(t, err)
	if done.State != "issued" {
		t.Fatal(done)
	}
	events, err := w.ada.SearchEvents(t.Context(), &api.SearchEventsRequest{Kind: "decision", Limit: 100})
	must(t, err)
	if !slices.ContainsFunc(events.Events, func(e *api.Event) bool {
		return e.Person == "ben" && strings.Contains(e.Text, "(on call in oncall until 2026-03-02 09:00 UTC)")
	}) {
		t.Errorf("no decision says that ben was on call: %v", events.Events)
	}
}

// A shell that waits says why as well, and goes on to wait.
func TestAWaitingShellIsToldWhyNobodyIsOnCall(t *testing.T) {
	w, s := inPlace(t)
	told := make(chan roster.Told, 10)
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Ask(ctx, w.shell(t, func(*roster.Wish) {}), func(now roster.Told) error { told <- now; return nil })
	}()
	first := <-told
	w.rules.change(func() { w.rules.nobody = "group oncall: nobody is on call: it is silent" })
	_, err := w.ana.Comment(t.Context(), &api.CommentRequest{Id: first.ID, Text: "is anybody there?"})
	must(t, err)
	for now := first; now.WaitsFor != "group oncall: nobody is on call: it is silent"; {
		select {
		case now = <-told:
		case err := <-done:
			t.Fatal(err)
		}
		if now.State != "asked" {
			t.Fatalf("%+v", now)
		}
	}
	leave()
	if err := <-done; err == nil {
		t.Error("whoever left was answered")
	}
}
