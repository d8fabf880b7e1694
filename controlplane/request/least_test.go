package request

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
)

// Whatever is approved in whatever order, the grant is within each word.
func TestNoApprovalIsExceeded(t *testing.T) {
	all := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfDistinct(rapid.SampledFrom(all), rapid.ID[string])
		asked := roster.Asked{Hosts: all, Duration: time.Hour}
		var given []roster.Approval
		for range rapid.IntRange(0, 4).Draw(t, "approvals") {
			given = append(given, roster.Approval{
				Duration: time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "length")), Hosts: some.Draw(t, "hosts"),
			})
		}
		hosts, length := Least(asked, given)
		if length > asked.Duration || length <= 0 {
			t.Fatalf("%v of %v", length, asked.Duration)
		}
		full := length == asked.Duration
		for _, a := range given {
			if a.Duration > 0 && length > a.Duration {
				t.Fatalf("%v over %v", length, a.Duration)
			}
			full = full || length == a.Duration
			for _, h := range hosts {
				if len(a.Hosts) > 0 && !slices.Contains(a.Hosts, h) {
					t.Fatalf("%s is not among %v", h, a.Hosts)
				}
			}
		}
		if !full {
			t.Fatalf("nobody said %v", length)
		}
	})
}
