package api_test

import (
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

func circles(all [][]string) string {
	var s []string
	for _, names := range all {
		if len(names) > 0 {
			s = append(s, strings.Join(names, " "))
		}
	}
	return strings.Join(s, " | ")
}

// Whose word a request waits for is as its page says, and nobody for one that does
// not wait, or cannot be decided on yet.
func TestAwaited(t *testing.T) {
	w := lending(t)
	w.rules.change(func() {
		w.rules.approvers, w.rules.needed = []string{"ben"}, 2
		w.rules.before = []roster.Step{{By: []string{"cy"}, Count: 1, After: 10 * time.Minute, Later: []string{"ada"}}}
	})
	r := w.ask(t)
	waits := func(when, want string) {
		t.Helper()
		all, err := w.store.Requests(t.Context(), true, 10)
		must(t, err)
		got, err := w.server.Awaited(t.Context(), all)
		if s := circles(got[r.Id]); err != nil || s != want {
			t.Errorf("%s it waits for %q and not %q, %v", when, s, want, err)
		}
	}
	waits("at first", "cy")
	w.cy.lend(t, "eve", 7)
	waits("while she is away", "cy eve")
	w.clock.pass(10 * time.Minute)
	waits("after its escalation", "cy eve | ada")
	w.ada.lend(t, "eve", 7)
	waits("while she to whom it goes on is away too", "cy eve | ada")
	now, err := w.eve.yes(t, r, "ada")
	must(t, err)
	waits("in its second step", "ben")
	_, err = w.ben.yes(t, now, "")
	must(t, err)
	waits("when it is issued", "")
	r = w.ask(t)
	waits("asked again", "cy eve")
	w.clock.pass(24 * time.Hour)
	waits("when it is over", "")
}

// Before its own person has signed, nobody can approve it.
func TestWhatIsNotSignedWaitsForNobodyElse(t *testing.T) {
	s := newSigning(t)
	must(t, s.publish(s.roster, append(s.owners, s.root)...))
	r := s.ask(t)
	waits := func(want string) {
		t.Helper()
		one, err := s.store.Request(t.Context(), r.Id)
		must(t, err)
		got, err := s.server.Awaited(t.Context(), []roster.Request{one})
		if s := circles(got[r.Id]); err != nil || s != want {
			t.Errorf("it waits for %q and not %q, %v", s, want, err)
		}
	}
	waits("")
	_, err := s.sign(r)
	must(t, err)
	v, err := s.ben.GetRequest(t.Context(), &api.GetRequestRequest{Id: r.Id})
	must(t, err)
	waits(strings.Join(v.Approvers, " "))
	if len(v.Approvers) == 0 {
		t.Error("it waits for nobody")
	}
}
