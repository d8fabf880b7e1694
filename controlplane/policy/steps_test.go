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

const stepped = `groups:
  dba: [ben, cleo]
  leads: [fay, gil, dan]
roles:
  root:
    all_hosts: true
    any_command: true
    max_duration: 1h
    pending: 2h
    approval:
      - {by: [group:dba], count: any, escalate: {after: 15m, to: [group:leads]}}
      - {by: [hal, ida], count: all}
eligible:
  - {role: root, people: [ana, ben]}
`

func TestStepsAreRead(t *testing.T) {
	r := must(t, stepped).Roles["root"]
	want := []Step{
		{
			By: []string{"ben", "cleo"}, Named: []string{"group:dba"}, Count: 1,
			After: 15 * time.Minute, Later: []string{"dan", "fay", "gil"}, LaterNamed: []string{"group:leads"},
		},
		{By: []string{"hal", "ida"}, Named: []string{"hal", "ida"}},
	}
	if diff := cmp.Diff(want, r.Steps); diff != "" {
		t.Error(diff)
	}
	if r.Count != 3 || strings.Join(r.Approvers, " ") != "ben cleo dan fay gil hal ida" || strings.Join(r.By, " ") != "group:dba group:leads hal ida" {
		t.Errorf("%d, %v, %v", r.Count, r.Approvers, r.By)
	}
	bens := []roster.Step{
		{By: []string{"cleo"}, Count: 1, After: 15 * time.Minute, Later: []string{"dan", "fay", "gil"}}, {By: []string{"hal", "ida"}, Count: 2, Later: []string{}},
	}
	if diff := cmp.Diff(bens, r.For("ben"), compare...); diff != "" {
		t.Errorf("nobody counts for her own request: %s", diff)
	}
	if all := r.For("hal")[1]; all.Count != 1 || !slices.Equal(all.By, []string{"ida"}) {
		t.Errorf("all are all but who asks: %+v", all)
	}
	if nobody := (Role{Steps: []Step{{By: []string{"ben"}}}}).For("ben"); starved(nobody) != 1 {
		t.Errorf("of nobody, one is missing: %+v", nobody)
	}
}

// given writes approvals as minute:person.
func given(words ...string) []roster.Approval {
	var all []roster.Approval
	for _, w := range words {
		minute, person, _ := strings.Cut(w, ":")
		d, err := time.ParseDuration(minute + "m")
		if err != nil {
			panic(err)
		}
		all = append(all, roster.Approval{Person: person, At: noon.Add(d)})
	}
	return all
}

func TestStand(t *testing.T) {
	steps := must(t, stepped).Roles["root"].For("ana")
	for _, c := range []struct {
		name  string
		steps []roster.Step
		least int
		given []roster.Approval
		at    int // minutes
		want  string
	}{
		{"the first step waits", steps, 3, nil, 0, "1 of: ben, cleo; from 12:15 UTC also dan, fay, gil"},
		{"after its time others may too", steps, 3, nil, 15, "1 of: ben, cleo, dan, fay, gil"},
		{"then the second", steps, 3, given("1:ben"), 1, "2 of: hal, ida"},
		{"an approval of a later step does not go before", steps, 3, given("1:hal"), 1, "1 of: ben, cleo; from 12:15 UTC also dan, fay, gil"},
		{"whoever may later counts for nothing before", steps, 3, given("14:fay"), 14, "1 of: ben, cleo; from 12:15 UTC also dan, fay, gil"},
		{"nor afterwards, if she was early", steps, 3, given("14:fay"), 16, "1 of: ben, cleo, dan, gil"},
		{"and counts after", steps, 3, given("15:fay"), 15, "2 of: hal, ida"},
		{"one of all is missing", steps, 3, given("1:ben", "2:ida"), 2, "1 of: hal"},
		{"all are there", steps, 3, given("1:ben", "2:ida", "2:hal"), 2, "nothing"},
		{"two in one instant, in any order", steps, 3, given("1:hal", "1:ida", "1:ben"), 2, "nothing"},
		{"one who may no longer", steps, 3, given("1:zoe"), 1, "1 of: ben, cleo; from 12:15 UTC also dan, fay, gil"},
		{"twice is once", steps, 3, given("1:ben", "2:hal", "3:hal"), 3, "1 of: ida"},
		{"a policy that wants fewer now makes it no easier", steps[:1], 2, given("1:ben"), 1, "1 of: cleo, dan, fay, gil"},
		{"but can be met", steps[:1], 2, given("1:ben", "2:cleo"), 2, "nothing"},
		{"no step left, and one was promised: nobody may", nil, 1, nil, 0, "0 of: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := Stand(c.steps, Waiting{Asked: noon, Given: c.given, Least: c.least}, noon.Add(time.Duration(c.at)*time.Minute))
			if c.name == "no step left, and one was promised: nobody may" {
				if st.Done || len(st.Approvers) > 0 {
					t.Errorf("%+v", st)
				}
			} else if got := st.String(); got != c.want {
				t.Errorf("%s, not %s", got, c.want)
			}
		})
	}
}

var crew = []string{"ana", "ben", "cleo", "dan", "eva", "fay"}

func drawn(t *rapid.T) []roster.Step {
	var steps []roster.Step
	for i := range rapid.IntRange(1, 3).Draw(t, "steps") {
		some := func(what string, least int) []string {
			return rapid.SliceOfNDistinct(rapid.SampledFrom(crew), least, 5, rapid.ID).Draw(t, fmt.Sprint(what, i))
		}
		s := roster.Step{By: some("by", 1), Count: rapid.IntRange(1, 2).Draw(t, fmt.Sprint("count", i))}
		if rapid.Bool().Draw(t, fmt.Sprint("escalates", i)) {
			s.After, s.Later = time.Hour, some("later", 1)
		}
		steps = append(steps, s)
	}
	return steps
}

// Whoever approves, in whatever order they come: if no step could be left
// without people, the approval comes to its end, by people who each count
// once, as many as the steps want.
func TestAnApprovalComesToItsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		steps := drawn(t)
		if starved(steps) > 0 {
			t.Skip("refused when it is read")
		}
		w, now := Waiting{Asked: noon, Least: total(steps)}, noon
		for i := range 100 {
			st := Stand(steps, w, now)
			if st.Done {
				break
			}
			now = now.Add(time.Minute)
			if len(st.Approvers) == 0 || len(st.Later) > 0 && rapid.Bool().Draw(t, fmt.Sprint("waits", i)) {
				if len(st.Later) == 0 {
					t.Fatalf("stuck: %+v after %+v", st, w.Given)
				}
				now = st.From
				continue
			}
			w.Given = append(w.Given, roster.Approval{Person: rapid.SampledFrom(st.Approvers).Draw(t, fmt.Sprint("who", i)), At: now})
		}
		st := Stand(steps, w, now)
		if !st.Done || len(st.Counted) != total(steps) || len(w.Given) != total(steps) {
			t.Fatalf("%+v after %+v", st, w.Given)
		}
		seen := map[string]bool{}
		for _, a := range st.Counted {
			if seen[a.Person] {
				t.Fatalf("%s counts twice", a.Person)
			}
			seen[a.Person] = true
		}
	})
}

// Whatever approvals there are, too early, of strangers or doubled: an
// approval is done only if each step can be given its number of people, each
// of whom may approve in it.
func TestAnApprovalIsNotDoneTooSoon(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		steps := drawn(t)
		var all []roster.Approval
		for i := range rapid.IntRange(0, 8).Draw(t, "approvals") {
			at := noon.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, fmt.Sprint("minute", i))) * time.Minute)
			all = append(all, roster.Approval{Person: rapid.SampledFrom(append(crew, "zoe")).Draw(t, fmt.Sprint("person", i)), At: at})
		}
		st := Stand(steps, Waiting{Asked: noon, Given: all, Least: total(steps)}, noon.Add(4*time.Hour))
		if !st.Done {
			return
		}
		rest := slices.Clone(st.Counted)
		for i, s := range steps {
			have := 0
			for ; have < s.Count && len(rest) > 0; have++ {
				if !slices.Contains(slices.Concat(s.By, s.Later), rest[0].Person) || !slices.Contains(s.By, rest[0].Person) && rest[0].At.Before(noon.Add(s.After)) {
					t.Fatalf("step %d is done with %+v: %+v", i+1, rest[0], steps)
				}
				rest = rest[1:]
			}
			if have < s.Count {
				t.Fatalf("step %d lacks approvals: %+v, %+v", i+1, steps, st.Counted)
			}
		}
	})
}

func TestStepsAreExplained(t *testing.T) {
	p := must(t, stepped)
	var got []string
	for _, f := range p.Explain(Case{Person: "ben", Role: "root", At: noon}).Findings {
		if f.Rule == "approval" {
			got = append(got, fmt.Sprintf("%s %d: %s", f.Says, f.Place.Line, f.Text))
		}
	}
	want := []string{
		"needs 11: step 1 of 2: 1 approval by group dba (ben, cleo), and from 15m on by group leads (dan, fay, gil); ben does not count for her own request",
		"needs 12: step 2 of 2: 2 approvals by hal, ida",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	said := said(p.Strangers([]string{"ana", "ben", "cleo", "dan", "fay", "gil", "hal"}))
	if len(said) != 1 || !strings.Contains(said[0], "roles.yaml:10:5: warning: roles.root.approval: cannot be approved: of its approvers, the fleet does not know ida") {
		t.Errorf("%v", said)
	}
}

// Whom an escalation added is apart from those who might before it; a stand-in is
// where the one in whose place she may is, and with the former if with both.
func TestCircles(t *testing.T) {
	st := Standing{
		Approvers: []string{"ada", "ben", "cy"}, Joined: []string{"ada", "gone"},
		StandIns: []roster.Delegation{{StandIn: "dan", Away: "ada"}, {StandIn: "eve", Away: "ada"}, {StandIn: "eve", Away: "ben"}, {StandIn: "fay", Away: "cy"}},
	}
	first, added := st.Circles()
	if got := fmt.Sprint(first, added); got != "[ben cy eve fay] [ada dan]" {
		t.Error(got)
	}
}
