package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
)

// doubting is a role with a step that is always asked, and some that are not.
const doubting = `labels: {tier: [db, web], env: [prod, test]}
roles:
  root:
    hosts: {tier: db}
    any_command: true
    max_duration: 4h
    approval:
      - {by: [ben, cleo]}
      - {by: [dora], when: risk.new_network}
      - {by: [hal, ida], count: all, when: {if: "!begin.during('daily 08:00-18:00', 'UTC')", say: it is night}}
      - {by: [jo, kim], when: "risk.factor_refused > 2 || risk.factor_age < duration('24h')"}
      - {by: [lee, mia], when: "risk.first_time && labels.env == 'prod'"}
  free:
    all_hosts: true
    commands: [/usr/bin/id]
    max_duration: 1h
    approval: {by: [ben], when: risk.first_time}
eligible:
  - {role: root, people: [ana]}
  - {role: free, people: [ana]}
`

func of[T any](v T) *T { return &v }

// calm is when nothing is out of the ordinary.
func calm() roster.Risk {
	return roster.Risk{NewNetwork: of(false), FirstTime: of(false), FactorRefused: of(0), FactorAge: of(1000 * time.Hour)}
}

func doubted(change func(*roster.Question)) roster.Question {
	q := roster.Question{Person: "ana", Role: "root", Hosts: []string{"db2"}, Duration: time.Hour, Reason: "why", Source: "10.0.0.7", Risk: calm()}
	if change != nil {
		change(&q)
	}
	return q
}

func because(steps []roster.Step) string {
	var all []string
	for _, s := range steps {
		all = append(all, strings.Join(s.By, "+")+": "+s.Because)
	}
	return strings.Join(all, "\n")
}

func TestStepsAreAskedInDoubt(t *testing.T) {
	p := must(t, doubting)
	const base = "ben+cleo: "
	for _, c := range []struct {
		name   string
		change func(*roster.Question)
		at     time.Time
		want   string
	}{
		{"nothing is out of the ordinary", nil, noon, base},
		{"a new network", func(q *roster.Question) { q.Risk.NewNetwork = of(true) }, noon, base + "\ndora: the request comes from a network that is new for ana"},
		{"in its author's words", nil, noon.Add(10 * time.Hour), base + "\nhal+ida: it is night"},
		{
			"several factors were refused", func(q *roster.Question) { q.Risk.FactorRefused = of(3) }, noon,
			base + "\njo+kim: a factor was refused for ana in the hour before (times: 3), and the newest factor of ana was enrolled 41 days before",
		},
		{"a young factor", func(q *roster.Question) { q.Risk.FactorAge = of(90 * time.Second) }, noon, base + "\njo+kim: the newest factor of ana was enrolled 1m before"},
		{"what is not known counts", func(q *roster.Question) { q.Risk.NewNetwork = nil }, noon, base + "\ndora: the network that the request comes from is not known"},
		{
			"half of it is known, and is enough", func(q *roster.Question) { q.Risk.FactorRefused, q.Risk.FactorAge = of(3), nil }, noon,
			base + "\njo+kim: a factor was refused for ana in the hour before (times: 3), and when the newest factor of ana was enrolled is not known",
		},
		{"nothing is known", func(q *roster.Question) { q.Risk, q.Hosts = roster.Risk{}, []string{"db1", "db2"} }, noon, base +
			"\ndora: the network that the request comes from is not known" +
			"\njo+kim: how often a factor was refused for ana is not known, and when the newest factor of ana was enrolled is not known" +
			"\nlee+mia: it cannot be judged whether this holds: risk.first_time && labels.env == 'prod' (no such attribute(s): risk.first_time)"},
		{
			"one of the hosts is enough", func(q *roster.Question) { q.Risk.FirstTime, q.Hosts = of(true), []string{"db1", "db2"} }, noon,
			base + "\nlee+mia: this holds: risk.first_time && labels.env == 'prod'; ana was never granted this role before",
		},
		{
			"a host that lacks the label is one that cannot be judged", func(q *roster.Question) { q.Risk.FirstTime, q.Hosts = of(true), []string{"db3"} }, noon,
			base + "\nlee+mia: it cannot be judged whether this holds: risk.first_time && labels.env == 'prod' (no such key: env)",
		},
		{"what was so when it was asked stays", func(q *roster.Question) {
			q.Doubts = []roster.Doubt{{If: "risk.new_network", Because: "it was so"}, {If: "gone from the policy", Because: "it was so"}}
		}, noon, base + "\ndora: it was so"},
	} {
		t.Run(c.name, func(t *testing.T) {
			with := append(slices.Clone(hosts), roster.Host{Name: "db3", Labels: map[string]string{"tier": "db"}})
			v, err := p.Judge(doubted(c.change), with, c.at)
			if err != nil {
				t.Fatal(err)
			}
			if got := because(v.Steps); got != c.want {
				t.Errorf("\n%s\nnot\n%s", got, c.want)
			}
			if v.Needed != total(v.Steps) || len(v.Doubts) != strings.Count(c.want, "\n") {
				t.Errorf("%d approvals, %v", v.Needed, v.Doubts)
			}
			for _, name := range v.Spared {
				if slices.Contains(v.Approvers, name) {
					t.Errorf("%s is asked and spared", name)
				}
			}
		})
	}
}

// A role of which every step has a condition is given unapproved where none
// holds, to whom nobody but herself would approve too.
func TestNobodyIsAskedWithoutDoubt(t *testing.T) {
	p := must(t, doubting)
	free := func(person string, first bool) (roster.Verdict, error) {
		return p.Judge(doubted(func(q *roster.Question) { q.Person, q.Role, q.Risk.FirstTime = person, "free", &first }), hosts, noon)
	}
	if v, err := free("ana", false); err != nil || v.Needed != 0 || len(v.Steps) != 0 || strings.Join(v.Spared, " ") != "ben" {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := free("ana", true); err != nil || v.Needed != 1 || because(v.Steps) != "ben: ana was never granted this role before" {
		t.Errorf("%+v, %v", v, err)
	}
}

func risks(t *rapid.T) roster.Risk {
	maybe := func(name string) bool { return rapid.IntRange(0, 4).Draw(t, name+" is known") > 0 }
	var r roster.Risk
	if maybe("network") {
		r.NewNetwork = of(rapid.Bool().Draw(t, "new network"))
	}
	if maybe("first") {
		r.FirstTime = of(rapid.Bool().Draw(t, "first time"))
	}
	if maybe("refused") {
		r.FactorRefused = of(rapid.IntRange(0, 5).Draw(t, "refused"))
	}
	if maybe("age") {
		r.FactorAge = of(time.Duration(rapid.IntRange(0, 72).Draw(t, "age")) * time.Hour)
	}
	return r
}

// Whatever is forgotten of the risk, and however late it is looked at again, no
// step is asked any less; and nobody is kept out.
func TestDoubtOnlyAddsSteps(t *testing.T) {
	p := must(t, doubting)
	rapid.Check(t, func(t *rapid.T) {
		q := doubted(func(q *roster.Question) {
			q.Risk = risks(t)
			q.Hosts = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"db1", "db2"}), 1, 2, rapid.ID).Draw(t, "hosts")
		})
		at := noon.Add(time.Duration(rapid.IntRange(0, 48).Draw(t, "hour")) * time.Hour)
		v, err := p.Judge(q, hosts, at)
		if err != nil {
			t.Fatalf("kept out: %v", err)
		}
		if calm, _ := p.Judge(doubted(func(o *roster.Question) { o.Hosts = q.Hosts }), hosts, noon); v.Needed < calm.Needed {
			t.Fatalf("%d, and %d without a doubt", v.Needed, calm.Needed)
		}
		later := q
		later.Doubts = v.Doubts
		if rapid.Bool().Draw(t, "forgotten") {
			later.Risk = roster.Risk{}
		}
		w, err := p.Judge(later, hosts, at.Add(time.Duration(rapid.IntRange(0, 24).Draw(t, "later"))*time.Hour))
		if err != nil || w.Needed < v.Needed {
			t.Fatalf("%d, then %d: %v", v.Needed, w.Needed, err)
		}
		for _, s := range v.Steps {
			if !slices.ContainsFunc(w.Steps, func(o roster.Step) bool { return slices.Equal(o.By, s.By) && o.Because == s.Because }) {
				t.Fatalf("%+v is not asked for the same any more: %+v", s, w.Steps)
			}
		}
	})
}

// What holds for all steps of an approval holds for some of them: leaving one
// out leaves the others enough people.
func TestAStepThatIsNotAskedStarvesNone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawn(t)
		if starved(all) > 0 {
			t.Skip("refused when it is read")
		}
		some := slices.DeleteFunc(slices.Clone(all), func(roster.Step) bool { return rapid.Bool().Draw(t, "left out") })
		if at := starved(some); at > 0 {
			t.Fatalf("step %d of %+v", at, some)
		}
	})
}

func TestExplainTellsWhyStepsAreAsked(t *testing.T) {
	p, c := must(t, doubting), Case{Person: "ana", Role: "root", At: noon, Host: &hosts[1], Risk: calm()}
	told := func(c Case) string {
		var all []string
		for _, f := range p.Explain(c).Findings {
			if f.Rule == "approval" {
				all = append(all, fmt.Sprintf("%d %s %s", f.Place.Line, f.Says, f.Text))
			}
		}
		return strings.Join(all, "\n")
	}
	want := `8 needs step 1 of 5: 1 approval by ben, cleo
9 allows step 2 of 5: not asked, since it is not so that the request comes from a network that is new for who asks
10 allows step 3 of 5: not asked, since it is not so that it is night
11 allows step 4 of 5: not asked, since it is not so that risk.factor_refused > 2 || risk.factor_age < duration('24h')
12 allows step 5 of 5: not asked, since it is not so that risk.first_time && labels.env == 'prod'`
	if got := told(c); got != want {
		t.Errorf("\n%s\nnot\n%s", got, want)
	}
	c.Risk.NewNetwork, c.Risk.FirstTime = of(true), nil
	got := told(c)
	for _, want := range []string{
		"9 needs step 2 of 5: 1 approval by dora; it is asked because the request comes from a network that is new for ana",
		"12 needs step 5 of 5: 1 approval by lee, mia; it is asked only if risk.first_time && labels.env == 'prod', judged by what is not said here (risk.first_time)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("\n%s\nlacks\n%s", got, want)
		}
	}
	if e := p.Explain(c); e.Needed != 3 || strings.Join(e.Approvers, " ") != "ben cleo dora lee mia" {
		t.Errorf("%d of %v", e.Needed, e.Approvers)
	}
	if got := told(Case{Person: "ana", Role: "free", At: noon, Risk: calm()}); !strings.Contains(got, "so nobody has to approve: a second factor is enough") {
		t.Error(got)
	}
}

// The two pieces of code agree on which steps are asked, as on all else.
func TestExplainAgreesWithJudgeOfDoubt(t *testing.T) {
	p := must(t, doubting)
	rapid.Check(t, func(t *rapid.T) {
		risk := calm()
		risk.NewNetwork, risk.FirstTime = of(rapid.Bool().Draw(t, "network")), of(rapid.Bool().Draw(t, "first"))
		risk.FactorRefused, risk.FactorAge = of(rapid.IntRange(0, 4).Draw(t, "refused")), of(time.Duration(rapid.IntRange(0, 48).Draw(t, "age"))*time.Hour)
		h := hosts[rapid.IntRange(0, 1).Draw(t, "host")]
		at := noon.Add(time.Duration(rapid.IntRange(0, 24).Draw(t, "hour")) * time.Hour)
		role := rapid.SampledFrom([]string{"root", "free"}).Draw(t, "role")
		e := p.Explain(Case{Person: "ana", Role: role, Host: &h, For: time.Hour, Reason: of("why"), Source: "10.0.0.7", Risk: risk, At: at})
		v, err := p.Judge(doubted(func(q *roster.Question) { q.Role, q.Hosts, q.Risk = role, []string{h.Name}, risk }), hosts, at)
		if err != nil || !e.Allowed || e.Needed != v.Needed || !slices.Equal(e.Approvers, v.Approvers) {
			t.Fatalf("%+v, but %+v, %v", e, v, err)
		}
	})
}

func TestOffersTellWhatIsAskedInDoubt(t *testing.T) {
	all := must(t, doubting).Offers("ana", hosts, noon)
	root := all[slices.IndexFunc(all, func(o roster.Offer) bool { return o.Role.Name == "root" })]
	if root.Needed != 1 || strings.Join(root.Approvers, " ") != "ben cleo" || root.Most != 6 || len(root.Anybody) != 9 {
		t.Errorf("%+v", root)
	}
	want := []string{
		"1 of dora, if the request comes from a network that is new for who asks", "2 of hal, ida, if it is night",
		"1 of jo, kim, if risk.factor_refused > 2 || risk.factor_age < duration('24h')", "1 of lee, mia, if risk.first_time && labels.env == 'prod'",
	}
	if !slices.Equal(root.Doubtful, want) {
		t.Errorf("%q", root.Doubtful)
	}
}

// Whoever types sudo in a shell has no address: a policy may leave her out of
// doubts about her network, in so many words.
func TestAPolicyMayPassOverWhatWasTypedOnAHost(t *testing.T) {
	p := must(t, strings.Replace(doubting, "when: risk.new_network", `when: "source != '' && risk.new_network"`, 1))
	typed := doubted(func(q *roster.Question) { q.Source, q.Risk.NewNetwork = "", nil })
	if v, err := p.Judge(typed, hosts, noon); err != nil || v.Needed != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}
