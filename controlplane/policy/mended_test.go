// Failing cases for controlplane/policy: copy to controlplane/policy/defects_test.go.
package policy

import (
	"strings"
	"testing"
	"time"
)

func holdsNot(t *testing.T, text string) {
	t.Helper()
	if p, problems := read(text); Holds(problems) {
		t.Errorf("holds: %s, %+v", p.Roles["db-admin"].Selector(), p.Eligible)
	}
}

func TestMendedGroupInNestedFlow(t *testing.T) { // contract's own example and test/demo
	must(t, spoil(t, "    approval:\n      by: [ben, group:dba]\n      count: 1\n", "    approval: {by: [ben, group:dba], count: 1}\n"))
}

func TestMendedEmptyValuesWidenTheSelector(t *testing.T) {
	for _, v := range []string{`{tier: [], env: prod}`, `{tier: [""], env: prod}`, `{tier: "", env: prod}`} {
		holdsNot(t, spoil(t, "{tier: db}", v))
	}
}

func TestMendedEmptyDestinationLiftsTheLimit(t *testing.T) {
	holdsNot(t, spoil(t, "    max_duration", "    network: [\"\"]\n    max_duration"))
}

func TestMendedYearZeroIsForEver(t *testing.T) {
	holdsNot(t, spoil(t, "people: [ana]", "people: [ana], until: 0000-12-31"))
	holdsNot(t, spoil(t, "people: [ana]", "people: [ana], until: 9999-12-31")) // year 10000: no timestamp
}

func TestMendedParseIsQuadratic(t *testing.T) {
	t0 := time.Now()
	_, _ = read("labels: " + strings.Repeat("[", 30000) + strings.Repeat("]", 30000))
	if d := time.Since(t0); d > time.Second {
		t.Error(d)
	}
}

func TestMendedDocumentsAreLost(t *testing.T) { holdsNot(t, "---\n---\n"+good) }

func TestMendedPolicyWithMistakesIsGivenBack(t *testing.T) {
	p, problems := read(spoil(t, "    approval:\n      by: [ben, group:dba]\n      count: 1\n", ""))
	if v, err := p.Judge(asked(nil), hosts, noon); !Holds(problems) && err == nil {
		t.Errorf("a policy without approval judges: needed %d", v.Needed)
	}
}

func TestMendedKeyTwiceIsCalledNoYAML(t *testing.T) {
	_, problems := read(spoil(t, "    max_duration: 4h\n", "    max_duration: 4h\n    max_duration: 5h\n"))
	if s := problems[0].String(); !strings.Contains(s, "said twice") {
		t.Error(s)
	}
}

func TestMendedPatternMatchesAnywhere(t *testing.T) {
	p := must(t, strings.Replace(rules, "^INC-[0-9]+$", "INC-[0-9]+", 1))
	q := asked(nil)
	q.Ticket = "not INC-1 at all"
	if _, err := p.Judge(q, hosts, noon); err == nil {
		t.Error(q.Ticket)
	}
}

func TestMendedTextThatDoesNotShow(t *testing.T) {
	holdsNot(t, good+"# \xff\xfe\n")
	holdsNot(t, good+"# \u202e\n")
	holdsNot(t, spoil(t, "    max_duration", "    ticket: required\n    ticket_pattern: \"a\\u202eb\"\n    max_duration"))
	_, problems := read(good + "\"x\\e[31m\\nroles\": 1\n")
	for _, p := range problems {
		if strings.ContainsAny(p.String(), "\n\x1b") {
			t.Errorf("%q", p)
		}
	}
}

func TestMendedGrantOutlastsEligibility(t *testing.T) {
	p := must(t, rules)
	q := asked(nil)
	q.Role, q.Hosts, q.Duration = "db-root", []string{"db2"}, 30*time.Minute
	if _, err := p.Judge(q, hosts, time.Date(2027, 6, 30, 23, 59, 0, 0, time.UTC)); err == nil {
		t.Error("29 minutes beyond the last day")
	}
}

func TestMendedAThousandMistakesAreAllKept(t *testing.T) {
	var b strings.Builder
	for range 50000 {
		b.WriteString("- x\n")
	}
	if _, problems := read("eligible:\n" + b.String()); len(problems) > 1000 {
		t.Error(len(problems))
	}
}

// A file is empty for a moment while it is written: that is no policy under
// which every grant ends.
func TestAPolicyWithoutRolesIsAMistake(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "a comment": "# roles come later\n", "labels alone": "labels:\n  tier: [db]\n", "no role": "roles: {}\n",
	} {
		if _, problems := Parse(map[string][]byte{"p.yaml": []byte(text)}); Holds(problems) {
			t.Errorf("%s: holds, %v", name, problems)
		}
	}
}
