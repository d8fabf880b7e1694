// Package uplink is the protocol between a host's agent and the control plane.
//
// What it carries has its meaning elsewhere: here are its messages, and which
// of its versions two programs speak.
package uplink

import "fmt"

// Versions of the protocol that this program speaks. A new field needs no new
// version: who does not know it passes over it. One that the other side has to
// understand does, and the version before stays spoken for one release at
// least, so that either side may be upgraded first.
const (
	Oldest uint32 = 1
	Newest uint32 = 1
)

// Agree is the newest version that both sides speak: this program, and another
// that speaks from oldest to newest. One that says nothing of versions speaks
// the first.
func Agree(oldest, newest uint32) (uint32, error) {
	oldest, newest = max(oldest, 1), max(newest, 1)
	v := min(newest, Newest)
	if v < max(oldest, Oldest) {
		return 0, fmt.Errorf("it speaks versions %d to %d of the protocol, and this program %d to %d: upgrade the older of the two", oldest, newest, Oldest, Newest)
	}
	return v, nil
}
