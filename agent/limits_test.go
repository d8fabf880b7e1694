package agent

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"curfew.internal/agent/enforce"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// timerless is a host on which somebody sees to it that no end timer can be put.
type timerless struct {
	fakeHost
	now *bool
}

func (h timerless) Apply(ctx context.Context, s enforce.Step) error {
	if *h.now && s.Thing.Kind == enforce.EndTimer && s.Op == enforce.Put {
		return errors.New("there is a unit of this name")
	}
	return h.fakeHost.Apply(ctx, s)
}

// Whoever breaks one of her things for good is not rid of what limits her.
func TestWhatLimitsHerIsPutRightWhateverElseFails(t *testing.T) {
	w := newWorld()
	g := held("g-a", "ana", 0, time.Hour)
	g.Role.Network = []grant.Destination{{Protocol: "tcp", Net: netip.MustParsePrefix("10.0.0.0/8"), Port: 5432}}
	w.offered.Grants = []grant.Grant{g}
	a, broken := w.agent(t), false
	a.Host = timerless{fakeHost{w}, &broken}
	if _, err := a.Pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	broken = true
	limits := 0
	for thing := range w.things {
		if thing.Kind == enforce.EndTimer {
			w.things[thing] = "spoiled"
		}
		if thing.Kind == enforce.Network {
			limits++
			delete(w.things, thing)
		}
	}
	before := len(w.entries)
	if _, err := a.Pass(t.Context(), true); err == nil {
		t.Error("the timer cannot be put, and nothing is said")
	}
	for thing := range w.things {
		if thing.Kind == enforce.Network {
			limits--
		}
	}
	if limits != 0 || len(w.entries) == before || w.entries[before].Kind != ledger.Drift {
		t.Errorf("%d limits are missing; recorded: %+v", limits, w.entries[before:])
	}
}
