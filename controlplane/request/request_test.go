package request

import (
	"testing"

	"pgregory.net/rapid"
)

var states = []State{Asked, Issued, Denied, Withdrawn, Lapsed, Ended, Revoked}

func TestEveryStateIsInTheTable(t *testing.T) {
	if len(moves) != len(states) {
		t.Errorf("%d states in the table, %d named", len(moves), len(states))
	}
	for _, s := range states {
		if _, ok := moves[s]; !ok {
			t.Errorf("%s is not in the table", s)
		}
	}
	for _, m := range Moves() {
		if _, ok := moves[m[1]]; !ok {
			t.Errorf("%s leads to %s, which is no state", m[0], m[1])
		}
	}
}

// Whatever is tried in whatever order, a life has one end, and nothing
// happens after it.
func TestALifeHasOneEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, over := Asked, State("")
		for _, to := range rapid.SliceOfN(rapid.SampledFrom(states), 0, 20).Draw(t, "tried") {
			if !May(now, to) {
				continue
			}
			if over != "" {
				t.Fatalf("%s after %s", to, over)
			}
			if now = to; Over(now) {
				over = now
			}
			if to == Asked {
				t.Fatal("a life began again")
			}
		}
	})
	if !Over("nonsense") || May("nonsense", Issued) {
		t.Error("a state that is not known can do something")
	}
}
