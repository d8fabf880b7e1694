package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const withTests = small + `
-- p/tests/db.yaml --
tests:
  - name: ana restarts the database
    who: ana
    role: db-admin
    host: {tier: db}
    for: 2h
    ticket: INC-1
    expect: allowed
    approvals: 1
    approvers: [ben, cleo]
  - {name: not on web servers, who: ana, role: db-admin, host: {tier: web}, expect: refused, because: [hosts]}
`

// saying is what a command line is to say, and its code.
type saying struct {
	name, story, line, out string
	code                   int
}

func tell(t *testing.T, all []saying) {
	t.Helper()
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			out, code := says(t, c.story, c.line)
			var trimmed []string
			for l := range strings.Lines(out) {
				trimmed = append(trimmed, strings.TrimRight(l, " \n")+"\n")
			}
			if diff := cmp.Diff(c.out, strings.Join(trimmed, "")); diff != "" || code != c.code {
				t.Errorf("code %d\n%s", code, diff)
			}
		})
	}
}

func TestPolicyExplain(t *testing.T) {
	tell(t, []saying{
		{
			"who may is told by which lines", small, "policy explain ben db-admin --dir p --label tier=db --on db7 --for 2h",
			`ben may ask for db-admin on db7 for 2h, at 2027-01-31 12:00:00 UTC.

ANSWER  RULE         WHERE             WHY
yes     eligibility  roles.yaml:15:5   ben is eligible as a member of group dba (roles.yaml:3:3), without end
yes     hosts        roles.yaml:7:5    the role covers hosts with tier=db, and db7 is one
yes     duration     roles.yaml:9:5    2h is within the 4h that a grant lasts at most
needs   reason       roles.yaml:5:3    a reason
needs   ticket       roles.yaml:10:5   a ticket that matches ^INC-[0-9]+$
needs   approval     roles.yaml:12:16  1 approval by group dba (ben, cleo); ben does not count for her own request
`, 0,
		},
		{
			"who may not is told why, and what would change it", small,
			"policy explain ana db-admin --dir p --label tier=web --for 5h --ticket x --at 2027-06-01T00:00:00Z",
			`ana may NOT ask for db-admin on such a host for 5h, at 2027-06-01 00:00:00 UTC.

ANSWER  RULE         WHERE             WHY
yes     eligibility  roles.yaml:14:5   ana is eligible by name, to the end of 2027-06-30
NO      hosts        roles.yaml:7:5    the role covers hosts with tier=db, and such a host has tier=web: ask for a role that covers it, or mend the host's labels
NO      duration     roles.yaml:9:5    5h is more than the 4h that a grant lasts at most: ask for that or less
needs   reason       roles.yaml:5:3    a reason
NO      ticket       roles.yaml:11:5   ticket "x" does not match ^INC-[0-9]+$ as a whole: give one that does
needs   approval     roles.yaml:12:16  1 approval by group dba (ben, cleo)
`, 0,
		},
		{
			"why a step is asked, or is not", strings.Replace(small, "{by: [group:dba]}", "[{by: [group:dba]}, {by: [eve], when: risk.new_network}, {by: [fay], when: risk.factor_refused > 2}]", 1),
			"policy explain ana db-admin --dir p --risk new_network=true;factor_refused=0",
			`ana may ask for db-admin, at 2027-01-31 12:00:00 UTC.

ANSWER  RULE         WHERE             WHY
yes     eligibility  roles.yaml:14:5   ana is eligible by name, to the end of 2027-06-30
yes     hosts        roles.yaml:7:5    the role covers hosts with tier=db
yes     duration     roles.yaml:9:5    a grant lasts 4h at most
needs   reason       roles.yaml:5:3    a reason
needs   ticket       roles.yaml:10:5   a ticket that matches ^INC-[0-9]+$
needs   approval     roles.yaml:12:17  step 1 of 3: 1 approval by group dba (ben, cleo)
needs   approval     roles.yaml:12:36  step 2 of 3: 1 approval by eve; it is asked because the request comes from a network that is new for ana
yes     approval     roles.yaml:12:84  step 3 of 3: not asked, since it is not so that risk.factor_refused > 2
`, 0,
		},
		{
			"a fact that is none", small, "policy explain ana db-admin --dir p --risk moon=full",
			"curfew: --risk: moon: \"moon\" is no fact\n", exitUsage,
		},
		{
			"the labels of a host are the server's to know", small, "policy explain ana db-admin --dir p --on db1",
			"curfew: the labels of db1 are not known without a server: say them, with --label tier=db, or sign in\n", exitUsage,
		},
		{"the policy in force is the server's to tell", small, "policy explain ana db-admin", "curfew: " + errSignIn.Error() + "\n", exitSignIn},
		{
			"a folder with a mistake is no policy", strings.Replace(small, "4h", "4 h", 1), "policy explain ana db-admin --dir p",
			"roles.yaml:9:19: roles.db-admin.max_duration: \"4 h\" is no duration: write 30m, 2h, 1h30m or 7d, up to 30d\n" +
				"curfew: p is no valid policy: mend it first\n", exitRefused,
		},
	})
	out, code := says(t, small, "policy explain zoe db-admin --dir p -o json")
	var e struct {
		Allowed  bool
		Findings []struct {
			Rule, Says, Text, Fix string
			Place                 struct {
				File string
				Line int
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != 0 || e.Allowed || e.Findings[0].Says != "refuses" || e.Findings[0].Place.Line != 14 {
		t.Errorf("%d, %v: %s", code, err, out)
	}
}

func TestPolicyTest(t *testing.T) {
	tell(t, []saying{
		{
			"tests that hold", withTests, "policy test p",
			"ok    tests/db.yaml:2:5: ana restarts the database\nok    tests/db.yaml:11:6: not on web servers\n", 0,
		},
		{
			"a test that fails says which line of the policy is against it", strings.Replace(withTests, "max_duration: 4h", "max_duration: 1h", 1), "policy test p",
			"FAIL  tests/db.yaml:2:5: ana restarts the database\n" +
				"        expected allowed, is refused: 2h is more than the 1h that a grant lasts at most (roles.yaml:9:5)\n" +
				"ok    tests/db.yaml:11:6: not on web servers\ncurfew: tests that failed: 1 of 2\n", exitRefused,
		},
		{
			"a test with a mistake is none", strings.Replace(withTests, "expect: allowed", "expect: yes", 1), "policy test p",
			"tests/db.yaml:2:9: expect: \"yes\": write allowed or refused\ncurfew: mistakes in the tests of p: 1\n", exitRefused,
		},
		{
			"no tests are no success", small, "policy test p",
			"no tests: write some in FOLDER/tests/*.yaml: see curfew policy test --help\ncurfew: mistakes in the tests of p: 1\n", exitRefused,
		},
	})
	out, code := says(t, strings.Replace(withTests, "[ben, cleo]\n  - {name", "[ben]\n  - {name", 1), "policy test p -o json")
	var r struct {
		Passed, Failed int
		Tests          []struct {
			Name  string
			Wrong []string
			Place struct{ Line int }
		}
	}
	first, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(first), &r); err != nil || code != exitRefused || r.Passed != 1 || r.Failed != 1 || len(r.Tests[0].Wrong) != 1 || r.Tests[0].Place.Line != 2 {
		t.Errorf("%d, %v: %s", code, err, out)
	}
}

func TestPolicyPlan(t *testing.T) {
	changed := strings.NewReplacer("-- p/", "-- q/", "[ben, cleo]", "[ben, gil]", "4h", "2h").Replace(small)
	tell(t, []saying{
		{
			"what changes for whom", small + changed, "policy plan p q",
			`CHANGE    ROLE      WHERE               WHAT
wider     db-admin  q/roles.yaml:15:5   gil may ask for it
narrower  db-admin  p/roles.yaml:15:5   cleo may no longer ask for it
narrower  db-admin  q/roles.yaml:9:5    max_duration: 4h becomes 2h, for ana, ben
wider     db-admin  q/roles.yaml:12:16  approval.by: gil is added, for ana, ben
narrower  db-admin  q/roles.yaml:12:16  approval.by: cleo is taken out, for ana, ben
`, 0,
		},
		{"no change is said to be none", small, "policy plan p p", "Nothing changes for anybody.\n", 0},
		{"the policy in force is the server's to tell", small, "policy plan p", "curfew: " + errSignIn.Error() + "\n", exitSignIn},
		{"so are the requests", small, "policy plan p p --requests", "curfew: " + errSignIn.Error() + "\n", exitSignIn},
		{"two folders are enough", small, "policy plan p p p", "curfew: say two folders, OLD and NEW, or NEW alone\n", exitUsage},
	})
	out, code := says(t, small+changed, "policy plan p q -o json")
	var r struct {
		Changes []struct {
			Direction string
			People    []string
			New       struct{ Line int }
		}
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || len(r.Changes) != 5 || r.Changes[0].New.Line != 15 {
		t.Errorf("%d, %v: %s", code, err, out)
	}
}

func TestPolicyHelpTeaches(t *testing.T) {
	for _, c := range []interface{ Help() string }{policyCheckCmd{}, policyExplainCmd{}, policyTestCmd{}, policyPlanCmd{}} {
		if !strings.Contains(c.Help(), "\n  ") {
			t.Errorf("%T shows no example", c)
		}
	}
	story := strings.Split((policyTestCmd{}).Help(), "\n\n")[1]
	story = withTests[:strings.Index(withTests, "tests:")] + strings.ReplaceAll(story, "\n  ", "\n") + "\n"
	story = strings.Replace(strings.Replace(story, "-- p/tests/db.yaml --\n  tests", "-- p/tests/db.yaml --\ntests", 1), "2027-01-31T14", "2027-01-31T12", 1)
	if out, code := says(t, story, "policy test p"); code != 0 || strings.Count(out, "ok ") != 2 {
		t.Errorf("the example of the help: %d\n%s", code, out)
	}
}
