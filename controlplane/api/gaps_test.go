package api

import (
	"math"
	"testing"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

func TestNoTwoGapsMakeNone(t *testing.T) {
	lost := func(n uint64) roster.Event { return roster.Event{Entry: ledger.Entry{Kind: ledger.Gap, Lost: n}} }
	for _, c := range []struct {
		gaps gaps
		lost uint64
	}{
		{nil, 0},
		{gaps{lost(3), lost(4)}, 7},
		{gaps{lost(1 << 63), lost(1 << 63)}, math.MaxUint64},
		{gaps{lost(math.MaxUint64), lost(1), lost(2)}, math.MaxUint64},
	} {
		if n, got := c.gaps.sum(); n != uint64(len(c.gaps)) || got != c.lost {
			t.Errorf("%d of %d gaps, want %d", got, n, c.lost)
		}
	}
}
