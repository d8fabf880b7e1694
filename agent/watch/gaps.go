package watch

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"curfew.internal/ledger"
)

// late is how long a number may be missing before it counts as lost: records
// of several CPUs come in any order.
const late = time.Second

// remembered is of how many sessions the position is kept here; the kernel
// keeps it as well.
const remembered = 10_000

// gaps finds holes in the numbers that the kernel gave each session's events.
type gaps struct {
	upto    map[uint64]uint64 // all numbers up to here were seen or reported
	beyond  map[uint64]map[uint64]bool
	waiting map[uint64]time.Time // since when a hole is open
}

func newGaps() *gaps {
	return &gaps{upto: map[uint64]uint64{}, beyond: map[uint64]map[uint64]bool{}, waiting: map[uint64]time.Time{}}
}

// known reports whether the session was met before.
func (g *gaps) known(session uint64) bool {
	_, ok := g.upto[session]
	return ok
}

// start says how far a session was read by an agent before us.
func (g *gaps) start(session, upto uint64) {
	if len(g.upto) >= remembered {
		// Sessions that were quiet for so long are found again in the kernel.
		maps.DeleteFunc(g.upto, func(s, _ uint64) bool { return g.waiting[s].IsZero() })
	}
	g.upto[session] = upto
}

// see takes note of a number.
func (g *gaps) see(session, seq uint64, now time.Time) {
	if seq <= g.upto[session] {
		return
	}
	if g.beyond[session] == nil {
		g.beyond[session] = map[uint64]bool{}
	}
	g.beyond[session][seq] = true
	g.close(session)
	if len(g.beyond[session]) > 0 && g.waiting[session].IsZero() {
		g.waiting[session] = now
	}
}

func (g *gaps) close(session uint64) {
	b := g.beyond[session]
	for b[g.upto[session]+1] {
		g.upto[session]++
		delete(b, g.upto[session])
	}
	if len(b) == 0 {
		delete(g.beyond, session)
		delete(g.waiting, session)
	}
}

// overdue reports the holes that have been open for too long, and goes on
// behind them.
func (g *gaps) overdue(now time.Time) []ledger.Entry {
	var found []ledger.Entry
	for session, since := range g.waiting {
		if now.Sub(since) < late {
			continue
		}
		next := slices.Min(slices.Collect(maps.Keys(g.beyond[session])))
		from := g.upto[session]
		found = append(found, ledger.Entry{
			Kind: ledger.Gap, At: now, Session: session, Lost: next - from - 1,
			Text: fmt.Sprintf("events %d to %d of the session were not recorded", from+1, next-1),
		})
		g.upto[session] = next - 1
		g.waiting[session] = now.Add(-late) // a further hole has waited as long
		g.close(session)
	}
	slices.SortFunc(found, func(a, b ledger.Entry) int { return cmp.Compare(a.Session, b.Session) })
	return found
}
