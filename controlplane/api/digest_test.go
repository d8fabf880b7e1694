package api

import (
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
)

// Whoever approves says yes to what she was shown: also to a request that has no
// proof of its own, and to which one it has.
func TestTheDigestTellsAnEarlierProof(t *testing.T) {
	asked := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	seen := map[string]string{}
	for name, p := range map[string]*roster.Proof{
		"of its own":        nil,
		"an earlier one":    {Factor: "passkey", For: "request", At: asked.Add(-time.Minute)},
		"an older one":      {Factor: "passkey", For: "request", At: asked.Add(-2 * time.Minute)},
		"by another factor": {Factor: "totp", For: "request", At: asked.Add(-time.Minute)},
		"for another call":  {Factor: "passkey", For: "approval", At: asked.Add(-time.Minute)},
	} {
		r := roster.Request{ID: "r-1", AskedAt: asked, Asked: roster.Asked{Role: "ops", Proof: p}}
		sum := string(digest(r))
		if other, there := seen[sum]; there {
			t.Errorf("%s reads like %s", name, other)
		}
		seen[sum] = name
	}
}
