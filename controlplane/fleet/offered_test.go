package fleet

import (
	"fmt"
	"strings"
	"testing"

	"curfew.internal/controlplane/roster"
)

// A shell is not told that nobody has to approve, if somebody may have to.
func TestAShellIsToldOfStepsInDoubt(t *testing.T) {
	all := roster.Offer{Description: "Restart", Approvers: []string{"ben"}, Needed: 1, Anybody: []string{"ben", "cy"}, Most: 2, Doubtful: []string{"1 of cy, if it is night"}}
	night := all
	night.Description, night.Approvers, night.Needed, night.Anybody, night.Most = "", nil, 0, []string{"cy"}, 1
	for want, o := range map[string]roster.Offer{
		"Restart: 1 of [ben]": {Description: "Restart", Approvers: []string{"ben"}, Needed: 1, Anybody: []string{"ben"}, Most: 1},
		"Restart: 0 of []":    {Description: "Restart"},
		"Restart; also asked: 1 of cy, if it is night: 1 of [ben]": all,
		"also asked: 1 of cy, if it is night: 1 of [cy]":           night,
	} {
		if m := offered(o); fmt.Sprintf("%s: %d of %v", m.Description, m.Needed, m.Approvers) != want {
			t.Errorf("%v, not %s", m, want)
		}
	}
}

// Who may approve may be thousands: what the host and the shell say to each other
// has a bound.
func TestAShellIsToldFewOfManyNames(t *testing.T) {
	var all []string
	for i := range 5000 {
		all = append(all, fmt.Sprintf("someone-of-many-%04d", i))
	}
	for _, o := range []roster.Offer{{Approvers: all, Needed: 1}, {Anybody: all, Most: 1, Doubtful: []string{"x"}}} {
		if text := strings.Join(offered(o).Approvers, ", "); len(text) > 300 || !strings.HasSuffix(text, "someone-of-many-0007 and 4992 more") {
			t.Errorf("%d characters: %.300s", len(text), text)
		}
	}
}
