package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

const rules = `labels:
  tier: [db, web]
  env: [prod, test]
groups:
  dba: [ben, cleo]
roles:
  db-admin:
    hosts: {tier: db}
    commands: [/usr/bin/id]
    max_duration: 4h
    ticket: optional
    ticket_pattern: '^INC-[0-9]+$'
    approval:
      by: [ben, group:dba]
    pending: 30m
    lease: 5m
  db-root:
    hosts: {tier: [db, web], env: test}
    any_command: true
    run_as: [root, postgres]
    max_duration: 30m
    reason: optional
    ticket: required
    approval:
      by: [ben, cleo, dan]
      count: 2
  look:
    all_hosts: true
    commands: [/usr/bin/id]
    max_duration: 1h
    reason: optional
    approval: none
  unused:
    all_hosts: true
    commands: [/usr/bin/id]
    max_duration: 1h
    approval: none
eligible:
  - {role: db-admin, people: [ana, ben]}
  - {role: db-root, people: [ana, ben], until: 2027-06-30}
  - {role: look, people: [ana], until: 2027-01-31}
  - {role: look, people: [ana], until: 2027-03-31}
  - {role: look, people: [eva], until: 2027-01-30}
`

var (
	noon  = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	hosts = []roster.Host{
		{Name: "db1", Labels: map[string]string{"tier": "db", "env": "prod"}},
		{Name: "db2", Labels: map[string]string{"tier": "db", "env": "test"}},
		{Name: "web1", Labels: map[string]string{"tier": "web"}},
		{Name: "bare"},
		{Name: "odd", Labels: map[string]string{"tier": ""}},
	}
)

func asked(change func(*roster.Question)) roster.Question {
	q := roster.Question{Person: "ana", Role: "db-admin", Hosts: []string{"db1"}, Duration: 2 * time.Hour, Reason: "disk full", Ticket: "INC-4121"}
	if change != nil {
		change(&q)
	}
	return q
}

func TestJudgeGivesWhatIsNeeded(t *testing.T) {
	p := must(t, rules)
	id := []grant.Command{{Path: "/usr/bin/id"}}
	for _, c := range []struct {
		name   string
		change func(*roster.Question)
		want   roster.Verdict
	}{
		{
			"a role is resolved, and its approvers named", nil,
			roster.Verdict{
				Role:  grant.Role{Name: "db-admin", RunAs: []string{"root"}, Commands: id},
				Lease: 5 * time.Minute, Needed: 1, Steps: []roster.Step{{By: []string{"ben", "cleo"}, Count: 1}}, Approvers: []string{"ben", "cleo"}, Waits: 30 * time.Minute,
			},
		},
		{
			"nobody is among the approvers of her own request",
			func(q *roster.Question) { q.Person = "ben" },
			roster.Verdict{
				Role:  grant.Role{Name: "db-admin", RunAs: []string{"root"}, Commands: id},
				Lease: 5 * time.Minute, Needed: 1, Steps: []roster.Step{{By: []string{"cleo"}, Count: 1}}, Approvers: []string{"cleo"}, Waits: 30 * time.Minute,
			},
		},
		{
			"two approvals where the role wants two",
			func(q *roster.Question) {
				q.Role, q.Hosts, q.Duration, q.Reason = "db-root", []string{"db2"}, time.Minute, ""
			},
			roster.Verdict{
				Role:   grant.Role{Name: "db-root", RunAs: []string{"root", "postgres"}, AnyCommand: true},
				Needed: 2, Steps: []roster.Step{{By: []string{"ben", "cleo", "dan"}, Count: 2}}, Approvers: []string{"ben", "cleo", "dan"}, Waits: time.Hour,
			},
		},
		{
			"none where the role wants none, on hosts without labels too",
			func(q *roster.Question) {
				q.Role, q.Hosts, q.Duration, q.Reason, q.Ticket = "look", []string{"bare", "db1", "web1"}, time.Hour, "", ""
			},
			roster.Verdict{Role: grant.Role{Name: "look", RunAs: []string{"root"}, Commands: id}, Approvers: []string{}, Waits: time.Hour},
		},
		{
			"the longest time that there is", func(q *roster.Question) { q.Duration = 4 * time.Hour },
			roster.Verdict{
				Role:  grant.Role{Name: "db-admin", RunAs: []string{"root"}, Commands: id},
				Lease: 5 * time.Minute, Needed: 1, Steps: []roster.Step{{By: []string{"ben", "cleo"}, Count: 1}}, Approvers: []string{"ben", "cleo"}, Waits: 30 * time.Minute,
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.Version = p.Version
			got, err := p.Judge(asked(c.change), hosts, noon)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, compare...); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestJudgeRefuses(t *testing.T) {
	p := must(t, rules)
	for _, c := range []struct {
		name   string
		change func(*roster.Question)
		kind   roster.Kind
		text   string
	}{
		{
			"a role that is another's, and tells only what is hers",
			func(q *roster.Question) { q.Role = "unused" }, roster.Denied,
			`you are not eligible for role "unused": you may ask for db-admin, db-root, look`,
		},
		{
			"a role that is not there, in the same words",
			func(q *roster.Question) { q.Role = "nothing" }, roster.Denied,
			`you are not eligible for role "nothing": you may ask for db-admin, db-root, look`,
		},
		{
			"a stranger",
			func(q *roster.Question) { q.Person = "zoe" }, roster.Denied,
			`you are not eligible for role "db-admin": there is no role that you may ask for; ask who keeps the policy to make you eligible`,
		},
		{
			"one whose last day is over",
			func(q *roster.Question) { q.Person, q.Role = "eva", "look" }, roster.Denied,
			`you are not eligible for role "look": there is no role that you may ask for; ask who keeps the policy to make you eligible`,
		},
		{
			"nobody in particular",
			func(q *roster.Question) { q.Person = "" }, roster.Denied,
			`you are not eligible for role "db-admin": there is no role that you may ask for; ask who keeps the policy to make you eligible`,
		},
		{
			"a role with a name that is none, without passing it on",
			func(q *roster.Question) { q.Role = "a\x1b[2J\nb" }, roster.Denied,
			`you are not eligible for role "a\x1b[2J\nb": you may ask for db-admin, db-root, look`,
		},
		{
			"a second longer than the longest",
			func(q *roster.Question) { q.Duration = 4*time.Hour + time.Second }, roster.Invalid,
			"role db-admin lasts 4h at most: ask for that or less",
		},
		{
			"no time", func(q *roster.Question) { q.Duration = 0 }, roster.Invalid,
			"say for how long, up to 4h, in whole seconds: --for TIME",
		},
		{
			"less than no time", func(q *roster.Question) { q.Duration = -time.Hour }, roster.Invalid,
			"say for how long, up to 4h, in whole seconds: --for TIME",
		},
		{
			"parts of a second", func(q *roster.Question) { q.Duration = time.Minute + 1 }, roster.Invalid,
			"say for how long, up to 4h, in whole seconds: --for TIME",
		},
		{
			"no host", func(q *roster.Question) { q.Hosts = nil }, roster.Invalid,
			"say on which host: --on HOST",
		},
		{
			"a host with another value", func(q *roster.Question) { q.Hosts = []string{"db1", "web1"} }, roster.Invalid,
			`role db-admin covers hosts with tier=db, and "web1" is none of them: see ` + "`curfew roles`",
		},
		{
			"a host without the label", func(q *roster.Question) { q.Hosts = []string{"bare"} }, roster.Invalid,
			`role db-admin covers hosts with tier=db, and "bare" is none of them: see ` + "`curfew roles`",
		},
		{
			"a host with an empty label", func(q *roster.Question) { q.Hosts = []string{"odd"} }, roster.Invalid,
			`role db-admin covers hosts with tier=db, and "odd" is none of them: see ` + "`curfew roles`",
		},
		{
			"a host that is not there, in the same words", func(q *roster.Question) { q.Hosts = []string{"gone"} }, roster.Invalid,
			`role db-admin covers hosts with tier=db, and "gone" is none of them: see ` + "`curfew roles`",
		},
		{
			"a host that is not there where the role covers all",
			func(q *roster.Question) {
				q.Role, q.Hosts, q.Duration, q.Ticket = "look", []string{"gone"}, time.Hour, ""
			}, roster.Invalid,
			`role look covers hosts with all hosts, and "gone" is none of them: see ` + "`curfew roles`",
		},
		{
			"a host that has one of two labels",
			func(q *roster.Question) { q.Role, q.Duration = "db-root", time.Minute }, roster.Invalid,
			`role db-root covers hosts with env=test, tier=db|web, and "db1" is none of them: see ` + "`curfew roles`",
		},
		{
			"no reason", func(q *roster.Question) { q.Reason = "" }, roster.Invalid,
			"role db-admin wants a reason: --why TEXT",
		},
		{
			"a reason of white space", func(q *roster.Question) { q.Reason = " \u00a0\u2003 " }, roster.Invalid,
			"role db-admin wants a reason: --why TEXT",
		},
		{
			"a ticket of another form", func(q *roster.Question) { q.Ticket = "JIRA-1" }, roster.Invalid,
			"the ticket does not look like one of role db-admin: it has to match ^INC-[0-9]+$",
		},
		{
			"no ticket where the role wants one",
			func(q *roster.Question) {
				q.Role, q.Hosts, q.Duration, q.Ticket = "db-root", []string{"db2"}, time.Minute, ""
			}, roster.Invalid,
			"role db-root wants a ticket: --ticket ID",
		},
		{
			"everything at once",
			func(q *roster.Question) {
				q.Hosts, q.Duration, q.Reason, q.Ticket = []string{"web1"}, 5*time.Hour, "", "x"
			}, roster.Invalid,
			`role db-admin covers hosts with tier=db, and "web1" is none of them: see ` + "`curfew roles`; " +
				"role db-admin lasts 4h at most: ask for that or less; role db-admin wants a reason: --why TEXT; " +
				"the ticket does not look like one of role db-admin: it has to match ^INC-[0-9]+$",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := p.Judge(asked(c.change), hosts, noon)
			r := (*roster.Refusal)(nil)
			if !errors.As(err, &r) {
				t.Fatalf("%+v, %v", v, err)
			}
			if diff := cmp.Diff(c.text, r.Text); diff != "" || r.Kind != c.kind {
				t.Errorf("kind %v %s", r.Kind, diff)
			}
			if diff := cmp.Diff(roster.Verdict{}, v); diff != "" {
				t.Errorf("a refusal gives something: %s", diff)
			}
		})
	}
}

func TestReasonsAndTicketsThatDoNotShowAreRefused(t *testing.T) {
	p := must(t, rules)
	for name, text := range map[string]string{
		"an escape sequence":     "\x1b]0;x\x07",
		"a line break":           "a\nb",
		"a carriage return":      "a\rb",
		"a NUL":                  "a\x00b",
		"a C1 control":           "a\u009bb",
		"a right-to-left one":    "a\u202eb",
		"an isolate":             "a\u2066b",
		"a zero-width space":     "a\u200bb",
		"a zero-width joiner":    "a\u200db",
		"a byte order mark":      "a\ufeffb",
		"a soft hyphen":          "a\u00adb",
		"a tag character":        "a\U000e0041b",
		"a line separator":       "a\u2028b",
		"a private character":    "a\ue000b",
		"bytes that are no text": "a\xff",
		"half a character":       "a\xe2\x80",
		"a character too much":   strings.Repeat("é", 501),
	} {
		if _, err := p.Judge(asked(func(q *roster.Question) { q.Reason = text }), hosts, noon); err == nil {
			t.Errorf("%s passes as a reason", name)
		} else if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s: the refusal carries it: %q", name, err)
		}
		if _, err := p.Judge(asked(func(q *roster.Question) { q.Ticket = text }), hosts, noon); err == nil {
			t.Errorf("%s passes as a ticket", name)
		}
	}
	for name, text := range map[string]string{
		"markup":              `<script>alert(1)</script> & "quotes"`,
		"other scripts":       "диск полон, 磁盘已满",
		"a template":          "{{.}} ${HOME} %s",
		"as long as there is": strings.Repeat("é", 500),
	} {
		if _, err := p.Judge(asked(func(q *roster.Question) { q.Reason = text }), hosts, noon); err != nil {
			t.Errorf("%s is text: %v", name, err)
		}
	}
}

func TestEligibilityEndsWithItsLastDay(t *testing.T) {
	p := must(t, rules)
	for _, c := range []struct {
		name string
		at   time.Time
		want bool
	}{
		{"in its last second", time.Date(2027, 6, 30, 23, 59, 59, 999999999, time.UTC), true},
		{"not at midnight", time.Date(2027, 7, 1, 0, 0, 0, 0, time.UTC), false},
		{"not at midnight, said in another zone", time.Date(2027, 7, 1, 2, 0, 0, 0, time.FixedZone("", 7200)), false},
		{"nor later", time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), false},
	} {
		if _, ok := p.EligibleUntil("ana", "db-root", c.at); ok != c.want {
			t.Errorf("%s: %v", c.name, ok)
		}
	}
	if until, ok := p.EligibleUntil("ana", "look", noon); !ok || !until.Equal(time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("of two ends the later counts: %v %v", until, ok)
	}
	if until, ok := p.EligibleUntil("ana", "db-admin", noon); !ok || !until.IsZero() {
		t.Errorf("no end: %v %v", until, ok)
	}
}

// Lines for one person that overlap, or of which one begins as another ends,
// count as one. Where a day is between them, they do not.
func TestEligibilityGoesOnOverASeam(t *testing.T) {
	day := func(month time.Month, d int) time.Time { return time.Date(2027, month, d, 0, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		name, lines string
		want        time.Time
	}{
		{"one begins as the other ends", "until: 2027-01-31}; from: 2027-02-01, until: 2027-03-31}", day(4, 1)},
		{"in the other order", "from: 2027-02-01, until: 2027-03-31}; until: 2027-01-31}", day(4, 1)},
		{"they overlap", "until: 2027-02-10}; from: 2027-02-05, until: 2027-03-31}", day(4, 1)},
		{"three, the last without an end", "from: 2027-03-01}; until: 2027-01-31}; from: 2027-02-01, until: 2027-02-28}", time.Time{}},
		{"one is within another", "until: 2027-03-31}; from: 2027-02-05, until: 2027-02-10}", day(4, 1)},
		{"a day is between them", "until: 2027-01-31}; from: 2027-02-02}", day(2, 1)},
		{"one that ended before counts for nothing", "until: 2027-01-30}; until: 2027-02-10}", day(2, 11)},
	} {
		text := rules
		for l := range strings.SplitSeq(c.lines, "; ") {
			text += "  - {role: look, people: [gil], " + l + "\n"
		}
		p := must(t, text)
		until, ok := p.EligibleUntil("gil", "look", noon)
		if !ok || !until.Equal(c.want) {
			t.Errorf("%s: until %v, %v", c.name, until, ok)
		}
		seam := day(2, 1).Add(-30 * time.Minute)
		over := asked(func(q *roster.Question) { q.Person, q.Role, q.Duration = "gil", "look", time.Hour })
		_, err := p.Judge(over, hosts, seam)
		if goesOn := c.want.IsZero() || c.want.After(day(2, 1)); (err == nil) != goesOn {
			t.Errorf("%s: over the seam: %v", c.name, err)
		}
		if e := p.Explain(Case{Person: "gil", Role: "look", For: time.Hour, At: seam}); e.Allowed != (err == nil) {
			t.Errorf("%s: explained otherwise: %+v", c.name, e)
		}
	}
}

// Who is to be eligible from a day on is told so, and may ask for a start
// then; whoever is not learns nothing of the role.
func TestEligibilityBeginsWithItsFirstDay(t *testing.T) {
	p := must(t, strings.Replace(rules, "people: [eva], until: 2027-01-30", "people: [eva], from: 2027-02-03, until: 2027-02-03", 1))
	day := time.Date(2027, 2, 3, 0, 0, 0, 0, time.UTC)
	q := asked(func(q *roster.Question) { q.Person, q.Role, q.Duration = "eva", "look", time.Hour })
	const early = "you are eligible for role look from 2027-02-03 00:00 UTC on, and not before: ask for a start from then on"
	for _, c := range []struct {
		name string
		at   time.Time
		want string
	}{
		{"not in the second before", day.Add(-time.Second), early},
		{"in its first", day, ""},
		{"in its first, said in another zone", day.In(time.FixedZone("", -7200)), ""},
		{"not when it has ended", day.AddDate(0, 0, 1), `you are not eligible for role "look": there is no role that you may ask for; ask who keeps the policy to make you eligible`},
	} {
		said := ""
		if _, err := p.Judge(q, hosts, c.at); err != nil {
			said = err.Error()
		}
		if said != c.want || (len(p.Offers("eva", hosts, c.at)) == 1) != (c.want == "") {
			t.Errorf("%s: %q", c.name, said)
		}
		ahead := p.Ahead("eva", hosts, c.at)
		if told := len(ahead) == 1 && ahead[0].From.Equal(day) && ahead[0].Until.Equal(day.AddDate(0, 0, 1)); told != (c.want == early) || len(ahead) > 1 {
			t.Errorf("%s: ahead of her are %+v", c.name, ahead)
		}
	}
	q.Person = "zoe"
	if _, err := p.Judge(q, hosts, day.Add(-time.Second)); err == nil || strings.Contains(err.Error(), "2027") {
		t.Errorf("a stranger is told %v", err)
	}
}

func TestOffersTellWhatIsHers(t *testing.T) {
	p := must(t, rules)
	var got []string
	for _, o := range p.Offers("ana", hosts, noon) {
		got = append(got, o.Role.Name+" on "+strings.Join(o.Hosts, ",")+" by "+strings.Join(o.Approvers, ","))
	}
	want := []string{"db-admin on db1,db2 by ben,cleo", "db-root on db2 by ben,cleo,dan", "look on bare,db1,db2,odd,web1 by "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if o := p.Offers("zoe", hosts, noon); len(o) != 0 {
		t.Errorf("a stranger is offered %v", o)
	}
}

func TestTheZeroPolicyPermitsNothing(t *testing.T) {
	var p Policy
	if _, err := p.Judge(asked(nil), hosts, noon); err == nil {
		t.Error("a verdict")
	}
	if o := p.Offers("ana", hosts, noon); len(o) != 0 {
		t.Error("an offer")
	}
	if a := p.MayApprove("db-admin", "ana"); len(a) != 0 {
		t.Error("an approver")
	}
	if (Role{}).Covers(map[string]string{"tier": "db"}) || (Role{}).Covers(nil) {
		t.Error("the zero role covers a host")
	}
}

// Whatever is asked, a verdict names only hosts that the role covers, a time
// within the role's, and enough approvers without the one who asks.
func TestVerdictsKeepTheRules(t *testing.T) {
	p := must(t, rules)
	rapid.Check(t, func(t *rapid.T) {
		q := roster.Question{
			Person:   rapid.SampledFrom([]string{"ana", "ben", "cleo", "dan", "eva", "zoe", ""}).Draw(t, "person"),
			Role:     rapid.SampledFrom([]string{"db-admin", "db-root", "look", "unused", "none"}).Draw(t, "role"),
			Hosts:    rapid.SliceOfDistinct(rapid.SampledFrom([]string{"db1", "db2", "web1", "bare", "gone"}), rapid.ID).Draw(t, "hosts"),
			Duration: time.Duration(rapid.Int64Range(-10, 20000).Draw(t, "seconds")) * time.Second,
			Reason:   rapid.SampledFrom([]string{"", " ", "disk full"}).Draw(t, "reason"),
			Ticket:   rapid.SampledFrom([]string{"", "INC-1", "x"}).Draw(t, "ticket"),
		}
		at := noon.AddDate(0, 0, rapid.IntRange(-10, 200).Draw(t, "day"))
		v, err := p.Judge(q, hosts, at)
		if err != nil {
			return
		}
		r := p.Roles[q.Role]
		_, eligible := p.EligibleUntil(q.Person, q.Role, at)
		if !eligible || q.Duration <= 0 || q.Duration > r.MaxDuration || len(v.Approvers) < v.Needed || slices.Contains(v.Approvers, q.Person) ||
			len(q.Hosts) == 0 || r.ReasonRequired && strings.TrimSpace(q.Reason) == "" || r.TicketRequired && q.Ticket == "" {
			t.Fatalf("%+v -> %+v", q, v)
		}
		for _, name := range q.Hosts {
			i := slices.IndexFunc(hosts, func(h roster.Host) bool { return h.Name == name })
			if i < 0 || !r.Covers(hosts[i].Labels) {
				t.Fatalf("%+v: %s", q, name)
			}
		}
	})
}
