package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
)

const kept = rules + `apart:
  - {roles: [db-root, db-admin]}
  - {roles: [look, unused, db-admin], of: holding}
`

func TestRolesAreKeptApart(t *testing.T) {
	p := must(t, kept)
	for role, want := range map[string][]string{
		"db-admin": {"db-root", "look", "unused"}, "db-root": {"db-admin"}, "look": {"db-admin", "unused"}, "none": nil,
	} {
		if diff := cmp.Diff(want, p.ApartFrom(role), compare...); diff != "" {
			t.Errorf("%s: %s", role, diff)
		}
	}
	v, err := p.Judge(asked(nil), hosts, noon)
	if err != nil || !slices.Equal(v.Apart, []string{"db-root", "look", "unused"}) {
		t.Errorf("%v, %v", v.Apart, err)
	}
	e := p.Explain(Case{Person: "ana", Role: "db-root", At: noon})
	i := slices.IndexFunc(e.Findings, func(f Finding) bool { return f.Rule == "apart" })
	if i < 0 || e.Findings[i].Text != "no live grant of db-admin, which is kept apart" || e.Findings[i].Place.Line != 45 || !e.Allowed {
		t.Errorf("%+v", e)
	}
}

// Where eligibility is kept apart, a policy that holds makes nobody eligible
// for two, and one that makes nobody eligible for two holds.
func TestEligibilityIsKeptApart(t *testing.T) {
	people := []string{"ana", "ben", "cleo"}
	rapid.Check(t, func(t *rapid.T) {
		text, both := "roles:\n", false
		of := map[string]map[string]bool{}
		for _, r := range []string{"a", "b", "c"} {
			text += "  " + r + ":\n    all_hosts: true\n    max_duration: 1h\n    approval: {by: zoe}\n"
		}
		text += "eligible:\n"
		for range rapid.IntRange(1, 5).Draw(t, "lines") {
			role := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "role")
			who := rapid.SliceOfNDistinct(rapid.SampledFrom(people), 1, 3, rapid.ID).Draw(t, "who")
			text += "  - {role: " + role + ", people: [" + strings.Join(who, ", ") + "]}\n"
			for _, person := range who {
				if of[person] == nil {
					of[person] = map[string]bool{}
				}
				if of[person][role] = true; of[person]["a"] && of[person]["b"] {
					both = true
				}
			}
		}
		p, problems := read(text + "apart:\n  - {roles: [a, b], of: eligibility}\n")
		if Holds(problems) == both {
			t.Fatalf("%s%v", text, problems)
		}
		for _, person := range people {
			_, a := p.EligibleUntil(person, "a", noon)
			if _, b := p.EligibleUntil(person, "b", noon); a && b {
				t.Fatalf("%s may ask for both", person)
			}
		}
	})
}

func TestTheZeroVerdictKeepsNothingApart(t *testing.T) {
	if v, err := must(t, rules).Judge(asked(func(q *roster.Question) { q.Ticket = "" }), hosts, noon); err != nil || len(v.Apart) != 0 {
		t.Errorf("%v, %v", v, err)
	}
}
