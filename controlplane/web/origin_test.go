package web

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/wire/api"
)

// What an approver's word covers is on her screen: where it was typed, and
// what others narrowed.
func TestAnApproverSeesWhereItWasTyped(t *testing.T) {
	for name, c := range map[string]struct {
		origin *api.Origin
		less   *api.Approval
		shown  []string
		not    []string
	}{
		"in a shell, for less": {
			&api.Origin{Host: "db1", Session: "1f3a", Command: `/usr/bin/id "<b>x"`, Directory: "/var/tmp"},
			&api.Approval{Person: "ben", Duration: durationpb.New(20 * time.Minute), Hosts: []string{"db1"}},
			[]string{"in a shell on db1, session 1f3a", "/usr/bin/id &#34;&lt;b&gt;x&#34;", "/var/tmp", "only for 20 minutes", "only on db1"},
			[]string{"<b>x"},
		},
		"on a device, for all": {nil, &api.Approval{Person: "ben"}, []string{"approved by <strong>ben"}, []string{"in a shell on", "only for", "only on"}},
	} {
		t.Run(name, func(t *testing.T) {
			q := &api.Request{Id: "r-1", State: "asked", Role: "ops", Person: "ana", Hosts: []string{"db1", "db2"}, Duration: durationpb.New(time.Hour), Origin: c.origin, Approvals: []*api.Approval{c.less}}
			var b strings.Builder
			if err := templates["request"].ExecuteTemplate(&b, "main", page{Data: requestView{Request: q}}); err != nil {
				t.Fatal(err)
			}
			for _, w := range c.shown {
				if !strings.Contains(b.String(), w) {
					t.Errorf("%q is not shown", w)
				}
			}
			for _, w := range c.not {
				if strings.Contains(b.String(), w) {
					t.Errorf("%q is shown", w)
				}
			}
		})
	}
}
