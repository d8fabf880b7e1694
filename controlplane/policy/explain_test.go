package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
)

func TestExplainTellsEachRuleAndItsPlace(t *testing.T) {
	p := must(t, rules+"  - {role: look, people: [gil], from: 2027-02-03}\n")
	host := func(name string) *roster.Host {
		i := slices.IndexFunc(hosts, func(h roster.Host) bool { return h.Name == name })
		return &hosts[i]
	}
	word := func(s string) *string { return &s }
	for _, c := range []struct {
		name string
		c    Case
		want []string
	}{
		{
			"what is left out is told and not judged",
			Case{Person: "ana", Role: "db-root"},
			[]string{
				"eligibility allows 40: ana is eligible by name, to the end of 2027-06-30",
				"hosts allows 18: the role covers hosts with env=test, tier=db|web",
				"duration allows 21: a grant lasts 30m at most",
				"ticket needs 23: a ticket",
				"approval needs 25: 2 approvals by ben, cleo, dan",
			},
		},
		{
			"eligibility that has not begun says when it does",
			Case{Person: "gil", Role: "look"},
			[]string{
				"eligibility refuses 44: gil will be eligible by name, and that begins on 2027-02-03: ask for a start from then on, or write an earlier from, if she needs it now",
				"approval allows 32: nobody has to approve: a second factor is enough",
			},
		},
		{
			"and with its first day it is as any other",
			Case{Person: "gil", Role: "look", At: time.Date(2027, 2, 3, 0, 0, 0, 0, time.UTC)},
			[]string{
				"eligibility allows 44: gil is eligible by name, without end",
				"hosts allows 28: the role covers every host",
				"duration allows 30: a grant lasts 1h at most",
				"approval allows 32: nobody has to approve: a second factor is enough",
			},
		},
		{
			"all that is right is said to be",
			Case{Person: "ben", Role: "db-admin", Host: host("db1"), For: time.Hour, Reason: word("x"), Ticket: word("INC-1")},
			[]string{
				"eligibility allows 39: ben is eligible by name, without end",
				"hosts allows 8: the role covers hosts with tier=db, and db1 is one",
				"duration allows 10: 1h is within the 4h that a grant lasts at most",
				"approval needs 14: 1 approval by ben, group dba (ben, cleo); ben does not count for her own request",
			},
		},
		{
			"all that is wrong is told at once",
			Case{Person: "ana", Role: "db-admin", Host: host("web1"), For: 5 * time.Hour, Reason: word(" "), Ticket: word("x")},
			[]string{
				"eligibility allows 39: ana is eligible by name, without end",
				"hosts refuses 8: the role covers hosts with tier=db, and web1 has tier=web: ask for a role that covers it, or mend the host's labels",
				"duration refuses 10: 5h is more than the 4h that a grant lasts at most: ask for that or less",
				"reason refuses 7: a reason is required, and none is given: --why TEXT",
				"ticket refuses 12: ticket \"x\" does not match ^INC-[0-9]+$ as a whole: give one that does",
				"approval needs 14: 1 approval by ben, group dba (ben, cleo)",
			},
		},
		{
			"who is not eligible is told who is",
			Case{Person: "zoe", Role: "db-admin"},
			[]string{
				"eligibility refuses 39: zoe is not among ana, ben: add her to a line, or to a group of it, if she needs the role",
				"approval needs 14: 1 approval by ben, group dba (ben, cleo)",
			},
		},
		{
			"what ended is told",
			Case{Person: "eva", Role: "look"},
			[]string{
				"eligibility refuses 43: eva was eligible by name, and that ended with 2027-01-30: write a later day, if she still needs it",
				"approval allows 32: nobody has to approve: a second factor is enough",
			},
		},
		{
			"a grant does not outlast the eligibility",
			Case{Person: "ana", Role: "look", For: time.Hour, At: time.Date(2027, 3, 31, 23, 30, 0, 0, time.UTC), Host: host("bare")},
			[]string{
				"eligibility allows 42: ana is eligible by name, to the end of 2027-03-31",
				"hosts allows 28: the role covers every host, and bare is one",
				"duration allows 30: 1h is within the 1h that a grant lasts at most",
				"until refuses 42: the grant would outlast the eligibility, which ends at 2027-04-01 00:00 UTC: ask for 30m or less",
				"approval allows 32: nobody has to approve: a second factor is enough",
			},
		},
		{
			"a role that nobody may ask for",
			Case{Person: "ana", Role: "unused"},
			[]string{
				"eligibility refuses 33: no line under eligible: has role unused: nobody may ask for it: add a line, if somebody needs the role",
				"approval allows 37: nobody has to approve: a second factor is enough",
			},
		},
		{
			"a role that is not there",
			Case{Person: "ana", Role: "db-amin"},
			[]string{`role refuses 0: there is no role "db-amin": the policy has db-admin, db-root, look, unused`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.c.At.IsZero() {
				c.c.At = noon
			}
			var got []string
			e := p.Explain(c.c)
			for _, f := range e.Findings {
				s := fmt.Sprintf("%s %s %d: %s", f.Rule, f.Says, f.Place.Line, f.Text)
				if f.Fix != "" {
					s += ": " + f.Fix
				}
				got = append(got, s)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if refused := slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, " refuses ") }); e.Allowed == refused {
				t.Errorf("allowed: %v", e.Allowed)
			}
		})
	}
}

func TestExplainNamesTheGroup(t *testing.T) {
	p := must(t, strings.Replace(good, "people: [ana]", "groups: [dba]", 1))
	e := p.Explain(Case{Person: "cleo", Role: "db-admin", At: noon})
	if want := "cleo is eligible as a member of group dba (roles.yaml:5:3), without end"; e.Findings[0].Text != want {
		t.Errorf("%q", e.Findings[0].Text)
	}
}

// The explanation and the judgement are two pieces of code: on every question
// they give one answer.
func TestExplainAgreesWithJudge(t *testing.T) {
	p := must(t, rules)
	rapid.Check(t, func(t *rapid.T) {
		h := rapid.SampledFrom(hosts).Draw(t, "host")
		reason := rapid.SampledFrom([]string{"", " ", "disk full", "a\tb"}).Draw(t, "reason")
		ticket := rapid.SampledFrom([]string{"", "INC-1", "x", "INC-1\n"}).Draw(t, "ticket")
		d := time.Duration(rapid.SampledFrom([]int64{-1, 1, 1e9, 1800e9, 3600e9, 14400e9, 14401e9, 1e9 + 1}).Draw(t, "for"))
		c := Case{
			Person: rapid.SampledFrom([]string{"ana", "ben", "cleo", "eva", "zoe", ""}).Draw(t, "person"),
			Role:   rapid.SampledFrom([]string{"db-admin", "db-root", "look", "unused", "none"}).Draw(t, "role"),
			Host:   &h, For: d, Reason: &reason, Ticket: &ticket,
			At: noon.AddDate(0, 0, rapid.IntRange(-10, 200).Draw(t, "day")).Add(time.Duration(rapid.IntRange(0, 12*3600).Draw(t, "second")) * time.Second),
		}
		e := p.Explain(c)
		v, err := p.Judge(roster.Question{Person: c.Person, Role: c.Role, Hosts: []string{h.Name}, Duration: d, Reason: reason, Ticket: ticket}, hosts, c.At)
		if e.Allowed != (err == nil) {
			t.Fatalf("%+v: %+v, but %v", c, e, err)
		}
		if err == nil && (e.Needed != v.Needed || !slices.Equal(e.Approvers, v.Approvers)) {
			t.Fatalf("%+v, but %+v", e, v)
		}
		for _, f := range e.Findings {
			if f.Text == "" || f.Rule != "role" && (f.Place.Line == 0 || f.Place.File != "roles.yaml") || f.Says == Refuses && f.Fix == "" {
				t.Fatalf("%+v", f)
			}
		}
	})
}

func TestExplainTellsWhoSaidThatNobodyApprovesInProduction(t *testing.T) {
	p := must(t, rules+"production:\n  all_hosts: true\n  unapproved: [look, unused]\n")
	for _, f := range p.Explain(Case{Person: "ana", Role: "look", At: noon}).Findings {
		if want := "nobody has to approve: a second factor is enough, in production too, as is said of the role by name (roles.yaml:46:3)"; f.Rule == "approval" && f.Text != want {
			t.Errorf("%q", f.Text)
		}
	}
}
