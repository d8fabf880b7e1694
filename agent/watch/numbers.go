package watch

import (
	"fmt"
	"time"

	"curfew.internal/bpf"
	"curfew.internal/ledger"
)

// numbers finds holes in the numbers that the kernel gave each session's
// events. Events of several CPUs come out of order, so a number counts as
// lost only if the kernel had given it before the ring was last seen empty,
// and it has not come by the time the ring is empty again.
type numbers map[uint64]*account

type account struct {
	from   uint64               // what came up to here, the agent before us handed on
	upTo   uint64               // all numbers up to here came or were reported
	upToAt time.Time            // when the last of them was; zero if that is not known
	beyond map[uint64]time.Time // what came after a hole, and when it was
	made   uint64               // the last number given, as of the last look
	over   uint64               // what the kernel refused it for its share, as of then
}

// open begins the account of a session that an agent before us read up to a
// number.
func (n numbers) open(session, from uint64) *account {
	a := &account{from: from, upTo: from, beyond: map[uint64]time.Time{}}
	n[session] = a
	return a
}

// see takes note of a number. It reports false for one that was handed on
// before: an agent that is killed after handing on and before giving the
// ring's room back leaves such to the next.
func (a *account) see(seq uint64, at time.Time) bool {
	if seq <= a.from {
		return false
	}
	if seq > a.upTo {
		a.beyond[seq] = at
	}
	a.advance()
	return true
}

func (a *account) advance() {
	for {
		at, ok := a.beyond[a.upTo+1]
		if !ok {
			return
		}
		a.upTo++
		a.upToAt = at
		delete(a.beyond, a.upTo)
	}
}

// look is told what the kernel has counted by now, and returns the gaps among
// the numbers it had given at the look before.
func (a *account) look(session uint64, now bpf.WatchSession, at time.Time) []ledger.Entry {
	var gaps []ledger.Entry
	for a.upTo < a.made {
		g := ledger.Entry{Kind: ledger.Gap, At: at, Since: a.upToAt, Session: session, SessionSeq: a.upTo + 1}
		to := a.made
		for seq, when := range a.beyond {
			if seq-1 <= to {
				to, g.At = seq-1, when
			}
		}
		g.Lost = to - a.upTo
		g.Text = fmt.Sprintf("events %d to %d of the session were not recorded", g.SessionSeq, to)
		if now.Over > a.over {
			g.Text += "; it had used up its share of the ring"
		}
		gaps = append(gaps, g)
		a.upTo, a.upToAt = to, g.At
		a.advance()
	}
	if len(gaps) > 0 {
		a.over = now.Over
	}
	a.made = now.Made
	return gaps
}

// settled reports whether every number that the kernel ever gave is
// accounted for.
func (a *account) settled(made uint64) bool { return a.made == made && a.upTo == made }

// missing tells of what the kernel could give no number.
func missing(lost uint64, at time.Time) ledger.Entry {
	return ledger.Entry{
		Kind: ledger.Gap, At: at, Lost: lost,
		Text: "processes could not be labelled, or acted for a session that is not known",
	}
}
