package enforce

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"curfew.internal/grant"
	"curfew.internal/test/need"
)

var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

func held(id, person string, commands ...string) grant.Grant {
	g := grant.Grant{
		ID: id, Person: grant.Person{Name: person, UID: grant.UIDMin}, Hosts: []string{"db1"},
		NotBefore: noon, NotAfter: noon.Add(time.Hour), Role: grant.Role{Name: "r", RunAs: []string{"root"}},
	}
	for _, c := range commands {
		parsed, err := grant.ParseCommand(c)
		if err != nil {
			panic(err)
		}
		g.Role.Commands = append(g.Role.Commands, parsed)
	}
	return g
}

func TestPlan(t *testing.T) {
	account, rule, scope := Thing{Account, "ana"}, Thing{SudoRule, "g-a"}, Thing{Network, "ana"}
	for _, c := range []struct {
		name       string
		want, seen State
		steps      []Step
	}{
		{name: "nothing to do", want: State{account: "x"}, seen: State{account: "x"}},
		{name: "account before rule", want: State{account: "x", rule: "y"}, steps: []Step{{Put, account, "x"}, {Put, rule, "y"}}},
		{name: "grant ends: rule before account", seen: State{account: "x", rule: "y"}, steps: []Step{{Op: Remove, Thing: rule}, {Op: Remove, Thing: account}}},
		{
			name: "taken away before given", want: State{account: "x"}, seen: State{rule: "y"},
			steps: []Step{{Op: Remove, Thing: rule}, {Put, account, "x"}},
		},
		{name: "scope before what it limits", want: State{account: "x", scope: "y"}, steps: []Step{{Put, scope, "y"}, {Put, account, "x"}}},
		{name: "grant ends: scope after what it limits", seen: State{account: "x", scope: "y"}, steps: []Step{{Op: Remove, Thing: account}, {Op: Remove, Thing: scope}}},
		{name: "changed by somebody", want: State{rule: "y"}, seen: State{rule: "z"}, steps: []Step{{Put, rule, "y"}}},
		{name: "an empty content is wanted too", want: State{account: ""}, steps: []Step{{Put, account, ""}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.steps, Plan(c.want, c.seen)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWantByTime(t *testing.T) {
	g := held("g-a", "ana", "/usr/bin/id")
	for _, c := range []struct {
		name string
		at   time.Time
		n    int
		next time.Time
	}{
		{"before the start", noon.Add(-time.Second), 0, noon},
		{"at the start", noon, 7, g.NotAfter},
		{"just before the end", g.NotAfter.Add(-1), 7, g.NotAfter},
		{"at the end", g.NotAfter, 0, time.Time{}},
	} {
		want, next := Want([]grant.Grant{g}, "db1", c.at)
		if len(want) != c.n || !next.Equal(c.next) {
			t.Errorf("%s: %d things, next %v", c.name, len(want), next)
		}
	}
	if want, _ := Want([]grant.Grant{g}, "web1", noon); len(want) != 0 {
		t.Errorf("on another host: %v", want)
	}
}

// On the night on which a zone's clocks go back, an hour of it is there twice.
func TestEndsAreWrittenWithoutAZone(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Time][2]string{
		time.Date(2027, 10, 31, 0, 30, 0, 0, time.UTC): {"NOTAFTER=20271031003000Z ", "2027-10-31 00:30:00"},
		time.Date(2027, 10, 31, 1, 30, 0, 0, time.UTC): {"NOTAFTER=20271031013000Z ", "2027-10-31 01:30:00"},
		time.Date(2027, 3, 28, 1, 0, 0, 0, time.UTC):   {"NOTAFTER=20270328010000Z ", "2027-03-28 01:00:00"},
	} {
		g := held("g-a", "ana", "/usr/bin/id")
		g.NotBefore, g.NotAfter = at.Add(-time.Hour), at.In(berlin)
		things, _ := Want([]grant.Grant{g}, "db1", g.NotBefore)
		if rule, timer := things[Thing{SudoRule, "g-a"}], things[Thing{EndTimer, "g-a"}]; !strings.Contains(rule, want[0]) || timer != want[1] {
			t.Errorf("%v: %s%s", at, rule, timer)
		}
	}
}

func TestWhatDrainsHasNoWayIn(t *testing.T) {
	g := held("g-a", "ana", "/usr/bin/id")
	g.Role.Drain = 10 * time.Minute
	before, _ := Want([]grant.Grant{g}, "db1", noon)
	during, next := Want([]grant.Grant{g}, "db1", g.NotAfter)
	if want := []Step{{Op: Remove, Thing: Thing{SudoRule, "g-a"}}, {Op: Remove, Thing: Thing{Principals, "ana"}}}; cmp.Diff(want, Plan(during, before)) != "" || !next.Equal(g.Drained()) {
		t.Errorf("%v, next %v", Plan(during, before), next)
	}
	if before[Thing{EndTimer, "g-a"}] != g.Drained().Format(time.DateTime) {
		t.Error("the timer would cut it short:", before[Thing{EndTimer, "g-a"}])
	}
	if after, next := Want([]grant.Grant{g}, "db1", g.Drained()); len(after) != 0 || !next.IsZero() {
		t.Errorf("%v, next %v", after, next)
	}
}

func TestTwoGrantsOfOnePerson(t *testing.T) {
	a, b := held("g-a", "ana", "/usr/bin/id"), held("g-b", "ana", "/usr/bin/who")
	b.NotAfter = b.NotAfter.Add(time.Hour)
	both, next := Want([]grant.Grant{a, b}, "db1", noon)
	if both[Thing{Principals, "ana"}] != "g-a\ng-b\n" || !next.Equal(a.NotAfter) {
		t.Errorf("%v %v", both, next)
	}
	later, _ := Want([]grant.Grant{a, b}, "db1", a.NotAfter)
	steps := Plan(later, both)
	if diff := cmp.Diff([]Step{{Op: Remove, Thing: Thing{SudoRule, "g-a"}}, {Op: Remove, Thing: Thing{EndTimer, "g-a"}}, {Put, Thing{Principals, "ana"}, "g-b\n"}}, steps); diff != "" {
		t.Errorf("the end of one cut the other: %s", diff)
	}
}

func TestNoNameHasTwoNumbersAndNoNumberTwoNames(t *testing.T) {
	numbered := func(id, person string, uid uint32) grant.Grant {
		g := held(id, person, "/usr/bin/id")
		g.Person.UID = uid
		return g
	}
	for name, set := range map[string][]grant.Grant{
		"two numbers": {numbered("g-a", "ana", grant.UIDMin), numbered("g-b", "ana", grant.UIDMin+1)},
		"two names":   {numbered("g-a", "ana", grant.UIDMin), numbered("g-b", "ben", grant.UIDMin)},
		"three":       {numbered("g-a", "ana", grant.UIDMin), numbered("g-b", "ben", grant.UIDMin), numbered("g-c", "cat", grant.UIDMin)},
	} {
		want, next := Want(append(set, numbered("g-z", "zoe", grant.UIDMin+9)), "db1", noon)
		if len(want) != 7 || want[Thing{SudoRule, "g-z"}] == "" || next.IsZero() {
			t.Errorf("%s: %v", name, want)
		}
	}
}

func TestScopeIsTheUnion(t *testing.T) {
	d1, _ := grant.ParseDestination("tcp://10.0.0.0/24:5432")
	d2, _ := grant.ParseDestination("udp://10.0.0.1")
	a, b := held("g-a", "ana"), held("g-b", "ana")
	a.Role.Network, b.Role.Network = []grant.Destination{d2, d1}, []grant.Destination{d1}
	b.NotAfter = a.NotAfter.Add(time.Hour)
	got, limited := Scope([]grant.Grant{a, b})
	if !limited || got != "70000 "+b.NotAfter.Format(time.RFC3339)+"\ntcp://10.0.0.0/24:5432\nudp://10.0.0.1/32\n" {
		t.Errorf("%q %v", got, limited)
	}
	if _, limited := Scope([]grant.Grant{a, held("g-c", "ana")}); limited {
		t.Error("a grant without a scope was limited by another")
	}
}

func TestKindsAreNamed(t *testing.T) {
	for k, name := range map[Kind]string{0: "unknown", Network: "network scope", Group: "group", Home: "home", SudoRule: "sudo rule", SudoRule + 1: "unknown"} {
		if k.String() != name {
			t.Errorf("%d: %v", k, k)
		}
	}
}

// Whatever part of a plan is carried out, nothing is there that was neither
// there before nor wanted, and the next plan ends where this one would have.
func TestAHostThatStopsHalfWayGrantsTooLittle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		things := rapid.Custom(func(t *rapid.T) Thing {
			return Thing{Kind(rapid.IntRange(1, 7).Draw(t, "kind")), rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")}
		})
		state := rapid.MapOf(things, rapid.SampledFrom([]string{"x", "y"}))
		want, seen := State(state.Draw(t, "want")), State(state.Draw(t, "seen"))
		steps := Plan(want, seen)
		stop := rapid.IntRange(0, len(steps)).Draw(t, "stop")
		now := State{}
		for k, v := range seen {
			now[k] = v
		}
		put := false
		for i, s := range steps {
			if s.Op == Put {
				put = true
			} else if put {
				t.Fatal("something is taken away after something was given")
			}
			if i >= stop {
				continue
			}
			if s.Op == Put {
				now[s.Thing] = s.Content
			} else {
				delete(now, s.Thing)
			}
		}
		for _, s := range Plan(want, now) {
			if s.Op == Put {
				now[s.Thing] = s.Content
			} else {
				delete(now, s.Thing)
			}
		}
		if diff := cmp.Diff(want, now); diff != "" && len(want)+len(now) > 0 {
			t.Fatal(diff)
		}
	})
}

// cvtsudoers is sudo's own reader of rules: what it says is what sudo does.
func parsed(t *testing.T, rule string) (users, hosts []string, commands []string, notAfter string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rule")
	if err := os.WriteFile(file, []byte(rule), 0o440); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "cvtsudoers", "-f", "json", file).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, rule)
	}
	var doc struct {
		Specs []struct {
			Users []struct{ Username string } `json:"User_List"`
			Hosts []struct{ Hostname string } `json:"Host_List"`
			Cmnds []struct {
				Options  []map[string]any
				Commands []struct{ Command string }
			} `json:"Cmnd_Specs"`
		} `json:"User_Specs"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	for _, s := range doc.Specs {
		for _, u := range s.Users {
			users = append(users, u.Username)
		}
		for _, h := range s.Hosts {
			hosts = append(hosts, h.Hostname)
		}
		for _, c := range s.Cmnds {
			for _, o := range c.Options {
				if v, ok := o["notafter"].(string); ok {
					notAfter = v
				}
			}
			for _, cmd := range c.Commands {
				commands = append(commands, cmd.Command)
			}
		}
	}
	return users, hosts, commands, notAfter
}

func TestSudoReadsTheRuleAsTheRoleSays(t *testing.T) {
	need.Program(t, "cvtsudoers", "visudo")
	word := rapid.StringMatching(`[A-Za-z0-9._+@/,:=#%~{}-]{1,12}`)
	rapid.Check(t, func(rt *rapid.T) {
		var lines, want []string
		for range rapid.IntRange(1, 4).Draw(rt, "n") {
			path := "/usr/bin/" + rapid.StringMatching(`[a-zA-Z0-9_+-]{1,10}`).Draw(rt, "path")
			args := rapid.SliceOfN(word, 0, 3).Draw(rt, "args")
			line := strings.Join(append([]string{path}, args...), " ")
			if _, err := grant.ParseCommand(line); err != nil {
				continue
			}
			lines = append(lines, line)
			if len(args) == 0 {
				line += ` ""`
			}
			want = append(want, line)
		}
		if len(lines) == 0 {
			return
		}
		users, hosts, commands, notAfter := parsed(t, Sudoers(held("g-abcdefghijklmnop", "ana", lines...)))
		if !slices.Equal(users, []string{"ana"}) || !slices.Equal(hosts, []string{"ALL"}) || notAfter != "20270131130000Z" {
			rt.Fatalf("%v %v %v", users, hosts, notAfter)
		}
		for i := range commands {
			commands[i] = strings.ReplaceAll(commands[i], `\`, "")
		}
		if !slices.Equal(commands, want) {
			rt.Fatalf("sudo reads %q, the role says %q", commands, want)
		}
	})
}

func TestVisudoTakesEveryForm(t *testing.T) {
	need.Program(t, "visudo")
	any1 := held("g-abcdefghijklmnop", "ana")
	any1.Role.AnyCommand, any1.Role.NoExec, any1.Role.RunAs = true, true, []string{"root", "postgres"}
	for _, g := range []grant.Grant{any1, held("g-abcdefghijklmnop", "a_b-c", "/usr/bin/x *", "/usr/bin/y", "/usr/bin/z a=b:c,d #e")} {
		cmd := exec.CommandContext(t.Context(), "visudo", "-cf", "-")
		cmd.Stdin = strings.NewReader(Sudoers(g))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s%s", Sudoers(g), out)
		}
	}
	if rule := Sudoers(held("g-abcdefghijklmnop", "ana")); rule != "" {
		t.Errorf("a role without commands has a rule: %s", rule)
	}
}
