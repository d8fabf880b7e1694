package policy

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
)

// conditional is the policy of the other tests, with conditions.
var conditional = strings.Replace(rules, "    pending: 30m\n", `    when:
      - {if: "begin.during('mon-fri 08:00-18:00', 'Europe/Berlin')", say: in office hours}
      - labels.env != 'prod' || 'dba' in groups
      - source.inside('10.0.0.0/8') && ticket != ''
    pending: 30m
`, 1)

// monday is one, when Berlin is an hour ahead.
var monday = time.Date(2027, 2, 1, 9, 0, 0, 0, time.UTC)

func TestConditionsDecide(t *testing.T) {
	p := must(t, conditional)
	for _, c := range []struct {
		name   string
		change func(*roster.Question)
		at     time.Time
		want   []string // of the refusal; none: it is none
	}{
		{"all of them hold", nil, monday, nil},
		{"by her group, where the label would refuse", func(q *roster.Question) { q.Person, q.Hosts = "ben", []string{"db1"} }, monday, nil},
		{"not in office hours", nil, noon, []string{"role db-admin has a condition that does not hold: in office hours"}},
		{"not on each of the hosts", func(q *roster.Question) { q.Hosts = []string{"db1", "db2"} }, monday, []string{"does not hold on db1: labels.env"}},
		{"from elsewhere", func(q *roster.Question) { q.Source = "192.0.2.1" }, monday, []string{"does not hold: source.inside"}},
		{"from an address that is not known", func(q *roster.Question) { q.Source = "" }, monday, []string{"cannot be judged (the address from which it is asked is not known), and so does not hold"}},
		{"several at once, with what else is wrong", func(q *roster.Question) { q.Source, q.Duration = "", 9*time.Hour }, noon, []string{"lasts 4h at most", "in office hours", "not known"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := p.Judge(asked(func(q *roster.Question) {
				q.Source, q.Hosts = "10.0.0.7", []string{"db2"}
				if c.change != nil {
					c.change(q)
				}
			}), hosts, c.at)
			if (err == nil) != (c.want == nil) {
				t.Fatalf("%v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not said: %v", w, err)
				}
			}
		})
	}
}

func TestNobodyLearnsOfHostsByConditions(t *testing.T) {
	_, err := must(t, conditional).Judge(asked(func(q *roster.Question) { q.Hosts, q.Source = []string{"web1"}, "10.0.0.7" }), hosts, monday)
	if err == nil || strings.Contains(err.Error(), "condition") {
		t.Error(err)
	}
}

func TestExplainTellsOfConditions(t *testing.T) {
	p := must(t, conditional)
	prod := &roster.Host{Name: "db1", Labels: map[string]string{"tier": "db", "env": "prod"}}
	ticket := "INC-1"
	for _, c := range []struct {
		name string
		c    Case
		want []string // what each says
	}{
		{"what is not said is what it needs", Case{At: monday}, []string{Allows, Needs, Needs}},
		{"each is judged", Case{At: noon, Host: prod, Source: "10.0.0.7", Ticket: &ticket}, []string{Refuses, Refuses, Allows}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.c.Person, c.c.Role = "ana", "db-admin"
			var said []string
			for _, f := range p.Explain(c.c).Findings {
				if f.Rule == "when" {
					said = append(said, f.Says)
					if f.Place.Line == 0 {
						t.Errorf("%+v", f)
					}
				}
			}
			if strings.Join(said, " ") != strings.Join(c.want, " ") {
				t.Errorf("%v, want %v", said, c.want)
			}
		})
	}
}

// A condition only ever takes away: what is allowed with conditions is allowed
// without.
func TestConditionsOnlyNarrow(t *testing.T) {
	with, without := must(t, conditional), must(t, rules)
	rapid.Check(t, func(t *rapid.T) {
		q := asked(func(q *roster.Question) {
			q.Person = rapid.SampledFrom([]string{"ana", "ben", "eva"}).Draw(t, "person")
			q.Hosts = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"db1", "db2", "web1", "nowhere"}), 1, 3, rapid.ID[string]).Draw(t, "hosts")
			q.Source = rapid.SampledFrom([]string{"", "10.0.0.7", "192.0.2.1", "x"}).Draw(t, "source")
			q.Ticket = rapid.SampledFrom([]string{"", "INC-1", "x"}).Draw(t, "ticket")
		})
		at := monday.Add(time.Duration(rapid.IntRange(0, 7*24*60).Draw(t, "minutes")) * time.Minute)
		_, err := with.Judge(q, hosts, at)
		_, plain := without.Judge(q, hosts, at)
		if err == nil && plain != nil {
			t.Errorf("%+v: %v", q, plain)
		}
		if err == nil && (q.Source != "10.0.0.7" || q.Ticket == "" || at.Weekday() == time.Sunday) {
			t.Errorf("%+v at %v", q, at)
		}
	})
}
