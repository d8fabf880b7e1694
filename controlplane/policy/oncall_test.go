package policy

import (
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
)

var fromElsewhere = strings.Replace(inTurns, "{rotation: [ben, cleo, dan], from: 2027-01-04, at: '09:00', zone: Europe/Berlin}", "{on_call: Primary DB}", 1)

var week = time.Date(2027, 1, 4, 8, 0, 0, 0, time.UTC)

// fromPager is an answer with ben for a week, and cleo for the next, of which they
// share an hour.
func fromPager() roster.Calls {
	return roster.Calls{Rotations: map[string][]roster.Turn{
		"Primary DB": {{Person: "ben", From: week, Until: week.AddDate(0, 0, 7)}, {Person: "cleo", From: week.AddDate(0, 0, 7).Add(-time.Hour), Until: week.AddDate(0, 0, 14)}},
		"Secondary":  {{Person: "eva", From: week, Until: week.AddDate(1, 0, 0)}},
	}}
}

func TestWhoIsOnCallElsewhereApproves(t *testing.T) {
	p := must(t, fromElsewhere)
	silent := roster.Calls{Why: "the last answer of the on-call source counted until 2027-01-05 12:05 UTC"}
	for _, c := range []struct {
		name, person string
		said         roster.Calls
		at           time.Time
		want, nobody string
	}{
		{"nobody before the first turn", "ana", fromPager(), week.Add(-1), "", "group oncall: nobody is on call before 2027-01-04 08:00 UTC"},
		{"from its first instant", "ana", fromPager(), week, "ben", ""},
		{"two, while both are", "ana", fromPager(), week.AddDate(0, 0, 7).Add(-time.Hour), "ben cleo", ""},
		{"to its end, which is excluded", "ana", fromPager(), week.AddDate(0, 0, 7), "cleo", ""},
		{"nobody after the last", "ana", fromPager(), week.AddDate(0, 0, 14), "", `names nobody for that time in "Primary DB"`},
		{"never herself", "cleo", fromPager(), week.AddDate(0, 0, 8), "", ""},
		{"nobody by a source that is silent, and it says why", "ana", silent, week, "", "nobody is on call: the last answer of the on-call source counted until"},
		{"nobody by a source that has no such rotation", "ana", roster.Calls{Rotations: map[string][]roster.Turn{"primary db": fromPager().Rotations["Primary DB"]}}, week, "", `has no rotation "Primary DB"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := p.Called(c.said).OnCall(c.at).Judge(asked(func(q *roster.Question) { q.Person = c.person }), hosts, c.at)
			if got := strings.Join(v.Approvers, " "); got != c.want || (err == nil) != (c.want != "") || !strings.Contains(v.Nobody, c.nobody) || (c.nobody == "") != (v.Nobody == "") {
				t.Errorf("%q, want %q: %v; %q", got, c.want, err, v.Nobody)
			}
			if c.nobody != "" && !strings.Contains(err.Error(), c.nobody) {
				t.Error("who asks is not told why:", err)
			}
			for _, name := range v.Approvers {
				if !strings.HasPrefix(v.OnCall[name], "on call in oncall until 2027-01-1") {
					t.Errorf("%s: %q", name, v.OnCall[name])
				}
			}
		})
	}
	if _, err := p.Judge(asked(nil), hosts, noon); err == nil {
		t.Error("somebody approves whom nobody named")
	}
}

// A step that nobody on call can take waits, and escalates as it is written.
func TestASilentSourceEscalates(t *testing.T) {
	p := must(t, strings.Replace(fromElsewhere, "approval: {by: [group:oncall]}", "approval: {by: [group:oncall], escalate: {after: 10m, to: [eva]}}", 1)).Called(roster.Calls{Why: "it is silent"}).OnCall(week)
	v, err := p.Judge(asked(nil), hosts, week)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		at   time.Time
		want string
	}{
		{"at first nobody can", week, "1 of: nobody; from 08:10 UTC also eva (group oncall: nobody is on call: it is silent)"},
		{"then those above", week.Add(10 * time.Minute), "1 of: eva (group oncall: nobody is on call: it is silent)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := Stand(v.Steps, Waiting{Asked: week}, c.at)
			st.Nobody = v.Nobody
			if st.String() != c.want {
				t.Errorf("%q", st)
			}
		})
	}
}

func TestOnCallElsewhereIsReadFromTheFiles(t *testing.T) {
	for _, c := range []struct{ name, old, fresh, want string }{
		{"another key beside it", "{on_call: Primary DB}", "{on_call: Primary DB, zone: UTC}", "unknown key"},
		{"no name", "{on_call: Primary DB}", "{on_call: ''}", "no name of a rotation"},
		{"nobody is eligible by it", "role: db-look, people: [cleo]", "role: db-look, people: [group:oncall]", "who is on call changes each week"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, problems := Parse(map[string][]byte{"p.yaml": []byte(strings.Replace(fromElsewhere, c.old, c.fresh, 1))})
			if Holds(problems) || !strings.Contains(problems[0].String(), c.want) {
				t.Error(problems)
			}
		})
	}
}

func TestExplainTellsWhoIsOnCallElsewhere(t *testing.T) {
	for _, c := range []struct {
		name string
		said roster.Calls
		want string
	}{
		{"by the source's answer", fromPager(), "group oncall (ben, on call until 2027-01-11 08:00 UTC)"},
		{"or why nobody is", roster.Calls{Why: "it is silent"}, "group oncall (nobody is on call: it is silent)"},
		{"or that the files do not say", roster.Calls{}, "group oncall (the server knows who is on call)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := must(t, fromElsewhere).Called(c.said).Explain(Case{Person: "ana", Role: "db-admin", At: week})
			if last := e.Findings[len(e.Findings)-1].Text; !strings.Contains(last, c.want) {
				t.Error(last)
			}
		})
	}
}

// Whoever keeps what was found for an instant may keep it until the handover.
func TestHandoverOfTheSource(t *testing.T) {
	p := must(t, fromElsewhere).Called(fromPager())
	for _, c := range []struct {
		name            string
		at, from, until time.Time
	}{
		{"before all", week.Add(-time.Hour), time.Time{}, week},
		{"in a turn, up to where another begins", week, week, week.AddDate(0, 0, 7).Add(-time.Hour)},
		{"from there to the end of the first", week.AddDate(0, 0, 7).Add(-time.Minute), week.AddDate(0, 0, 7).Add(-time.Hour), week.AddDate(0, 0, 7)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if from, until := p.Handover(c.at); !from.Equal(c.from) || !until.Equal(c.until) {
				t.Errorf("%v to %v", from, until)
			}
		})
	}
	gone := p.Strangers([]string{"ana", "ben", "eva"})
	if text := strings.Join(texts(gone), "\n"); !strings.Contains(text, "not known to the fleet, or disabled: cleo") {
		t.Errorf("nobody is told that cleo is not known: %s", text)
	}
}

func texts(all []Problem) []string {
	var out []string
	for _, p := range all {
		out = append(out, p.String())
	}
	return out
}
