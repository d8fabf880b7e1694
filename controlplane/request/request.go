// Package request says how the life of a request goes.
//
// The life is one table; what is not in it cannot happen. The database holds
// the same table and refuses what this one does not know; a test compares
// them. The package decides nobody's case: who may take a step, and why, is
// for its callers.
package request

import (
	"maps"
	"slices"
)

// A State is where a request stands in its life.
type State string

// The states. Approval and issue are one step: with the last approval that it
// needs, a request is Issued and has its grant.
const (
	Asked     State = "asked"     // waits for approvals
	Issued    State = "issued"    // has a grant
	Denied    State = "denied"    // an approver said no
	Withdrawn State = "withdrawn" // its person took it back
	Lapsed    State = "lapsed"    // nobody answered in time
	Ended     State = "ended"     // the grant's time was over
	Revoked   State = "revoked"   // the grant was ended before its time
)

var moves = map[State][]State{
	Asked:     {Issued, Denied, Withdrawn, Lapsed},
	Issued:    {Ended, Revoked},
	Denied:    nil,
	Withdrawn: nil,
	Lapsed:    nil,
	Ended:     nil,
	Revoked:   nil,
}

// May reports whether a request may go from one state to the other.
func May(from, to State) bool { return slices.Contains(moves[from], to) }

// Over reports whether a life is over: nothing can happen to it any more. A
// state that is not known is over.
func Over(s State) bool { return len(moves[s]) == 0 }

// Moves lists every step there is, in order.
func Moves() [][2]State {
	var all [][2]State
	for _, from := range slices.Sorted(maps.Keys(moves)) {
		for _, to := range slices.Sorted(slices.Values(moves[from])) {
			all = append(all, [2]State{from, to})
		}
	}
	return all
}
