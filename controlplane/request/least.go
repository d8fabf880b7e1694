package request

import (
	"slices"
	"time"

	"curfew.internal/controlplane/roster"
)

// Least is what all approvals together allow of what was asked: the shortest
// time, and the hosts that each of them names. So what is granted is never
// wider than what any of those who approved has said yes to.
func Least(asked roster.Asked, given []roster.Approval) (hosts []string, length time.Duration) {
	hosts, length = slices.Clone(asked.Hosts), asked.Duration
	for _, a := range given {
		if a.Duration > 0 {
			length = min(length, a.Duration)
		}
		if len(a.Hosts) > 0 {
			hosts = slices.DeleteFunc(hosts, func(h string) bool { return !slices.Contains(a.Hosts, h) })
		}
	}
	return hosts, length
}
