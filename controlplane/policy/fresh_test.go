package policy

import (
	"slices"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
)

// fresh is a role that takes an earlier proof, beside one that does not.
const fresh = `labels: {tier: [db, web], env: [prod, test]}
roles:
  ops: {hosts: {tier: db}, commands: [/usr/bin/systemctl restart cron], max_duration: 1h, approval: {by: [ben]}, freshness: 10m}
  anew: {hosts: {tier: db}, commands: [/usr/bin/systemctl restart cron], max_duration: 1h, approval: {by: [ben]}}
eligible:
  - {role: ops, people: [ana]}
  - {role: anew, people: [ana]}
`

// A proof is made for each request, unless the role itself says otherwise.
func TestFreshnessIsTheRolesOwn(t *testing.T) {
	p := must(t, fresh)
	for role, want := range map[string]time.Duration{"ops": 10 * time.Minute, "anew": 0} {
		v, err := p.Judge(roster.Question{Person: "ana", Role: role, Hosts: []string{"db2"}, Duration: time.Hour, Reason: "why"}, hosts, noon)
		if err != nil || v.Fresh != want {
			t.Errorf("%s: %v, %v", role, v.Fresh, err)
		}
		offers := p.Offers("ana", hosts, noon)
		if i := slices.IndexFunc(offers, func(o roster.Offer) bool { return o.Role.Name == role }); offers[i].Fresh != want {
			t.Errorf("%s is offered with %v", role, offers[i].Fresh)
		}
	}
}

func TestExplainTellsOfFreshness(t *testing.T) {
	p := must(t, fresh)
	for role, want := range map[string]string{
		"ops":  "a proof of the second factor counts that was made on the same session for another request, an extension or an approval, less than 10m before",
		"anew": "",
	} {
		e, got := p.Explain(Case{Person: "ana", Role: role, At: noon}), ""
		for _, f := range e.Findings {
			if f.Rule == "freshness" {
				got = f.Text
			}
			if f.Rule == "freshness" && (f.Says != Allows || f.Place.Line != 3) {
				t.Errorf("%+v", f)
			}
		}
		if got != want || !e.Allowed {
			t.Errorf("%s: %q", role, got)
		}
	}
}
