package watch

import (
	"fmt"
	"time"

	"curfew.internal/ledger"
)

// numbers finds holes in the numbers that the kernel gave each session's
// events. Events of several CPUs come out of order, so a number counts as
// lost only if the kernel had given it before the ring was last seen empty,
// and it has not come by the time the ring is empty again.
type numbers map[uint64]*account

type account struct {
	from   uint64          // what came up to here, the agent before us handed on
	upTo   uint64          // all numbers up to here came or were reported
	beyond map[uint64]bool // what came after a hole
	made   uint64          // the last number given, as of the last look
}

// open begins the account of a session that an agent before us read up to a
// number.
func (n numbers) open(session, from uint64) *account {
	a := &account{from: from, upTo: from, beyond: map[uint64]bool{}}
	n[session] = a
	return a
}

// see takes note of a number. It reports false for one that was handed on
// before: an agent that is killed after handing on and before giving the
// ring's room back leaves such to the next.
func (a *account) see(seq uint64) bool {
	if seq <= a.from {
		return false
	}
	if seq > a.upTo {
		a.beyond[seq] = true
	}
	for a.beyond[a.upTo+1] {
		a.upTo++
		delete(a.beyond, a.upTo)
	}
	return true
}

// look is told the last number that the kernel has given by now, and returns
// the gaps among those it had given at the look before.
func (a *account) look(session, made uint64, at time.Time) []ledger.Entry {
	var gaps []ledger.Entry
	for a.upTo < a.made {
		from, to := a.upTo+1, a.made
		for seq := range a.beyond {
			to = min(to, seq-1)
		}
		gaps = append(gaps, ledger.Entry{
			Kind: ledger.Gap, At: at, Session: session, Lost: to - from + 1,
			Text: fmt.Sprintf("events %d to %d of the session were not recorded", from, to),
		})
		a.upTo = to
		a.see(a.upTo)
	}
	a.made = made
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
