package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"curfew.internal/grant"
)

// Each line of the list says what, when, how, and where it is written.
func TestProgramsAreAList(t *testing.T) {
	page := regexp.MustCompile(`^[a-z0-9._+-]+\([1-8]\)$`)
	seen := map[string]bool{}
	for l := range contents(programsText) {
		f := strings.Split(l, " | ")
		if len(f) != 5 || f[3] == "" || !page.MatchString(f[4]) || seen[f[0]] {
			t.Errorf("%q", l)
			continue
		}
		seen[f[0]] = true
		when := strings.Fields(f[2])
		if !slices.Contains([]string{"shell", "editor", "pager", "starts", "writes", "rights"}, f[1]) || when[0] != "always" && when[0] != "free" {
			t.Errorf("%q: no such kind, or no such time", l)
		}
		if text, fix := wide(grant.Command{Path: "/usr/bin/" + f[0], AnyArgs: true}, false); text == "" || fix == "" {
			t.Errorf("%s with any arguments draws no warning", f[0])
		}
	}
	for name, words := range readers {
		if _, both := programs[name]; both && len(words) == 0 && programs[name].always {
			t.Errorf("%s only looks, and gives a shell", name)
		}
	}
	if len(seen) < 150 || len(readers) < 40 {
		t.Errorf("%d programs, %d readers", len(seen), len(readers))
	}
}

func said(problems []Problem) []string {
	all := []string{}
	for _, p := range problems {
		all = append(all, p.String())
	}
	return all
}

func TestEligibilityThatEndedIsWarnedOf(t *testing.T) {
	p := must(t, rules)
	for at, want := range map[time.Time][]string{
		noon.AddDate(0, 0, -2): {},
		noon: {
			"roles.yaml:43:5: warning: eligible: the eligibility for look ended with 2027-01-30: take the line out, or write a later day",
		},
	} {
		if diff := cmp.Diff(want, said(p.Aged(at))); diff != "" {
			t.Errorf("%v: %s", at, diff)
		}
	}
	// It ends with its last day, and not before.
	last := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	if n := len(p.Aged(last.Add(-time.Nanosecond))); n != 0 {
		t.Errorf("%d warnings on the last day", n)
	}
	if n := len(p.Aged(last)); n != 1 {
		t.Errorf("%d warnings after it", n)
	}
}

// From the day of its review on, an eligibility is warned of, and counts as
// before.
func TestEligibilityThatIsToBeLookedAtIsWarnedOf(t *testing.T) {
	p := must(t, strings.Replace(rules, "until: 2027-01-30", "until: 2027-03-30, review: 2027-01-30", 1))
	day := time.Date(2027, 1, 30, 0, 0, 0, 0, time.UTC)
	for at, want := range map[time.Time][]string{
		day.Add(-time.Nanosecond): {},
		day: {
			"roles.yaml:43:5: warning: eligible: the eligibility for look was to be looked at again on 2027-01-30: take out who needs it no more, then write a later review",
		},
	} {
		if diff := cmp.Diff(want, said(p.Aged(at))); diff != "" {
			t.Errorf("%v: %s", at, diff)
		}
	}
	if ended := said(p.Aged(day.AddDate(0, 3, 0))); strings.Contains(strings.Join(ended, "\n"), "looked at again") {
		t.Errorf("what has ended is to be looked at: %v", ended)
	}
	if _, problems := Parse(map[string][]byte{"roles.yaml": []byte(strings.Replace(rules, "until: 2027-01-30", "review: soon", 1))}); Holds(problems) ||
		!strings.Contains(strings.Join(texts(problems), "\n"), "review: no date: write YEAR-MONTH-DAY") {
		t.Errorf("%v", problems)
	}
}

func TestStrangersAreWarnedOf(t *testing.T) {
	p := must(t, rules)
	want := []string{
		`roles.yaml:5:3: warning: groups.dba: not known to the fleet, or disabled: ben, cleo: mend the name, or add the person`,
		`roles.yaml:14:7: warning: roles.db-admin.approval.by: cannot be approved: of its approvers, the fleet does not know ben, cleo: name approvers who are there`,
		`roles.yaml:25:7: warning: roles.db-root.approval.by: cannot be approved: of its approvers, the fleet does not know ben, cleo: name approvers who are there`,
		`roles.yaml:39:5: warning: eligible: not known to the fleet, or disabled: ben: mend the name, or add the person`,
		`roles.yaml:40:5: warning: eligible: not known to the fleet, or disabled: ben: mend the name, or add the person`,
	}
	if diff := cmp.Diff(want, said(p.Strangers([]string{"ana", "dan", "eva"}))); diff != "" {
		t.Error(diff)
	}
	want = []string{
		`roles.yaml:25:7: warning: roles.db-root.approval.by: approvers who are not known to the fleet, or disabled: dan: mend the name, or add the person`,
	}
	if diff := cmp.Diff(want, said(p.Strangers([]string{"ana", "ben", "cleo", "eva"}))); diff != "" {
		t.Error(diff)
	}
	if s := p.Strangers(p.People()); len(s) != 0 {
		t.Errorf("all are known: %v", s)
	}
}

// Advice stops nothing, and each piece has its place and its fix.
func TestAdviceIsAdvice(t *testing.T) {
	commands := []string{"/usr/bin/id", "/usr/bin/vim *", "/usr/sbin/visudo", "/opt/x *", "/usr/bin/less /etc/motd", "/usr/bin/systemctl restart cron"}
	rapid.Check(t, func(t *rapid.T) {
		chosen := rapid.SliceOfNDistinct(rapid.SampledFrom(commands), 1, 4, rapid.ID).Draw(t, "commands")
		text := strings.Replace(rules, "commands: [/usr/bin/id]", "commands: ["+strings.Join(quoted(chosen), ", ")+"]", 1)
		text = strings.Replace(text, "max_duration: 4h", fmt.Sprintf("max_duration: %dh", rapid.IntRange(1, 720).Draw(t, "hours")), 1)
		p, problems := read(text)
		if !Holds(problems) || p.Version == "" {
			t.Fatalf("%v", problems)
		}
		problems = slices.Concat(problems, p.Aged(noon), p.Strangers(nil))
		for _, pr := range problems {
			if !pr.Warning || pr.File != "roles.yaml" || pr.Line < 2 || pr.Fix == "" || pr.Field == "" {
				t.Fatalf("%+v", pr)
			}
		}
	})
}

func quoted(all []string) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = "'" + s + "'"
	}
	return out
}
