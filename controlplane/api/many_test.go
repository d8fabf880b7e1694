package api_test

import (
	"fmt"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// However many others have something, nobody's own requests are hidden behind
// theirs, nor those that wait for her.
func TestNothingHidesBehindOthersRequests(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.ask(t)
	now := w.clock.Now().Wall.Add(time.Second)
	for n := range 500 {
		other := roster.Request{
			ID: fmt.Sprintf("r-%016d", n), Person: "eve", State: "asked", Digest: r.Digest, AskedAt: now, LapsesAt: now.Add(time.Hour),
			Asked: roster.Asked{Role: "other", Hosts: []string{"web1"}, Duration: time.Hour, Reason: "disk full", Factor: "totp", Needed: 1},
		}
		_, err := w.store.Ask(ctx, other, now, roster.Change{})
		must(t, err)
	}
	for p, m := range map[*person]*api.ListRequestsRequest{w.ana: {}, w.ben: {ForApproval: true}} {
		l, err := p.ListRequests(ctx, m)
		must(t, err)
		if len(l.Requests) != 1 || l.Requests[0].Id != r.Id {
			t.Errorf("%s sees %d requests", p.name, len(l.Requests))
		}
	}
}
