package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
)

const inTurns = `labels: {tier: [db]}
groups:
  oncall: {rotation: [ben, cleo, dan], from: 2027-01-04, at: '09:00', zone: Europe/Berlin}
roles:
  db-admin:
    hosts: {tier: db}
    commands: [/opt/restart]
    max_duration: 4h
    approval: {by: [group:oncall]}
  db-look:
    hosts: {tier: db}
    commands: [/opt/restart]
    max_duration: 4h
    approval: {by: [eva]}
    when: "'oncall' in groups"
eligible:
  - {role: db-admin, people: [ana, cleo]}
  - {role: db-look, people: [cleo]}
`

func TestWhoIsOnCallApproves(t *testing.T) {
	p := must(t, inTurns)
	for _, c := range []struct {
		name, at, person, want string
	}{
		{"nobody before the first turn", "2027-01-04T07:59:59Z", "ana", ""},
		{"the first, from the first second", "2027-01-04T08:00:00Z", "ana", "ben"},
		{"to the last", "2027-01-11T07:59:59Z", "ana", "ben"},
		{"then the second", "2027-01-11T08:00:00Z", "ana", "cleo"},
		{"the first again, after the last", "2027-01-25T08:00:00Z", "ana", "ben"},
		{"not by the hour of winter, when clocks were set forward", "2027-03-29T07:00:00Z", "ana", "ben"},
		{"up to the hour of summer", "2027-03-29T06:59:59Z", "ana", "dan"},
		{"and back", "2027-11-01T07:59:59Z", "ana", "ben"},
		{"by the hour of winter", "2027-11-01T08:00:00Z", "ana", "cleo"},
		{"never herself", "2027-01-11T08:00:00Z", "cleo", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, c.at)
			if err != nil {
				t.Fatal(err)
			}
			v, err := p.OnCall(at).Judge(asked(func(q *roster.Question) { q.Person = c.person }), hosts, at)
			if got := strings.Join(v.Approvers, " "); got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%q, want %q: %v", got, c.want, err)
			}
		})
	}
	if _, err := p.Judge(asked(nil), hosts, noon); err == nil {
		t.Error("somebody approves whom nobody named")
	}
}

func TestConditionsMayAskWhoIsOnCall(t *testing.T) {
	p := must(t, inTurns)
	for at, holds := range map[string]bool{"2027-01-12T12:00:00Z": true, "2027-01-19T12:00:00Z": false} {
		now, _ := time.Parse(time.RFC3339, at)
		_, err := p.OnCall(now).Judge(asked(func(q *roster.Question) { q.Person, q.Role = "cleo", "db-look" }), hosts, now)
		if (err == nil) != holds {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// Who is on call counts as such when she asks and when the grant would begin:
// a start that somebody chooses herself moves neither.
func TestOnCallNowAndThen(t *testing.T) {
	now := time.Date(2027, 1, 12, 12, 0, 0, 0, time.UTC) // of cleo's turn
	for _, c := range []struct {
		name, when string
		begin      time.Time
		holds      bool
	}{
		{"on call, and then", "'oncall' in groups", now.AddDate(0, 0, 3), true},
		{"on call, and then no more", "'oncall' in groups", now.AddDate(0, 0, 7), false},
		{"on call, and again in three weeks", "'oncall' in groups", now.AddDate(0, 0, 21), true},
		{"whoever is not: she is now", "!('oncall' in groups)", now.AddDate(0, 0, 7), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := must(t, strings.Replace(inTurns, "'oncall' in groups", c.when, 1))
			_, err := p.OnCall(now).Judge(asked(func(q *roster.Question) { q.Person, q.Role = "cleo", "db-look" }), hosts, c.begin)
			if (err == nil) != c.holds {
				t.Errorf("%v", err)
			}
		})
	}
	p := must(t, strings.Replace(inTurns, "'oncall' in groups", "!('oncall' in groups)", 1))
	_, err := p.OnCall(now.AddDate(0, 0, -7)).Judge(asked(func(q *roster.Question) { q.Person, q.Role = "cleo", "db-look" }), hosts, now)
	if err == nil {
		t.Error("who is on call then passes for one who is not")
	}
}

func TestExplainTellsWhoIsOnCall(t *testing.T) {
	e := must(t, inTurns).Explain(Case{Person: "ana", Role: "db-admin", At: time.Date(2027, 1, 12, 12, 0, 0, 0, time.UTC)})
	last := e.Findings[len(e.Findings)-1].Text
	if !slices.Equal(e.Approvers, []string{"cleo"}) || !strings.Contains(last, "group oncall (cleo, on call until 2027-01-18 09:00 CET)") {
		t.Errorf("%v: %s", e.Approvers, last)
	}
}

// Whatever the clocks do, turns follow each other without a gap, and each
// instant is in the turn that it is said to be in.
func TestTurnsLeaveNoGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, err := time.LoadLocation(rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"}).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		first := time.Date(2026, 1, 1+rapid.IntRange(0, 400).Draw(t, "day"), rapid.IntRange(0, 23).Draw(t, "hour"), 30, 0, 0, in)
		r := Rotation{People: []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(t, "people")], First: first}
		at := first.Add(time.Duration(rapid.IntRange(0, 3*365*24*3600).Draw(t, "seconds")) * time.Second)
		who, from, until := r.At(at)
		if who == "" || at.Before(from) || !at.Before(until) {
			t.Fatalf("%v: %s from %v until %v", at, who, from, until)
		}
		if _, next, _ := r.At(until); !next.Equal(until) {
			t.Errorf("after %v comes %v", until, next)
		}
	})
}
