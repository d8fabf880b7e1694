package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
)

const old = `labels: {tier: [db, web]}
groups:
  dba: [ben, cleo]
roles:
  db-admin:
    description: Restart
    hosts: {tier: [db]}
    commands: [/usr/bin/systemctl restart cron, /opt/a]
    network: [tcp://10.0.0.0/24:5432]
    noexec: true
    max_duration: 4h
    lease: 5m
    reason: required
    ticket: required
    ticket_pattern: '^INC-[0-9]+$'
    approval: {by: [group:dba, dan], count: 2}
eligible:
  - {role: db-admin, people: [ana], until: 2027-06-30}
  - {role: db-admin, people: [eva]}
`

var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

func must(t interface {
	Helper()
	Fatal(args ...any)
}, text string,
) policy.Policy {
	t.Helper()
	p, problems := policy.Parse(map[string][]byte{"r.yaml": []byte(text)})
	if !policy.Holds(problems) {
		t.Fatal(problems)
	}
	return p
}

func said(all []Change) []string {
	var out []string
	for _, c := range all {
		out = append(out, fmt.Sprintf("%s %s %d>%d: %s", c.Direction, c.Role, c.Old.Line, c.New.Line, c.Text))
	}
	return out
}

func TestCompareTellsEachChangeAndItsDirection(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		want           []string
		back           []string // what the way back says
	}{
		{
			"a person gains the role", "[eva]", "[eva, gil]",
			[]string{"wider db-admin 0>19: gil may ask for it"},
			[]string{"narrower db-admin 19>0: gil may no longer ask for it"},
		},
		{
			"a member of a group is an approver", "[ben, cleo]", "[ben, cleo, fay]",
			[]string{"wider db-admin 16>16: approval.by: fay is added"},
			[]string{"narrower db-admin 16>16: approval.by: fay is taken out"},
		},
		{
			"a person gains the role from a day on", "eligible:", "eligible:\n  - {role: db-admin, people: [gil, eva], from: 2027-03-01, until: 2027-03-31}",
			[]string{"wider db-admin 0>18: gil may ask for it from 2027-03-01 on, to 2027-03-31"},
			[]string{"narrower db-admin 18>0: gil may not ask for it from 2027-03-01 on any more"},
		},
		{
			"who may ask already may for longer", "eligible:", "eligible:\n  - {role: db-admin, people: [ana], from: 2027-03-01}",
			[]string{"wider db-admin 18>18: eligibility of ana moves from 2027-06-30 to no end"},
			[]string{"narrower db-admin 18>18: eligibility of ana moves from no end to 2027-06-30"},
		},
		{
			"what stood begins later", "people: [eva]", "people: [eva], from: 2027-03-01",
			[]string{"narrower db-admin 19>0: eva may no longer ask for it", "wider db-admin 0>19: eva may ask for it from 2027-03-01 on"},
			[]string{"wider db-admin 0>19: eva may ask for it"},
		},
		{
			"the line that counts is named, and none that begins later", "eligible:", "eligible:\n  - {role: db-admin, people: [gil], from: 2027-03-01}\n  - {role: db-admin, people: [gil]}",
			[]string{"wider db-admin 0>19: gil may ask for it"},
			[]string{"narrower db-admin 19>0: gil may no longer ask for it"},
		},
		{
			"an earlier proof counts", "lease: 5m", "lease: 5m\n    freshness: 10m",
			[]string{"wider db-admin 5>13: freshness: none becomes 10m"},
			[]string{"narrower db-admin 13>5: freshness: 10m becomes none"},
		},
		{
			"the step is not always asked any more", "count: 2}", "count: 2, when: risk.new_network}",
			[]string{"wider db-admin 16>16: approval: 2 of ben, cleo, dan becomes 2 of ben, cleo, dan (only if risk.new_network)"},
			[]string{"narrower db-admin 16>16: approval: 2 of ben, cleo, dan (only if risk.new_network) becomes 2 of ben, cleo, dan"},
		},
		{
			"another step is asked in doubt", "{by: [group:dba, dan], count: 2}", "[{by: [group:dba, dan], count: 2}, {by: [fay], when: risk.first_time}]",
			[]string{"other db-admin 16>16: approval: 2 of ben, cleo, dan becomes 2 of ben, cleo, dan, then 1 of fay (only if risk.first_time)"},
			[]string{"other db-admin 16>16: approval: 2 of ben, cleo, dan, then 1 of fay (only if risk.first_time) becomes 2 of ben, cleo, dan"},
		},
		{"a first day that is past changes nothing", "people: [eva]", "people: [eva], from: 2027-01-31", nil, nil},
		{
			"some hosts are production", "eligible:", "production:\n  hosts: {tier: db}\neligible:",
			[]string{"other - 0>17: production is tier=db: no role there is without an approval"},
			[]string{"other - 17>0: no hosts are said to be production: nothing keeps a role from being given unapproved there"},
		},
		{
			"the last day moves", "2027-06-30", "2027-09-30",
			[]string{"wider db-admin 18>18: eligibility of ana moves from 2027-06-30 to 2027-09-30"},
			[]string{"narrower db-admin 18>18: eligibility of ana moves from 2027-09-30 to 2027-06-30"},
		},
		{
			"the last day goes", ", until: 2027-06-30", "",
			[]string{"wider db-admin 18>18: eligibility of ana moves from 2027-06-30 to no end"},
			[]string{"narrower db-admin 18>18: eligibility of ana moves from no end to 2027-06-30"},
		},
		{
			"the last day is past", "2027-06-30", "2027-01-30",
			[]string{"narrower db-admin 18>0: ana may no longer ask for it"},
			[]string{"wider db-admin 0>18: ana may ask for it"},
		},
		{
			"the maximum", "4h", "6h",
			[]string{"wider db-admin 11>11: max_duration: 4h becomes 6h"},
			[]string{"narrower db-admin 11>11: max_duration: 6h becomes 4h"},
		},
		{
			"a condition", "max_duration: 4h", "max_duration: 4h\n    when: length <= duration('1h')",
			[]string{"narrower db-admin 5>12: has to hold besides: length <= duration('1h')"},
			[]string{"wider db-admin 12>5: has to hold no longer: length <= duration('1h')"},
		},
		{
			"fewer approvals", "count: 2", "count: 1",
			[]string{"wider db-admin 16>16: approval: 2 by its approvers becomes 1 by its approvers"},
			[]string{"narrower db-admin 16>16: approval: 1 by its approvers becomes 2 by its approvers"},
		},
		{
			"nobody has to approve", "{by: [group:dba, dan], count: 2}", "none",
			[]string{"wider db-admin 16>16: approval: 2 by its approvers becomes none"},
			[]string{"narrower db-admin 16>16: approval: none becomes 2 by its approvers"},
		},
		{
			"more hosts", "{tier: [db]}", "{tier: [db, web]}",
			[]string{"wider db-admin 7>7: hosts: tier=db becomes tier=db|web"},
			[]string{"narrower db-admin 7>7: hosts: tier=db|web becomes tier=db"},
		},
		{
			"all hosts", "hosts: {tier: [db]}", "all_hosts: true",
			[]string{"wider db-admin 5>7: all_hosts: tier=db becomes all hosts"},
			[]string{"narrower db-admin 5>7: hosts: all hosts becomes tier=db"},
		},
		{
			"other hosts", "{tier: [db]}", "{tier: [web]}",
			[]string{"other db-admin 7>7: hosts: tier=db becomes tier=web"},
			[]string{"other db-admin 7>7: hosts: tier=web becomes tier=db"},
		},
		{
			"another command", "/opt/a", "/opt/b",
			[]string{"wider db-admin 8>8: commands: /opt/b is added", "narrower db-admin 8>8: commands: /opt/a is taken out"},
			[]string{"wider db-admin 8>8: commands: /opt/a is added", "narrower db-admin 8>8: commands: /opt/b is taken out"},
		},
		{
			"any command", "commands: [/usr/bin/systemctl restart cron, /opt/a]", "any_command: true",
			[]string{"wider db-admin 5>8: any command, in place of those that are named"},
			[]string{"narrower db-admin 8>5: the commands that are named, in place of any"},
		},
		{
			"the network opens", "    network: [tcp://10.0.0.0/24:5432]\n", "",
			[]string{"wider db-admin 9>5: connections are no longer limited"},
			[]string{"narrower db-admin 5>9: connections are limited to tcp://10.0.0.0/24:5432"},
		},
		{
			"noexec goes", "noexec: true", "noexec: false",
			[]string{"wider db-admin 10>10: noexec: true becomes false"},
			[]string{"narrower db-admin 10>10: noexec: false becomes true"},
		},
		{
			"people's keys sign no more", "noexec: true", "noexec: true\n    human_signatures: true",
			[]string{"narrower db-admin 5>11: human_signatures: false becomes true"},
			[]string{"wider db-admin 11>5: human_signatures: true becomes false"},
		},
		{
			"a lease goes: nothing bounds a host that hears nothing", "    lease: 5m\n", "",
			[]string{"wider db-admin 12>5: lease: 5m becomes none"},
			[]string{"narrower db-admin 5>12: lease: none becomes 5m"},
		},
		{
			"a ticket is asked for no more", "ticket: required", "ticket: optional",
			[]string{"wider db-admin 14>14: ticket: required becomes optional"},
			[]string{"narrower db-admin 14>14: ticket: optional becomes required"},
		},
		{
			"roles are kept apart", "eligible:\n", "  b:\n    all_hosts: true\n    max_duration: 1h\n    approval: none\napart:\n  - {roles: [db-admin, b]}\neligible:\n",
			[]string{"other b 0>17: the role is new: read it as a whole", "narrower db-admin 5>5: is kept apart from b"},
			[]string{"narrower b 17>0: the role is gone", "wider db-admin 5>5: is no longer kept apart from b"},
		},
		{
			"the same hosts in another spelling", "tier: [db]}", "tier: db}", nil, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Count(old, c.from) != 1 {
				t.Fatal(c.from)
			}
			a, b := must(t, old), must(t, strings.Replace(old, c.from, c.to, 1))
			if diff := cmp.Diff(c.want, said(Compare(a, b, noon))); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.back, said(Compare(b, a, noon))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompareTellsRolesThatComeAndGo(t *testing.T) {
	more := strings.Replace(old, "eligible:", "  look:\n    all_hosts: true\n    max_duration: 1h\n    approval: none\neligible:\n  - {role: look, people: [zoe]}", 1)
	a, b := must(t, old), must(t, more)
	want := []string{"wider look 0>22: zoe may ask for it", "other look 0>17: the role is new: read it as a whole"}
	if diff := cmp.Diff(want, said(Compare(a, b, noon))); diff != "" {
		t.Error(diff)
	}
	want = []string{"narrower look 22>0: zoe may no longer ask for it", "narrower look 17>0: the role is gone"}
	if diff := cmp.Diff(want, said(Compare(b, a, noon))); diff != "" {
		t.Error(diff)
	}
}

// whole is a policy made of chance.
func whole(t *rapid.T, name string) policy.Policy {
	people := []string{"ana", "ben", "cleo", "dan", "eva"}
	some := func(what string) string {
		return "[" + strings.Join(rapid.SliceOfNDistinct(rapid.SampledFrom(people), 1, 4, rapid.ID).Draw(t, name+what), ", ") + "]"
	}
	until := rapid.SampledFrom([]string{"", ", until: 2027-06-30", ", until: 2027-01-30", ", until: 2028-01-01"})
	text := "labels: {tier: [db, web]}\ngroups:\n  g: " + some("group") + "\nroles:\n"
	roles := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"r", "s", "t"}), 1, 3, rapid.ID).Draw(t, name+"roles")
	for _, r := range roles {
		text += fmt.Sprintf("  %s:\n    hosts: {tier: %s}\n    max_duration: %dh\n    approval: {by: [zoe, group:g], count: 1}\n", r,
			rapid.SampledFrom([]string{"db", "web", "[db, web]"}).Draw(t, name+"tier"), rapid.IntRange(1, 3).Draw(t, name+"hours"))
	}
	text += "eligible:\n"
	for i := range rapid.IntRange(1, 4).Draw(t, name+"lines") {
		text += fmt.Sprintf("  - {role: %s, people: %s%s}\n", rapid.SampledFrom(roles).Draw(t, fmt.Sprint(name, "role", i)), some("people"), until.Draw(t, fmt.Sprint(name, "until", i)))
	}
	return must(t, text)
}

// Whoever may ask under one policy alone is told of, and nobody else; no
// change is no change; and the way back is the way turned round.
func TestCompareIsWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := whole(t, "a"), whole(t, "b")
		if same := Compare(a, a, noon); len(same) != 0 {
			t.Fatalf("%v", said(same))
		}
		for role, people := range asks(a, noon) {
			for person, until := range people {
				if u, ok := a.EligibleUntil(person, role, noon); !ok || !u.Equal(until) {
					t.Fatalf("%s asks for %s until %v, not %v", person, role, u, until)
				}
			}
		}
		gained, lost := map[string]bool{}, map[string]bool{}
		turned := 0
		for _, c := range Compare(a, b, noon) {
			for _, person := range c.People {
				switch {
				case c.Kind == "eligible" && c.Direction == Wider:
					gained[c.Role+" "+person] = true
				case c.Kind == "eligible":
					lost[c.Role+" "+person] = true
				}
			}
			if c.Kind != "role" && c.Direction == Wider {
				turned++
			}
		}
		for _, person := range b.People() {
			for _, role := range []string{"r", "s", "t"} {
				_, was := a.EligibleUntil(person, role, noon)
				_, is := b.EligibleUntil(person, role, noon)
				if key := role + " " + person; gained[key] != (is && !was) || lost[key] != (was && !is) {
					t.Fatalf("%s: was %v, is %v", key, was, is)
				}
			}
		}
		for _, c := range Compare(b, a, noon) {
			if c.Kind != "role" && c.Direction == Narrower {
				turned--
			}
		}
		if turned != 0 {
			t.Fatalf("%v\n%v", said(Compare(a, b, noon)), said(Compare(b, a, noon)))
		}
	})
}

// A plan goes over the policy once for all; for each person it says what the
// policy says of her, whatever lines she has.
func TestAsksAsThePolicySays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := old
		for i := range rapid.IntRange(0, 5).Draw(t, "lines") {
			day := func(name string) string {
				return noon.AddDate(0, 0, rapid.IntRange(0, 6).Draw(t, fmt.Sprint(name, i))).Format(time.DateOnly)
			}
			from, until := day("from"), day("until")
			if from > until {
				from, until = until, from
			}
			text += "  - {role: db-admin, people: [gil]"
			if rapid.Bool().Draw(t, fmt.Sprint("begins", i)) {
				text += ", from: " + from
			}
			if rapid.IntRange(0, 3).Draw(t, fmt.Sprint("ends", i)) > 0 {
				text += ", until: " + until
			}
			text += "}\n"
		}
		p, at := must(t, text), noon.AddDate(0, 0, rapid.IntRange(0, 7).Draw(t, "at"))
		until, ok := p.EligibleUntil("gil", "db-admin", at)
		said, has := asks(p, at)["db-admin"]["gil"]
		if ok != has || !until.Equal(said) {
			t.Fatalf("%v, %v, but %v, %v\n%s", until, ok, said, has, text)
		}
		for now := at; ok && now.Before(until); now = now.Add(12 * time.Hour) {
			if _, still := p.EligibleUntil("gil", "db-admin", now); !still {
				t.Fatalf("not at %v\n%s", now, text)
			}
		}
		if _, still := p.EligibleUntil("gil", "db-admin", until); ok && !until.IsZero() && still {
			t.Fatalf("at %v, too\n%s", until, text)
		}
	})
}

func TestReplaysTellWhatTheNewPolicyWouldHaveSaid(t *testing.T) {
	hosts := []roster.Host{{Name: "db1", Labels: map[string]string{"tier": "db"}}}
	ask := func(id, person string, d time.Duration) Past {
		q := roster.Question{Person: person, Role: "db-admin", Hosts: []string{"db1"}, Duration: d, Reason: "x", Ticket: "INC-1"}
		return Past{ID: id, Question: q, At: noon}
	}
	asked := []Past{ask("r-1", "ana", time.Hour), ask("r-2", "ana", 3*time.Hour), ask("r-3", "gil", time.Hour), ask("r-4", "ben", time.Hour)}
	for _, c := range []struct {
		name, from, to string
		want           []string
	}{
		{"nothing", "Restart", "Restart it", nil},
		{"a lower maximum", "4h", "2h", []string{"narrower r-2: would be refused: role db-admin lasts 2h at most: ask for that or less"}},
		{"a new person", "[eva]", "[gil, eva]", []string{
			"wider r-3: would be allowed, with 2 approvals; it is refused: you are not eligible for role \"db-admin\": " +
				"there is no role that you may ask for; ask who keeps the policy to make you eligible",
		}},
		{"fewer approvals", "count: 2", "count: 1", []string{"wider r-1: would need 1 approvals, and needs 2", "wider r-2: would need 1 approvals, and needs 2"}},
		{"other approvers", "dan]", "fay]", []string{
			"other r-1: would be approved by ben, cleo, fay, and is by ben, cleo, dan", "other r-2: would be approved by ben, cleo, fay, and is by ben, cleo, dan",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, r := range Replays(must(t, old), must(t, strings.Replace(old, c.from, c.to, 1)), asked, hosts) {
				got = append(got, r.Direction+" "+r.Request+": "+r.Text)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A request that was made ahead is judged as of when it is to begin, as the server did.
func TestReplaysGoByWhenAGrantWouldBegin(t *testing.T) {
	hosts := []roster.Host{{Name: "db1", Labels: map[string]string{"tier": "db"}}}
	q := roster.Question{Person: "eva", Role: "db-admin", Hosts: []string{"db1"}, Duration: time.Hour, Reason: "x", Ticket: "INC-1"}
	asked := []Past{{ID: "r-1", Question: q, At: noon, Start: noon.AddDate(0, 0, 2)}, {ID: "r-2", Question: q, At: noon}}
	var got []string
	for _, r := range Replays(must(t, old), must(t, strings.Replace(old, "people: [eva]", "people: [eva], from: 2027-02-01", 1)), asked, hosts) {
		got = append(got, r.Direction+" "+r.Request)
	}
	if diff := cmp.Diff([]string{"narrower r-2"}, got); diff != "" {
		t.Error(diff)
	}
}

// What was out of the ordinary is what was kept with each request; of one from
// before that was kept, nothing is known, and the step would be asked.
func TestReplaysGoByWhatWasKept(t *testing.T) {
	hosts := []roster.Host{{Name: "db1", Labels: map[string]string{"tier": "db"}}}
	yes, no := true, false
	var asked []Past
	for id, isNew := range map[string]*bool{"r-1": &yes, "r-2": &no, "r-3": nil} {
		q := roster.Question{
			Person: "eva", Role: "db-admin", Hosts: []string{"db1"}, Duration: time.Hour, Reason: "x", Ticket: "INC-1", Risk: roster.Risk{NewNetwork: isNew},
		}
		asked = append(asked, Past{ID: id, Question: q, At: noon})
	}
	slices.SortFunc(asked, func(a, b Past) int { return strings.Compare(a.ID, b.ID) })
	to := strings.Replace(old, "{by: [group:dba, dan], count: 2}", "[{by: [group:dba, dan], count: 2}, {by: [fay], when: risk.new_network}]", 1)
	var got []string
	for _, r := range Replays(must(t, old), must(t, to), asked, hosts) {
		got = append(got, r.Direction+" "+r.Request+": "+r.Text)
	}
	want := []string{
		"narrower r-1: would need 3 approvals, and needs 2, because the request comes from a network that is new for eva",
		"narrower r-3: would need 3 approvals, and needs 2, because the network that the request comes from is not known",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Whom a directory lets in stands in no file: that it does is told by itself.
func TestCompareTellsGroupsThatADirectoryKeeps(t *testing.T) {
	from := must(t, old)
	to := must(t, strings.Replace(old, "dba: [ben, cleo]", "dba: {directory: DBA team}", 1))
	members := roster.Directory{Members: map[string][]string{"DBA team": {"ben", "cleo"}}}
	if diff := cmp.Diff([]string{`other - 3>3: the directory's "DBA team" says who is in group dba: at any time`}, said(Compare(from.With(members), to.With(members), noon))); diff != "" {
		t.Error(diff)
	}
	by := must(t, strings.Replace(old, "by: [group:dba, dan]", "by: [group:dba, dan, requester:manager]", 1))
	if diff := cmp.Diff([]string{`wider db-admin 16>16: approval.by: requester:manager is added`}, said(Compare(from, by, noon))); diff != "" {
		t.Error(diff)
	}
	if all := Compare(to.With(members), to.With(members), noon); len(all) != 0 {
		t.Errorf("%q", said(all))
	}
}

func TestCompareTellsWhoIsOnCallInTurn(t *testing.T) {
	const text = `groups:
  oncall: {rotation: [ben, cleo], from: 2027-01-04, at: '09:00', zone: Europe/Berlin}
roles:
  ops: {all_hosts: true, max_duration: 1h, approval: {by: [group:oncall]}}
eligible:
  - {role: ops, people: [ana]}
`
	for _, c := range []struct{ name, from, to, want string }{
		{"nothing changes", "ben", "ben", ""},
		{"another turn", "ben, cleo", "cleo, ben", "on call in group oncall are, week by week, cleo, ben"},
		{"another hour", "09:00", "10:00", "on call in group oncall are, week by week, ben, cleo"},
		{"another zone of the same hour", "Europe/Berlin", "Europe/Paris", "on call in group oncall are, week by week, ben, cleo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(said(Compare(must(t, text), must(t, strings.Replace(text, c.from, c.to, 1)), noon)), "; ")
			if want := "other - 2>2: " + c.want; c.want != "" && got != want || c.want == "" && got != "" {
				t.Error(got)
			}
		})
	}
}

// A request on an earlier proof is told of where the new policy takes none so old.
func TestReplaysTellOfProofsThatCountNoMore(t *testing.T) {
	hosts := []roster.Host{{Name: "db1", Labels: map[string]string{"tier": "db"}}}
	q := roster.Question{Person: "eva", Role: "db-admin", Hosts: []string{"db1"}, Duration: time.Hour, Reason: "x", Ticket: "INC-1"}
	asked := []Past{{ID: "r-1", Question: q, At: noon}, {ID: "r-2", Question: q, At: noon, ProofAge: 4 * time.Minute}, {ID: "r-3", Question: q, At: noon, ProofAge: 5 * time.Minute}}
	fresh := func(age string) string { return strings.Replace(old, "lease: 5m", "lease: 5m\n    freshness: "+age, 1) }
	const text = ": would take a proof of its own, and stands on one that was "
	for _, c := range []struct {
		from, to string
		want     []string
	}{
		{fresh("10m"), old, []string{"narrower r-2" + text + "4m old", "narrower r-3" + text + "5m old"}},
		{fresh("10m"), fresh("5m"), []string{"narrower r-3" + text + "5m old"}},
		{fresh("5m"), fresh("10m"), nil},
		{old, fresh("10m"), nil},
	} {
		var got []string
		for _, r := range Replays(must(t, c.from), must(t, c.to), asked, hosts) {
			got = append(got, r.Direction+" "+r.Request+": "+r.Text)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Error(diff)
		}
	}
}
