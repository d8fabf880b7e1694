package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
)

const fromDirectory = `labels: {tier: [db]}
groups:
  sre: {directory: SRE team}
  dba: [cleo, dan]
roles:
  db-admin:
    hosts: {tier: db}
    commands: [/usr/bin/systemctl restart postgresql]
    max_duration: 4h
    approval: {by: [group:sre, cleo], count: 1, escalate: {after: 15m, to: [group:sre, dan]}}
  db-root:
    hosts: {tier: db}
    any_command: true
    max_duration: 1h
    approval: {by: [group:dba], count: 1}
eligible:
  - {role: db-admin, people: [group:sre, cleo]}
  - {role: db-root, groups: [dba]}
apart:
  - {roles: [db-admin, db-root], of: eligibility}
`

func withDirectory(t *testing.T, text string) Policy {
	t.Helper()
	p, problems := Parse(map[string][]byte{"p.yaml": []byte(strings.Replace(text, "people: [group:sre, cleo]", "people: [group:sre]", 1))})
	if !Holds(problems) {
		t.Fatal(problems)
	}
	return p
}

// in is a directory with those in the SRE team.
func in(members []string) roster.Directory {
	return roster.Directory{Members: map[string][]string{"SRE team": members, "sre": {"eve"}}}
}

func TestGroupsOfADirectory(t *testing.T) {
	p := withDirectory(t, fromDirectory)
	db1 := []roster.Host{{Name: "db1", Labels: map[string]string{"tier": "db"}}}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ask := func(p Policy, person string) (roster.Verdict, error) {
		return p.Judge(roster.Question{Person: person, Role: "db-admin", Hosts: []string{"db1"}, Duration: time.Hour, Reason: "x"}, db1, now)
	}
	for _, c := range []struct {
		name, person, refused string
		in                    []string
		approvers             []string
	}{
		{"nobody is in it before the directory says who", "ana", "not eligible", nil, nil},
		{"who is in it may ask, and others of it approve", "ana", "", []string{"ben", "ana"}, []string{"ben", "cleo", "dan"}},
		{"who is in it alone is approved by those whom the file names", "ana", "", []string{"ana"}, []string{"cleo", "dan"}},
		{"who is in another group of the directory is not in it", "eve", "not eligible", []string{"ana"}, nil},
		{"whom the directory makes eligible for what is kept apart is refused", "dan", "keeps the two apart", []string{"dan"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := ask(p.With(in(c.in)), c.person)
			if r := (*roster.Refusal)(nil); c.refused != "" && (!errors.As(err, &r) || !strings.Contains(r.Text, c.refused)) || c.refused == "" && err != nil {
				t.Fatalf("%v", err)
			}
			if !slices.Equal(v.Approvers, c.approvers) {
				t.Errorf("approvers %v", v.Approvers)
			}
		})
	}
	if _, err := ask(p, "ana"); err == nil {
		t.Error("With changed the policy itself")
	}
}

const managed = `labels: {tier: [db]}
roles:
  db-admin:
    hosts: {tier: db}
    commands: [/usr/bin/systemctl restart postgresql]
    max_duration: 4h
    approval: {by: [requester:manager], count: 1, escalate: {after: 15m, to: [dan]}}
  db-look:
    hosts: {tier: db}
    commands: [/usr/bin/systemctl restart cron]
    max_duration: 4h
    approval: {by: requester:manager}
eligible:
  - {role: db-admin, people: [ana, ben]}
  - {role: db-look, people: [ana, ben]}
`

func TestManagerApproves(t *testing.T) {
	p := withDirectory(t, managed).With(roster.Directory{Managers: map[string]string{"ana": "ben", "ben": "ben"}})
	db1 := []roster.Host{{Name: "db1", Labels: map[string]string{"tier": "db"}}}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, person, role string
		approvers          []string
		by                 []string // of the first step
	}{
		{"her manager, and whom it passes to", "ana", "db-admin", []string{"ben", "dan"}, []string{"ben"}},
		{"her manager alone", "ana", "db-look", []string{"ben"}, []string{"ben"}},
		{"nobody is manager of herself", "ben", "db-admin", []string{"dan"}, nil},
		{"who has no manager is not approved", "ben", "db-look", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := p.Judge(roster.Question{Person: c.person, Role: c.role, Hosts: []string{"db1"}, Duration: time.Hour, Reason: "x"}, db1, now)
			if len(c.approvers) == 0 {
				if err == nil || !strings.Contains(err.Error(), "needs 1 approvals, and only 0 people") {
					t.Fatalf("%v, %v", v, err)
				}
				return
			}
			if err != nil || !slices.Equal(v.Approvers, c.approvers) || !slices.Equal(v.Steps[0].By, c.by) {
				t.Errorf("%+v, %v", v, err)
			}
			if e := p.Explain(Case{Person: c.person, Role: c.role, At: now}); !slices.ContainsFunc(e.Findings, func(f Finding) bool {
				return strings.Contains(f.Text, "the manager of "+c.person)
			}) {
				t.Errorf("%+v", e)
			}
		})
	}
	if all := p.Strangers([]string{"ana", "ben", "dan"}); len(all) != 0 {
		t.Errorf("%v", all)
	}
	if people := p.People(); !slices.Equal(people, []string{"ana", "ben", "dan"}) {
		t.Errorf("%v", people)
	}
}

// A role whose approvers the directory keeps is judged with those whom it has:
// too few are a refusal, and no mistake in the files.
func TestDirectoryWithTooFewApprovers(t *testing.T) {
	p := withDirectory(t, strings.Replace(fromDirectory, "by: [group:sre, cleo], count: 1, escalate: {after: 15m, to: [group:sre, dan]}", "by: [group:sre], count: 2", 1))
	q := roster.Question{Person: "ana", Role: "db-admin", Hosts: []string{"db1"}, Duration: time.Hour, Reason: "x"}
	hosts := []roster.Host{{Name: "db1", Labels: map[string]string{"tier": "db"}}}
	for n, members := range [][]string{{"ana"}, {"ana", "ben"}, {"ana", "ben", "eve"}} {
		if _, err := p.With(in(members)).Judge(q, hosts, time.Time{}); (err == nil) != (n == 2) {
			t.Errorf("%v: %v", members, err)
		}
	}
}

func TestExplainTellsOfTheDirectory(t *testing.T) {
	p := withDirectory(t, fromDirectory).With(in([]string{"ana", "ben"}))
	e := p.Explain(Case{Person: "ana", Role: "db-admin", At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)})
	if !e.Allowed || !strings.Contains(e.Findings[0].Text, "group sre (p.yaml:3:3)") {
		t.Errorf("%+v", e)
	}
	e = p.With(in([]string{"dan"})).Explain(Case{Person: "dan", Role: "db-admin", At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)})
	if !slices.Equal(e.Refusing(), []string{"apart"}) {
		t.Errorf("%+v", e)
	}
}

func TestMistakesInGroupsOfADirectory(t *testing.T) {
	for text, want := range map[string]string{
		"groups: {sre: {directory: ''}}": "groups.sre.directory: no name of a group",
		"labels: {t: [a]}\nroles: {r: {hosts: {t: a}, max_duration: 1h, approval: none}}\neligible: [{role: r, people: [requester:manager]}]": "nobody is manager of herself",
		"groups: {sre: {ldap: x}}":                 "groups.sre.ldap: unknown key",
		"groups: {sre: {directory: [a, b]}}":       "groups.sre.directory: not a plain value",
		"groups: {sre: {directory: \"a\\u0007\"}}": "groups.sre.directory: no name of a group",
	} {
		_, problems := Parse(map[string][]byte{"p.yaml": []byte(text + "\n")})
		if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.String(), want) }) {
			t.Errorf("%s: %v", text, problems)
		}
	}
}
