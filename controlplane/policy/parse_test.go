package policy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"

	"curfew.internal/controlplane/policy/condition"
	"curfew.internal/grant"
)

var update = flag.Bool("update", false, "write the golden files anew")

// good holds; tests spoil it.
const good = `labels:
  tier: [db, web]
  env: [prod, test]
groups:
  dba: [ben, cleo]
roles:
  db-admin:
    hosts: {tier: db}
    commands:
      - /usr/bin/systemctl restart cron
      - /usr/bin/id
    max_duration: 4h
    approval:
      by: [ben, group:dba]
      count: 1
eligible:
  - {role: db-admin, people: [ana]}
`

func read(text string) (Policy, []Problem) {
	return Parse(map[string][]byte{"roles.yaml": []byte(text)})
}

func must(t *testing.T, text string) Policy {
	t.Helper()
	p, problems := read(text)
	if !Holds(problems) {
		t.Fatalf("%v", problems)
	}
	return p
}

// spoil replaces what has to be there.
func spoil(t *testing.T, from, to string) string {
	t.Helper()
	if !strings.Contains(good, from) {
		t.Fatalf("%q is not in the policy", from)
	}
	return strings.Replace(good, from, to, 1)
}

var compare = []cmp.Option{
	cmpopts.EquateComparable(grant.Destination{}), cmpopts.EquateEmpty(),
	cmpopts.IgnoreTypes(Place{}), cmpopts.IgnoreFields(Policy{}, "Places", "Files"),
	cmp.Comparer(func(a, b Condition) bool { return a.Say == b.Say && a.Text == b.Text }),
	cmp.Comparer(func(a, b *regexp.Regexp) bool { return fmt.Sprint(a) == fmt.Sprint(b) }),
}

func TestParseReadsEveryKey(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "full.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p := must(t, string(text))
	restart, _ := grant.ParseCommand("/usr/bin/systemctl restart cron")
	logs, _ := grant.ParseCommand("/usr/bin/journalctl *")
	id, _ := grant.ParseCommand("/usr/bin/id")
	db, _ := grant.ParseDestination("tcp://10.0.0.0/24:5432")
	want := Policy{
		Version: p.Version,
		Labels:  map[string][]string{"tier": {"db", "web"}, "env": {"prod", "test"}},
		Groups:  map[string][]string{"dba": {"ben", "cleo"}, "dev": {"dan", "eva"}},
		Roles: map[string]Role{
			"db-admin": {
				Name: "db-admin", Description: "Restart and look at database services", Hosts: map[string][]string{"tier": {"db"}, "env": {"prod", "test"}},
				RunAs: []string{"root", "postgres"}, Commands: []grant.Command{restart, logs, id}, NoExec: true, Network: []grant.Destination{db},
				MaxDuration: 4 * time.Hour, ReasonRequired: true, TicketRequired: true, TicketPattern: regexp.MustCompile("^INC-[0-9]+$"),
				Steps:     []Step{{By: []string{"ben", "cleo", "fay"}, Named: []string{"fay", "group:dba"}, Count: 2}},
				Approvers: []string{"ben", "cleo", "fay"}, By: []string{"fay", "group:dba"}, Count: 2, Pending: 30 * time.Minute, Lease: 5 * time.Minute,
				Drain: 10 * time.Minute, Unguarded: true, Remove: []string{"authorized-keys", "setuid"}, Audit: grant.AuditAlert, Typed: true, Strict: true, Signed: true, Outside: true,
				When: []Condition{
					{Condition: &condition.Condition{Text: "begin.during('mon-fri 08:00-18:00', 'Europe/Berlin')"}, Say: "in office hours"},
					{Condition: &condition.Condition{Text: "labels.env == 'test' || 'dba' in groups"}},
					{Condition: &condition.Condition{Text: "source.inside('10.0.0.0/8')"}},
				},
			},
			"fleet-root": {
				Name: "fleet-root", AllHosts: true, RunAs: []string{"root"}, AnyCommand: true, MaxDuration: 15 * time.Minute,
				ReasonRequired: true, Pending: time.Hour,
			},
		},
		Eligible: []Eligibility{
			{Role: "db-admin", People: []string{"ana", "dan", "eva"}, Named: []string{"ana", "group:dev"}, From: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(2027, 7, 1, 0, 0, 0, 0, time.UTC)},
			{Role: "fleet-root", People: []string{"gil"}, Named: []string{"gil"}},
		},
	}
	if diff := cmp.Diff(want, p, compare...); diff != "" {
		t.Error(diff)
	}
}

func TestDefaults(t *testing.T) {
	r := must(t, good).Roles["db-admin"]
	if !r.ReasonRequired || r.TicketRequired || r.NoExec || r.AllHosts || r.Lease != 0 || r.Pending != time.Hour || !slices.Equal(r.RunAs, []string{"root"}) {
		t.Errorf("%+v", r)
	}
}

// The YAML library takes a:b inside two brackets for a mapping.
func TestGroupsAreReadInsideBrackets(t *testing.T) {
	block := must(t, good)
	flow := must(t, spoil(t, "    approval:\n      by: [ben, group:dba]\n      count: 1\n", "    approval: {by: [ben, group:dba], count: 1}\n"))
	flow.Version = block.Version
	if diff := cmp.Diff(block, flow, compare...); diff != "" {
		t.Error(diff)
	}
}

func TestFilesCountTogether(t *testing.T) {
	parts := strings.SplitAfter(good, "groups:\n  dba: [ben, cleo]\n")
	files := map[string][]byte{"b.yaml": []byte(parts[0]), "a.yaml": []byte(parts[1]), "empty.yaml": nil, "comment.yaml": []byte("# none\n")}
	p, problems := Parse(files)
	if !Holds(problems) {
		t.Fatal(problems)
	}
	one := must(t, good)
	p.Version, one.Version = "", ""
	if diff := cmp.Diff(one, p, compare...); diff != "" {
		t.Error(diff)
	}
}

func TestVersionIsOfNamesAndBytes(t *testing.T) {
	seen := map[string]string{}
	for name, files := range map[string]map[string][]byte{
		"one":                       {"a.yaml": []byte("x")},
		"another name":              {"b.yaml": []byte("x")},
		"another byte":              {"a.yaml": []byte("y")},
		"a byte moved to the name":  {"a.yamlx": nil},
		"one more file":             {"a.yaml": []byte("x"), "b.yaml": nil},
		"bytes moved to the next":   {"a.yaml": nil, "b.yaml": []byte("x")},
		"a name within the content": {"a.yaml": []byte("x6 b.yaml 0 ")},
	} {
		v := version(files)
		if v == "" || seen[v] != "" {
			t.Errorf("%s has the version of %s: %q", name, seen[v], v)
		}
		if version(files) != v {
			t.Errorf("%s: another version the second time", name)
		}
		seen[v] = name
	}
}

// golden tells, for each story in the folder, what is said of its files. The
// first line of a story is the rule.
func golden(t *testing.T, folder string, each func(t *testing.T, p Policy, problems []Problem)) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", folder, "*.txtar"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		story, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rule, _, _ := strings.Cut(string(story.Comment), "\n")
		t.Run(rule, func(t *testing.T) {
			files, want := map[string][]byte{}, ""
			kept := story.Files[:0]
			for _, f := range story.Files {
				if f.Name == "said" {
					want = string(f.Data)
					continue
				}
				kept = append(kept, f)
				files[f.Name] = f.Data
			}
			p, problems := Parse(files)
			var b strings.Builder
			for _, pr := range problems {
				fmt.Fprintln(&b, pr)
			}
			if *update {
				story.Files = append(kept, txtar.File{Name: "said", Data: []byte(b.String())})
				if err := os.WriteFile(name, txtar.Format(story), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(want, b.String()); diff != "" {
				t.Error(diff)
			}
			each(t, p, problems)
		})
	}
}

func TestRefused(t *testing.T) {
	golden(t, "refused", func(t *testing.T, _ Policy, problems []Problem) {
		t.Helper()
		if Holds(problems) {
			t.Error("the policy holds")
		}
	})
}

func TestWarned(t *testing.T) {
	golden(t, "warned", func(t *testing.T, p Policy, problems []Problem) {
		t.Helper()
		if !Holds(problems) || len(problems) == 0 || len(p.Roles) == 0 {
			t.Error(problems)
		}
	})
}

func TestHostileNamesAreRefused(t *testing.T) {
	names := []string{
		"root", "../x", "a.b", "a~", "-x", "a b", `a\nb`, `a\tb`, "аna", "ALL", "all", "%wheel", "#0", "+x", "a,b", "a:b", "a=b", "!a", `a\\b`, "a*", "Ana",
		strings.Repeat("a", 32), strings.Repeat("a", 300), `\x1b[2J`, `a\u202eb`, `a\u200bb`, "<b>", "$(id)", "a/b",
	}
	for _, name := range names {
		quoted := `"` + name + `"`
		for place, text := range map[string]string{
			"a person":     spoil(t, "people: [ana]", "people: ["+quoted+"]"),
			"in a group":   spoil(t, "dba: [ben, cleo]", "dba: [ben, "+quoted+"]"),
			"an approver":  spoil(t, "by: [ben, ", "by: ["+quoted+", "),
			"unknown role": spoil(t, "{role: db-admin", "{role: "+quoted),
		} {
			if _, problems := read(text); Holds(problems) {
				t.Errorf("%q as %s holds", name, place)
			}
		}
		if name == "root" || name == "all" || name == strings.Repeat("a", 32) {
			continue // good names for a role
		}
		for place, text := range map[string]string{
			"a role":  spoil(t, "  db-admin:", "  "+quoted+":"),
			"a group": spoil(t, "  dba:", "  "+quoted+":"),
		} {
			if _, problems := read(text); Holds(problems) {
				t.Errorf("%q as %s holds", name, place)
			}
		}
	}
	for _, name := range []string{"ALL", "all", "#0", "%wheel", "+x", "!root", "root, ALL", "a:b", "", strings.Repeat("a", 32), "-x", `a\nb`} {
		if _, problems := read(spoil(t, "    commands:", `    run_as: ["`+name+"\"]\n    commands:")); Holds(problems) {
			t.Errorf("%q as account holds", name)
		}
	}
}

func TestHostileCommandsAreRefused(t *testing.T) {
	for _, c := range []string{
		"ALL", "all", "!/usr/bin/id", "id", "./id", "/usr/bin/../bin/id", "/usr/bin/", "/usr//bin/id", "/usr/bin/*", "/usr/bin/id, ALL", "/usr/bin/id;sh",
		"/usr/bin/id | sh", "/usr/bin/id `x`", "/usr/bin/id $(x)", `/usr/bin/id \\`, `/usr/bin/id a\nALL`, "/usr/bin/id ? x", "/usr/bin/id * x", "/usr/bin/id x*",
		"/usr/bin/id [a]", "/usr/bin/id !x", "/usr/bin/id 'x'", `/usr/bin/id \"x\"`, "/usr/bin/id ^x$", "sudoedit /etc/passwd", "/usr/bin/sudo id", "/usr/bin/su",
		"NOPASSWD: ALL", "/usr/bin/é", "/" + strings.Repeat("a", 2000), "/usr/bin/id " + strings.Repeat("a ", 100), `/usr/bin/id\u0000`,
		`/usr/bin/id \u202e`, "#include /etc/x", "@include /etc/x",
	} {
		_, problems := read(spoil(t, "- /usr/bin/id", `- "`+c+`"`))
		if Holds(problems) {
			t.Errorf("%q holds", c)
		}
		for _, p := range problems {
			if s := p.String(); !strings.HasPrefix(s, "roles.yaml:11:") || strings.ContainsAny(s, "\n\x1b") {
				t.Errorf("%q: %q", c, s)
			}
		}
	}
}

func TestYAMLThatMeansMoreThanItShowsIsRefused(t *testing.T) {
	bomb := "labels: &a [x, x]\ngroups: &b [*a, *a, *a]\nroles: &c [*b, *b, *b]\neligible: [*c, *c, *c]\n"
	for name, text := range map[string]string{
		"an anchor":             spoil(t, "[ben, cleo]", "&x [ben, cleo]"),
		"an alias":              spoil(t, "people: [ana]", "people: *x"),
		"an alias that is text": spoil(t, "- /usr/bin/id", "- *x"),
		"a merge key":           spoil(t, "    max_duration", "    <<: {noexec: true}\n    max_duration"),
		"a tag":                 spoil(t, "max_duration: 4h", "max_duration: !!str 4h"),
		"a tag of a mapping":    spoil(t, "hosts: {tier: db}", "hosts: !!map {tier: db}"),
		"a list as a key":       spoil(t, "    max_duration", "    ? [a, b]\n    : c\n    max_duration"),
		"a second document":     good + "---\n" + good,
		"an alias bomb":         bomb,
		"a tab as indentation":  spoil(t, "  tier:", "\ttier:"),
		"an open quote":         spoil(t, "max_duration: 4h", `max_duration: "4h`),
		"an open list":          spoil(t, "people: [ana]", "people: [ana"),
		"text over lines":       spoil(t, "max_duration: 4h", "max_duration: |\n      4h"),
		"a key twice":           spoil(t, "    max_duration: 4h\n", "    max_duration: 4h\n    max_duration: 5h\n"),
		"a byte order mark":     "\ufeff" + good,
		"over a mebibyte":       good + strings.Repeat("# long\n", 200000),
	} {
		if _, problems := read(text); Holds(problems) {
			t.Errorf("%s holds", name)
		}
	}
}

func TestTooManyFilesAreRefused(t *testing.T) {
	files := map[string][]byte{"roles.yaml": []byte(good)}
	for i := range maxFiles {
		files[fmt.Sprintf("f%d.yaml", i)] = nil
	}
	if _, problems := Parse(files); Holds(problems) {
		t.Error("more files than a policy has")
	}
	if _, problems := Parse(nil); Holds(problems) {
		t.Error("no file at all is a policy")
	}
}

// Whatever a folder holds, reading it ends, and what then counts as a policy
// lets nobody approve herself and lists nothing that a grant could not hold.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	full, err := os.ReadFile(filepath.Join("testdata", "full.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(stepped))
	stories, _ := filepath.Glob(filepath.Join("testdata", "*", "*.txtar"))
	for _, name := range stories {
		story, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range story.Files {
			f.Add(file.Data)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, problems := Parse(map[string][]byte{"roles.yaml": text})
		for _, pr := range problems {
			if pr.Line < 1 || pr.Column < 1 || pr.Text == "" || !utf8.ValidString(pr.String()) && utf8.Valid(text) {
				t.Errorf("%+v", pr)
			}
		}
		if !Holds(problems) {
			return
		}
		for name, r := range p.Roles {
			holds(t, p, name, r)
		}
		for _, e := range p.Eligible {
			if _, ok := p.Roles[e.Role]; !ok || len(e.People) == 0 {
				t.Errorf("%+v", e)
			}
		}
	})
}

// holds looks at a role as a grant will.
func holds(t *testing.T, p Policy, name string, r Role) {
	t.Helper()
	noon := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	g := grant.Grant{
		ID: "g-abcdefghijklmnop", Fleet: "lab", Person: grant.Person{Name: "ana", UID: grant.UIDMin}, Role: r.Grant(), Hosts: []string{"db1"},
		NotBefore: noon, NotAfter: noon.Add(r.MaxDuration), Lease: r.Lease, Request: "r-abcdefghijklmnop", Digest: make([]byte, 32),
		Asked: grant.Evidence{Person: "ana", Factor: "totp", At: noon},
	}
	g.Role.Signed = false // what people's keys say of it is not the policy's
	if err := g.Check(); err != nil {
		t.Errorf("no grant of role %q could be issued: %v", name, err)
	}
	if r.Covers(nil) && !r.AllHosts {
		t.Errorf("role %q covers hosts without labels", name)
	}
	for _, e := range p.Eligible {
		if e.Role != name {
			continue
		}
		for _, person := range e.People {
			may, steps := p.MayApprove(name, person), r.For(person)
			if slices.Contains(may, person) || !r.Outside && (len(may) < total(steps) || starved(steps) > 0) {
				t.Errorf("%s may ask for %q, and %v may approve it", person, name, may)
			}
		}
	}
}
