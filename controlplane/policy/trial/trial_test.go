package trial

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/controlplane/policy"
)

const rulesText = `labels: {tier: [db, web]}
groups:
  dba: [ben, cleo]
roles:
  db-admin:
    hosts: {tier: db}
    commands: [/usr/bin/systemctl restart cron]
    max_duration: 4h
    approval: {by: [group:dba]}
    when: source.inside('10.0.0.0/8')
eligible:
  - {role: db-admin, people: [ana], until: 2027-06-30}
  - {role: db-admin, groups: [dba]}
  - {role: db-admin, people: [dan], from: 2027-02-01}
`

const good = `tests:
  - name: ana restarts the database
    who: ana
    role: db-admin
    host: {tier: db}
    for: 2h
    at: 2027-01-31T12:00:00Z
    reason: disk full
    ticket: INC-1
    expect: allowed
    approvals: 1
    approvers: [cleo, ben]
  - {name: not on web servers, who: ana, role: db-admin, host: {tier: web}, for: 9h, expect: refused, because: [hosts, duration]}
  - name: nor after June
    who: ana
    role: db-admin
    at: 2027-07-01T00:00:00Z
    expect: refused
    because: [eligibility]
  - {name: dan is eligible from February on, who: dan, role: db-admin, at: 2027-02-01T00:00:00Z, expect: allowed}
  - {name: and not before, who: dan, role: db-admin, at: 2027-01-31T23:59:59Z, expect: refused, because: [eligibility]}
`

var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

func held(t *testing.T) policy.Policy {
	t.Helper()
	p, problems := policy.Parse(map[string][]byte{"roles.yaml": []byte(rulesText)})
	if !policy.Holds(problems) {
		t.Fatal(problems)
	}
	return p
}

func run(t *testing.T, text string) []string {
	t.Helper()
	tests, problems := Parse(map[string][]byte{"t.yaml": []byte(text)})
	var said []string
	for _, p := range problems {
		said = append(said, p.String())
	}
	for _, o := range Run(held(t), tests, noon) {
		said = append(said, fmt.Sprintf("%s %s %v", o.Place, o.Name, o.Passed))
		said = append(said, o.Wrong...)
	}
	return said
}

func TestTestsThatHold(t *testing.T) {
	want := []string{
		"t.yaml:2:5 ana restarts the database true", "t.yaml:13:6 not on web servers true", "t.yaml:14:5 nor after June true",
		"t.yaml:20:6 dan is eligible from February on true", "t.yaml:21:6 and not before true",
	}
	if diff := cmp.Diff(want, run(t, good)); diff != "" {
		t.Error(diff)
	}
}

func TestTestsThatFailSayByWhichRule(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		want           []string
	}{
		{
			"allowed is refused", "{tier: db}", "{tier: web}",
			[]string{"expected allowed, is refused: the role covers hosts with tier=db, and the host has tier=web (roles.yaml:6:5)"},
		},
		{
			"refused is allowed", "2027-07-01", "2027-06-30",
			[]string{"expected refused, is allowed: ana is eligible by name, to the end of 2027-06-30 (roles.yaml:12:5)"},
		},
		{
			"for another reason", "because: [eligibility]", "because: [hosts]",
			[]string{"expected refused because of hosts, is refused because of eligibility: " +
				"ana was eligible by name, and that ended with 2027-06-30 (roles.yaml:12:5)"},
		},
		{
			"the count and the names of approvers", "approvals: 1\n    approvers: [cleo, ben]", "approvals: 2\n    approvers: [ben]",
			[]string{
				"expected 2 approvals, needs 1: 1 approval by group dba (ben, cleo) (roles.yaml:9:16)",
				"expected approvers ben, has ben, cleo: 1 approval by group dba (ben, cleo) (roles.yaml:9:16)",
			},
		},
		{
			"because of a condition", "role: db-admin\n    at: 2027-07-01T00:00:00Z\n    expect: refused\n    because: [eligibility]", "role: db-admin\n    from: 192.0.2.1\n    expect: allowed",
			[]string{"expected allowed, is refused: a condition does not hold: source.inside('10.0.0.0/8') (roles.yaml:10:11)"},
		},
		{
			"a label that no host has", "host: {tier: web}", "host: {teir: web}", []string{`host: the policy has no label "teir"`},
		},
		{
			"a value that it does not have", "host: {tier: web}", "host: {tier: cache}", []string{`host: label tier has no value "cache", but db, web`},
		},
		{
			"a role that is not there", "role: db-admin\n    host", "role: db-amin\n    host",
			[]string{
				`expected allowed, is refused: there is no role "db-amin" (the policy has db-admin)`,
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(good, c.from) {
				t.Fatal(c.from)
			}
			var wrong []string
			for _, l := range run(t, strings.Replace(good, c.from, c.to, 1)) {
				if !strings.HasPrefix(l, "t.yaml") {
					wrong = append(wrong, l)
				}
			}
			if diff := cmp.Diff(c.want, wrong); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMistakesInTestsHaveTheirLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "no tests: write some in FOLDER/tests/*.yaml: see curfew policy test --help",
		"tests: 1\n":                   "t.yaml:1:6: not a list of tests: write `tests:` alone, and `- name: ...` lines under it",
		"tests:\n  - x\n":              "t.yaml:2:5: not a test: " + keys,
		"tests: [\n":                   "t.yaml:1:8: this is no YAML: check indentation and quotes here",
		"tests:\n  - whom: ana\n":      "t.yaml:2:5: a key that is not known, or a value of another kind: " + keys,
		"tests:\n  - approvals: two\n": "t.yaml:2:16: a key that is not known, or a value of another kind: " + keys,
		"tests:\n  - {name: x, who: ana, role: r, expect: maybe}\n":                     `t.yaml:2:5: expect: "maybe": write allowed or refused`,
		"tests:\n  - {name: x, who: ana, role: r, expect: allowed, for: 2 h}\n":         `t.yaml:2:5: for: "2 h" is no duration: write 30m, 2h or 7d`,
		"tests:\n  - {name: x, who: ana, role: r, expect: allowed, at: noon}\n":         `t.yaml:2:5: at: "noon" is no time: write it like 2027-01-31T14:00:00Z, or leave it out for now`,
		"tests:\n  - {name: x, who: ana, role: r, expect: allowed, because: [hosts]}\n": "t.yaml:2:5: because: nothing refuses what is allowed: leave it out",
		"tests:\n  - {name: x, who: ana, role: r, expect: refused, because: [moon]}\n":  `t.yaml:2:5: because: "moon" is no rule: write some of role, eligibility, hosts, duration, until, reason, ticket, when, approval`,
		"tests:\n  - {name: x, who: ana, role: r, expect: refused, risk: {new_network: perhaps, moon: full}}\n": `t.yaml:2:5: risk: moon: "moon" is no fact` + "\n" +
			`new_network: "perhaps" is neither true nor false: write some of {new_network: true, first_time: true, factor_refused: 3, factor_age: 2h}`,
		"tests:\n  - {name: x, role: r, expect: refused}\n":                      "t.yaml:2:5: who is missing: " + keys,
		"tests:\n  - {name: \"a\u202eb\", who: ana, role: r, expect: refused}\n": "t.yaml:1:1: holds U+202E, which does not show: take it out",
	} {
		_, problems := Parse(map[string][]byte{"t.yaml": []byte(text)})
		if len(problems) != 1 || problems[0].String() != want {
			t.Errorf("%q: %v\n%s", text, problems, want)
		}
	}
}

// A test may say what is known of the risk. What it leaves out is not known, and
// a step that looks at it is asked.
func TestTestsMaySayTheRisk(t *testing.T) {
	rules := strings.Replace(rulesText, "approval: {by: [group:dba]}", "approval: [{by: [group:dba]}, {by: [hal], when: 'risk.new_network || risk.factor_age < duration(\"1h\")'}]", 1)
	p, problems := policy.Parse(map[string][]byte{"roles.yaml": []byte(rules)})
	if !policy.Holds(problems) {
		t.Fatal(problems)
	}
	const one = "tests:\n  - {name: x, who: ana, role: db-admin, at: 2027-01-31T12:00:00Z, expect: allowed, approvals: 1, risk: %s}\n"
	for risk, wrong := range map[string]string{
		"{new_network: false, factor_age: 2h}": "",
		"{new_network: true, factor_age: 2h}": "expected 1 approvals, needs 2: step 1 of 2: 1 approval by group dba (ben, cleo) (roles.yaml:9:17); step 2 of 2: 1 approval by hal; " +
			"it is asked because the request comes from a network that is new for ana, and the newest factor of ana was enrolled 2h before (roles.yaml:9:36)",
		"{new_network: false}": "expected 1 approvals, needs 2: step 1 of 2: 1 approval by group dba (ben, cleo) (roles.yaml:9:17); step 2 of 2: 1 approval by hal; " +
			"it is asked only if risk.new_network || risk.factor_age < duration(\"1h\"), judged by what is not said here (risk.factor_age) (roles.yaml:9:36)",
	} {
		tests, problems := Parse(map[string][]byte{"t.yaml": fmt.Appendf(nil, one, risk)})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if got := strings.Join(Run(p, tests, noon)[0].Wrong, "\n"); got != wrong {
			t.Errorf("%s: %s", risk, got)
		}
	}
}

// A test may hold a role to how old a proof may be.
func TestTestsMaySayTheFreshness(t *testing.T) {
	for _, c := range []struct{ role, test, wrong string }{
		{"", "none", ""},
		{"", "10m", "expected freshness 10m, has none"},
		{"freshness: 10m", "none", "expected freshness none, has 10m"},
		{"freshness: 1h", "60m", ""},
	} {
		p, problems := policy.Parse(map[string][]byte{"roles.yaml": []byte(strings.Replace(rulesText, "max_duration: 4h", "max_duration: 4h\n    "+c.role, 1))})
		if !policy.Holds(problems) {
			t.Fatal(problems)
		}
		tests, problems := Parse(map[string][]byte{"t.yaml": fmt.Appendf(nil, "tests:\n  - {name: x, who: ana, role: db-admin, at: 2027-01-31T12:00:00Z, expect: allowed, freshness: %s}\n", c.test)})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if got := strings.Join(Run(p, tests, noon)[0].Wrong, "\n"); got != c.wrong {
			t.Errorf("%+v: %s", c, got)
		}
	}
	_, problems := Parse(map[string][]byte{"t.yaml": []byte("tests:\n  - {name: x, who: ana, role: db-admin, expect: allowed, freshness: soon}\n")})
	if len(problems) != 1 || !strings.Contains(problems[0].String(), `freshness: "soon" is no duration`) {
		t.Errorf("%v", problems)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("tests: [{who: 1, host: {a: [b]}}]"))
	f.Add([]byte("tests: &a\n  - *a\n"))
	p, problems := policy.Parse(map[string][]byte{"roles.yaml": []byte(rulesText)})
	if !policy.Holds(problems) {
		f.Fatal(problems)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		tests, problems := Parse(map[string][]byte{"t.yaml": text})
		for _, pr := range problems {
			if pr.Text == "" || pr.Fix == "" || !utf8.ValidString(pr.String()) {
				t.Errorf("%+v", pr)
			}
		}
		if len(tests) == 0 && len(problems) == 0 {
			t.Error("nothing is tested, and nothing is wrong")
		}
		for _, o := range Run(p, tests, noon) {
			if o.Passed != (len(o.Wrong) == 0) || o.Name == "" || o.Place.Line < 1 {
				t.Errorf("%+v", o)
			}
		}
	})
}
