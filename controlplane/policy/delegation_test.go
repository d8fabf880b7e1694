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

const lent = `groups:
  dba: [ben, cora]
  leads: [fay, gil]
roles:
  root:
    all_hosts: true
    any_command: true
    max_duration: 1h
    approval: {by: [group:dba, dan], count: 1}
    delegation: {up_to: 14d, to: [group:leads, hal, ana, ben]}
  audit: {all_hosts: true, any_command: true, max_duration: 1h, approval: {by: [dan, lou]}}
  line: {all_hosts: true, any_command: true, max_duration: 1h, approval: {by: [cora]}, outside_line: true, delegation: 30d}
apart:
  - {roles: [root, audit]}
eligible:
  - {role: root, people: [ana, dan]}
  - {role: line, people: [ana, fay]}
  - {role: audit, people: [hal, dan]}
`

// lend is that one is stood in for by the other, for some days.
func lend(away, standIn string, days int) roster.Delegation {
	return roster.Delegation{Away: away, StandIn: standIn, From: noon, Until: noon.AddDate(0, 0, days)}
}

func TestWhoStandsIn(t *testing.T) {
	p := must(t, lent).With(roster.Directory{Managers: map[string]string{"ana": "kim", "cora": "lou", "gil": "kim", "fay": "lou", "kim": "lou"}})
	for _, c := range []struct {
		name, role, asks string
		d                roster.Delegation
		besides          []roster.Delegation
		why              string // empty: she may
	}{
		{name: "whom an approver named", role: "root", asks: "ana", d: lend("cora", "fay", 14)},
		{name: "longer than the role lets", role: "root", asks: "ana", d: lend("cora", "fay", 15), why: "14 days at most"},
		{name: "somebody whom the role does not name", role: "root", asks: "ana", d: lend("cora", "kim", 1), why: "has to be one of group:leads, hal, ana, ben"},
		{name: "of a role that has no delegation", role: "audit", asks: "hal", d: lend("dan", "fay", 1), why: "has no `delegation`"},
		{name: "for somebody who does not approve herself: no chain", role: "root", asks: "ana", d: lend("fay", "gil", 1), why: "fay is not among its approvers"},
		{name: "who asks", role: "root", asks: "ana", d: lend("cora", "ana", 1), why: "nobody approves her own request"},
		{name: "for who asks", role: "root", asks: "dan", d: lend("dan", "fay", 1), why: "dan is not among its approvers"},
		{name: "who stands in for the one who asks", role: "root", asks: "ana", d: lend("cora", "fay", 1), besides: []roster.Delegation{lend("ana", "fay", 1)}, why: "fay stands in for ana, who asks"},
		{name: "who approves herself gives one word", role: "root", asks: "ana", d: lend("cora", "ben", 1), why: "in her own right"},
		{name: "for herself", role: "root", asks: "ana", d: lend("cora", "cora", 1), why: "in her own right"},
		{name: "who may have what is kept apart", role: "root", asks: "ana", d: lend("cora", "hal", 1), why: "hal may have role audit"},
		{name: "for one who may have what is kept apart", role: "root", asks: "ana", d: lend("dan", "fay", 1), why: "dan may have role audit"},
		{name: "out of the line of who asks", role: "line", asks: "ana", d: lend("cora", "fay", 30)},
		{name: "above who asks", role: "line", asks: "ana", d: lend("cora", "kim", 1), why: "kim is in the reporting line of ana"},
		{name: "not shown to be out of it", role: "line", asks: "ana", d: lend("cora", "zoe", 1), why: "not shown by the directory"},
		{name: "for one who is above who asks", role: "line", asks: "fay", d: lend("lou", "gil", 1), why: "lou is not among its approvers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := append(c.besides, c.d)
			may := p.StandIns(c.role, c.asks, all)
			var text []string
			for _, f := range p.Explain(Case{Person: c.asks, Role: c.role, At: noon, Away: all}).Findings {
				if f.Rule == "delegation" {
					text = append(text, f.Text)
				}
			}
			said, role := strings.Join(text, "\n"), p.Roles[c.role]
			if slices.Contains(may, c.d) != (c.why == "") {
				t.Fatalf("%v: %s", may, said)
			}
			if !slices.Contains(role.Approvers, c.d.Away) { // explained is what concerns the role
				said = p.unfit(role, p.MayApprove(c.role, c.asks), c.d)
			}
			if !strings.Contains(said, c.why) || c.why == "" && !strings.Contains(said, c.d.StandIn+" may approve in place of "+c.d.Away) {
				t.Errorf("%s", said)
			}
		})
	}
	roles, not := p.Lends(lend("cora", "fay", 20))
	if diff := cmp.Diff([]string{"line", "root: somebody may stand in for 14 days at most"}, append(roles, not...)); diff != "" {
		t.Error(diff)
	}
}

// An approval in another's place is one of those that the policy asks for.
func TestStandInPlace(t *testing.T) {
	steps := []roster.Step{{By: []string{"cora", "dan"}, Count: 2}, {By: []string{"cora", "eva"}, Count: 1}}
	lentTo := []roster.Delegation{lend("cora", "fay", 1), lend("dan", "fay", 1), lend("dan", "gil", 1), lend("eva", "gil", 1)}
	in := func(away string, a roster.Approval) roster.Approval { a.InPlaceOf = away; return a }
	a := given("1:fay", "2:gil", "3:cora", "4:eva", "5:dan")
	for _, c := range []struct {
		name  string
		given []roster.Approval
		want  string
	}{
		{"whoever stands in is named with whom for", nil, "2 of: cora, dan, or fay in place of cora, or fay in place of dan, or gil in place of dan"},
		{"she gives one word", []roster.Approval{in("cora", a[0])}, "1 of: dan, or gil in place of dan"},
		{"who is away gives none besides", []roster.Approval{in("cora", a[0]), a[2]}, "1 of: dan, or gil in place of dan"},
		{"of two who stand in for one, one counts", []roster.Approval{in("dan", a[0]), in("dan", a[1])}, "1 of: cora"},
		{"the word of one who is away is spent for the next step too", []roster.Approval{in("cora", a[0]), a[4]}, "1 of: eva, or gil in place of eva"},
		{"who gave a word gives none in the next step", []roster.Approval{a[2], in("dan", a[1])}, "1 of: eva"},
		{"all are there", []roster.Approval{in("cora", a[0]), in("dan", a[1]), a[3]}, "nothing"},
		{"without a delegation it is nothing", []roster.Approval{in("eva", a[0])}, "2 of: cora, dan, or gil in place of dan"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := Stand(steps, Waiting{Asked: noon, Given: c.given, StandIns: lentTo, Least: 3}, noon.Add(time.Hour))
			if got := st.String(); got != c.want {
				t.Errorf("%s, not %s", got, c.want)
			}
			if st.Done != (c.want == "nothing") {
				t.Errorf("%+v", st)
			}
		})
	}
}

// Whoever stands in for whom, and in whatever order they come: an approval
// comes to its end, each step by as many people of its own, of whom each and
// each giver counts once; and whatever was lent is taken back, what is left is
// the words of those who gave their own.
func TestNobodyIsTwo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		steps := drawn(t)
		if starved(steps) > 0 {
			t.Skip("refused when it is read")
		}
		var role Role
		for _, s := range steps {
			role.Steps = append(role.Steps, Step{By: s.By, Count: s.Count, After: s.After, Later: s.Later})
			role.Approvers = append(role.Approvers, slices.Concat(s.By, s.Later)...)
		}
		role.Name, role.Lending.UpTo = "root", 24*time.Hour
		p := Policy{Roles: map[string]Role{"root": role}}
		names := append(slices.Clone(crew), "gil", "hal", "zoe")
		var all []roster.Delegation
		for i := range rapid.IntRange(0, 6).Draw(t, "delegations") {
			all = append(all, lend(rapid.SampledFrom(names).Draw(t, fmt.Sprint("away", i)), rapid.SampledFrom(names).Draw(t, fmt.Sprint("stand in", i)), 1))
		}
		w, now := Waiting{Asked: noon, StandIns: p.StandIns("root", "zoe", all), Least: total(steps)}, noon
		for i := range 100 {
			st := Stand(steps, w, now)
			if st.Done {
				break
			}
			now = now.Add(time.Minute)
			if len(st.Who()) == 0 || len(st.Later) > 0 && rapid.Bool().Draw(t, fmt.Sprint("waits", i)) {
				if len(st.Later) == 0 {
					t.Fatalf("stuck: %+v after %+v", st, w.Given)
				}
				now = st.From
				continue
			}
			who := rapid.SampledFrom(st.Who()).Draw(t, fmt.Sprint("who", i))
			away, ok := st.May(who)
			if !ok {
				t.Fatalf("%s may not", who)
			}
			w.Given = append(w.Given, roster.Approval{Person: who, InPlaceOf: away, At: now})
		}
		st := Stand(steps, w, now)
		if !st.Done || len(st.Counted) != total(steps) {
			t.Fatalf("%+v after %+v", st, w.Given)
		}
		once(t, steps, st.Counted, all)
		w.StandIns = nil
		own := Stand(steps, w, now)
		if slices.ContainsFunc(own.Counted, func(a roster.Approval) bool { return a.InPlaceOf != "" }) || own.Done && len(own.Counted) < total(steps) {
			t.Fatalf("taken back, and still: %+v", own)
		}
	})
}

// once checks that no giver and no word is counted twice, and that each is the
// word of one whom the step names.
func once(t *rapid.T, steps []roster.Step, counted []roster.Approval, all []roster.Delegation) {
	givers, words, at := map[string]bool{}, map[string]bool{}, 0
	for _, s := range steps {
		for range s.Count {
			a := counted[at]
			at++
			if givers[a.Person] || words[a.Whose()] || a.Person == "zoe" || !slices.Contains(slices.Concat(s.By, s.Later), a.Whose()) {
				t.Fatalf("%+v of %+v", a, counted)
			}
			lentHers := slices.ContainsFunc(all, func(d roster.Delegation) bool { return d.Away == a.InPlaceOf && d.StandIn == a.Person })
			if a.InPlaceOf != "" && (!lentHers || slices.Contains(slices.Concat(s.By, s.Later), a.Person)) {
				t.Fatalf("%+v, and %+v", a, all)
			}
			givers[a.Person], words[a.Whose()] = true, true
		}
	}
}
