package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
)

const outOfLine = `labels: {tier: [db]}
groups: {dba: [ben, cleo, dan, mia, tom]}
roles:
  db-admin:
    hosts: {tier: db}
    commands: [/opt/restart]
    max_duration: 4h
    approval: {by: [group:dba]}
    outside_line: true
eligible:
  - {role: db-admin, people: [ana, dan, mia, tom]}
`

// town is ana and dan under mia, ben under lea, both of them under tom; cleo,
// of whom no manager is known.
func town() map[string]string {
	return map[string]string{"ana": "mia", "dan": "mia", "mia": "tom", "ben": "lea", "lea": "tom"}
}

func TestNobodyOfHerReportingLineApproves(t *testing.T) {
	for _, c := range []struct {
		name, person string
		change       func(map[string]string)
		want         []string
	}{
		{"neither her manager nor that one's, and beside her her colleagues", "ana", func(map[string]string) {}, []string{"ben", "dan"}},
		{"nobody who reports to her", "mia", func(m map[string]string) { m["ben"], m["lea"] = "lea", "mia" }, nil},
		{"nobody counts for who is above all", "tom", func(map[string]string) {}, nil},
		{"nobody whose own line is not known", "ana", func(m map[string]string) { m["cleo"] = "ida" }, []string{"ben", "dan"}},
		{"one who comes to be known", "ana", func(m map[string]string) { m["cleo"] = "lea" }, []string{"ben", "cleo", "dan"}},
		{"nobody, if her manager is not known", "ana", func(m map[string]string) { delete(m, "ana") }, nil},
		{"only who is under the same, if the line was cut above", "ana", func(m map[string]string) { delete(m, "mia") }, []string{"dan"}},
		{"nobody, if managers go in a circle", "ana", func(m map[string]string) { m["tom"] = "mia" }, nil},
		{"one who is her own manager ends the line", "ana", func(m map[string]string) { m["tom"] = "tom" }, []string{"ben", "dan"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			managers := town()
			c.change(managers)
			p := must(t, outOfLine).With(roster.Directory{Managers: managers})
			may := p.MayApprove("db-admin", c.person)
			if !slices.Equal(may, c.want) {
				t.Error(cmp.Diff(c.want, may))
			}
			_, err := p.Judge(asked(func(q *roster.Question) { q.Person = c.person }), hosts, noon)
			if (err == nil) != (len(c.want) > 0) || err != nil && !strings.Contains(err.Error(), "outside of your reporting line") {
				t.Error(err)
			}
		})
	}
}

func TestNobodyApprovesBeforeTheDirectoryIsKnown(t *testing.T) {
	if may := must(t, outOfLine).MayApprove("db-admin", "ana"); len(may) > 0 {
		t.Error(may)
	}
}

// Whatever a directory says, nobody who may approve is above the requester or
// below her.
func TestLinesAreKeptApart(t *testing.T) {
	p := must(t, outOfLine)
	names := []string{"ana", "ben", "cleo", "dan", "mia", "tom", "lea"}
	rapid.Check(t, func(t *rapid.T) {
		managers := rapid.MapOf(rapid.SampledFrom(names), rapid.SampledFrom(names)).Draw(t, "managers")
		person := rapid.SampledFrom(names).Draw(t, "person")
		above := func(who, of string) bool {
			for range names {
				if of = managers[of]; of == who {
					return true
				}
			}
			return false
		}
		for _, a := range p.With(roster.Directory{Managers: managers}).MayApprove("db-admin", person) {
			if a == person || above(a, person) || above(person, a) {
				t.Errorf("%s approves for %s by %v", a, person, managers)
			}
		}
	})
}
