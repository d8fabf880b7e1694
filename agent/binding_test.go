package agent_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"curfew.internal/agent"
	"curfew.internal/agent/enforce"
	"curfew.internal/grant"
)

// slow is a host on which each change takes a second.
type slow struct{ halfSeen }

func (h *slow) Apply(ctx context.Context, s enforce.Step) error {
	<-time.After(time.Second)
	return h.halfSeen.Apply(ctx, s)
}

// Root can put any number of things among ours: they cost other people's ends
// nothing, and go in time.
func TestWhatNoGrantGaveLeavesTimeForEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rule := enforce.Thing{Kind: enforce.SudoRule, Name: "g-x"}
		h := &slow{halfSeen{seen: enforce.State{rule: "r"}}}
		for i := range 100 {
			h.seen[enforce.Thing{Kind: enforce.Network, Name: fmt.Sprintf("a%d", i)}] = "n"
			h.seen[enforce.Thing{Kind: enforce.SudoRule, Name: fmt.Sprintf("a%d", i)}] = "r"
		}
		m := &memory{at: noon, opened: map[string]agent.Opened{"g-x": {Grant: "g-x", Person: "ana", UID: grant.UIDMin, NotAfter: noon}}}
		a := agentOf(t, h, m)
		a.Clock = bubble{time.Now()}
		began := time.Now()
		_, err := a.Pass(t.Context(), true)
		took := time.Since(began)
		if _, there := h.seen[rule]; there || took > 20*time.Second || err == nil || !strings.Contains(err.Error(), "no grant calls for") {
			t.Errorf("there %v after %v: %v", there, took, err)
		}
		if n := len(m.receipts(t, a.ReceiptKey)); n != 1 {
			t.Errorf("%d receipts", n)
		}
		for range 100 {
			if _, err = a.Pass(t.Context(), true); err == nil {
				break
			}
		}
		if err != nil || len(h.seen) > 0 {
			t.Errorf("%v: %d things are left", err, len(h.seen))
		}
	})
}
