package store

import (
	"slices"
	"testing"

	"curfew.internal/controlplane/roster"
)

// An approval of a request that waits ends with its giver's account; what was
// granted on one stands.
func TestAnApprovalEndsWithItsAccount(t *testing.T) {
	const granted = "r-bbbbbbbbbbbbbbbb"
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	ask(t, s, granted)
	_, err := s.Change(ctx, rid, noon, func(roster.Request) (roster.Change, error) {
		return roster.Change{Approval: &roster.Approval{Person: "ben", Factor: "totp", At: noon}}, nil
	})
	must(t, err)
	_, err = s.Change(ctx, granted, noon, approve)
	must(t, err)
	_, err = s.DisablePerson(ctx, "ben", roster.Act{By: "ana", At: noon})
	must(t, err)
	for id, approvals := range map[string]int{rid: 0, granted: 1} {
		r, err := s.Request(ctx, id)
		must(t, err)
		story, err := s.Decisions(ctx, id)
		must(t, err)
		told := slices.ContainsFunc(story, func(d roster.Decision) bool { return d.What == roster.UnsaidStep && d.Person == "ana" })
		if len(r.Approvals) != approvals || told != (approvals == 0) {
			t.Errorf("%s is %s with %d approvals, told %v", id, r.State, len(r.Approvals), told)
		}
	}
}
