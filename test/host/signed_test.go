package host

import (
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the control plane's database, in the wrong hands

	"curfew.internal/test/lab"
)

var (
	enrolLink = regexp.MustCompile(`https://\S+/enrol#\S+`)
	cliCode   = regexp.MustCompile(`curfew-invite-[A-Za-z0-9_-]+`)
)

// browse adds a person with a passkey, and with a command line beside it.
func (s *scene) browse(t *testing.T, name string) *lab.Browser {
	t.Helper()
	cleo := s.fleet.People["cleo"]
	_, said, err := cleo.Run(t.Context(), "", "people", "add", name)
	if err != nil && strings.Contains(said, "the code of your second factor is needed") {
		code, wrong := cleo.Code(t.Context())
		if wrong != nil {
			t.Fatal(wrong)
		}
		_, said, err = cleo.Run(t.Context(), code, "people", "add", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.fleet.Browser(t.Context(), name, enrolLink.FindString(said))
	if err != nil {
		t.Fatal(err)
	}
	page, err := b.Touch(t.Context(), "/me", "/me/device", url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.fleet.Enrol(t.Context(), name, cliCode.FindString(page)); err != nil {
		t.Fatal(err)
	}
	return b
}

// roster draws up the first roster and publishes it, by typing what
// docs/roster.md says: of two owners, with every role free but the one that is
// signed for.
func (s *scene) roster(t *testing.T) {
	t.Helper()
	cleo, dir := s.fleet.People["cleo"], t.TempDir()
	if err := os.Symlink(s.fleet.RootKey(), filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	var free, owners []string
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+):\n    (?:description|hosts)`).FindAllStringSubmatch(policy, -1) {
		if m[1] != "sealed" {
			free = append(free, m[1])
		}
	}
	typed := rosterLines(t)
	for i, line := range typed {
		out, err := typeRoster(t, cleo, dir, strings.ReplaceAll(line, "ROLES", strings.Join(free, ",")))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.Contains(line, " owner "):
			owners = append(owners, strings.TrimSpace(out))
		case strings.Contains(line, ">draft.yaml"):
			out = strings.Replace(out, "owners: []", "owners:\n- "+strings.Join(owners, "\n- "), 1)
			out = strings.Replace(out, "name: isa\n  approves: false", "name: isa\n  approves: true", 1)
			if err := os.WriteFile(filepath.Join(dir, "draft.yaml"), []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
		case strings.Contains(line, "root.key"):
			if _, err := typeRoster(t, cleo, dir, typed[len(typed)-1]); err == nil || !strings.Contains(err.Error(), "too few owners signed the roster") {
				t.Errorf("%s, by one owner of two, before line %d: %v", typed[len(typed)-1], i+1, err)
			}
		}
	}
	s.recorded(t, "roster 1 of people's keys is held")
}

// rosterLines are what docs/roster.md says to type; the last publishes it.
func rosterLines(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/roster.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```\n(curfew roster owner .*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/roster.md has no commands any more")
	}
	var lines []string
	for line := range strings.Lines(string(block[1])) {
		line, _, _ = strings.Cut(line, "#")
		lines = append(lines, strings.TrimSpace(line))
	}
	if !strings.Contains(lines[len(lines)-1], "roster publish") {
		t.Fatalf("the last line does not publish the roster: %q", lines)
	}
	return lines
}

// typeRoster types one line, in a folder of its own.
func typeRoster(t *testing.T, p *lab.Person, dir, line string) (string, error) {
	t.Helper()
	line, _, _ = strings.Cut(line, ">") // what is written is for who edits it
	args := strings.Fields(line)[1:]
	for i, a := range args {
		if strings.HasSuffix(a, ".key") || strings.HasSuffix(a, ".yaml") || strings.HasSuffix(a, ".bin") {
			args[i] = filepath.Join(dir, a)
		}
	}
	return p.Administer(t.Context(), args...)
}

// recorded waits until db1 has told so.
func (s *scene) recorded(t *testing.T, words string) {
	t.Helper()
	s.until(t, words, func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "audit", "search", "--host", "db1", "--limit", "0", "--since", "1h")
		if err == nil && !strings.Contains(out, words) {
			err = errors.New("not in the record")
		}
		return err
	})
}

func sealed(t *testing.T, s *scene) {
	t.Helper()
	hers, his := s.browse(t, "hum"), s.browse(t, "isa")
	s.roster(t)
	hum, isa := s.fleet.People["hum"], s.fleet.People["isa"]
	code, err := hum.Code(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, said, err := hum.Run(t.Context(), code, "request", "sealed", "--on", "db1", "--for", "20m", "--why", "as it should be", "--no-wait")
	if err != nil {
		t.Fatal(err)
	}
	page := "/requests/" + requestID.FindString(out)
	if !strings.Contains(said, "Your own passkey has to sign it") || !strings.Contains(said, lab.Pages+page) {
		t.Errorf("the page is not told: %s", said)
	}
	if _, err := his.Touch(t.Context(), page, page+"/approve", nil); err == nil {
		t.Error("it was approved before she signed it")
	}
	if _, err := hers.Touch(t.Context(), page, page+"/sign", nil); err != nil {
		t.Fatal(err)
	}
	if _, said, err := isa.Run(t.Context(), "000000", "approve", requestID.FindString(out)); err == nil || !strings.Contains(said, lab.Pages+page) {
		t.Errorf("approved without a passkey: %v: %s", err, said)
	}
	if _, err := his.Touch(t.Context(), page, page+"/approve", nil); err != nil {
		t.Fatal(err)
	}
	s.until(t, "what both signed", func() error {
		_, err := s.ssh(t, hum, "sudo -n id")
		return err
	})
	// Whoever has the control plane has its policy, its keys and its database,
	// and has it give her the same role, and one of root's shell, unsigned.
	taken := strings.Replace(policy, "    human_signatures: true\n    approval: {by: [isa]}\n", "    approval: none\n", 1)
	taken = strings.Replace(taken, "  strict:\n", "  look:\n    hosts: {tier: db}\n    commands: [/bin/sh]\n    max_duration: 1h\n    reason: optional\n    approval: none\n  strict:\n", 1)
	taken += "  - {role: look, people: [hum]}\n"
	s.policy(t, taken)
	defer s.policy(t, policy)
	// As long as the server knows the roster, it says what hosts will.
	if out, err := hum.Prove(t.Context(), "request", "look", "--on", "db1", "--for", "20m", "--why", "nobody signed", "--no-wait"); err == nil || !strings.Contains(err.Error(), "hosts would refuse this grant") {
		t.Errorf("%v: %s", err, out)
	}
	s.forgetRoster(t)
	var forged []string
	for _, role := range []string{"sealed", "look"} {
		out, err := hum.Prove(t.Context(), "request", role, "--on", "db1", "--for", "20m", "--why", "nobody signed", "--no-wait")
		if err != nil {
			t.Fatal(err)
		}
		id := grantID.FindString(out)
		s.recorded(t, "grant "+id+" of "+role+" to hum: this host's roster demands that people's own keys sign for it")
		s.sh(t, "test ! -e /run/curfew/sudoers.d/"+id)
		forged = append(forged, id)
	}
	// Her certificate is for the forged grant that ends last, which is none here.
	out, err = s.ssh(t, hum, "sudo -n sh -c id")
	refused(t, out, err)
	for _, id := range forged {
		if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
			t.Fatal(err)
		}
	}
	out, err = s.ssh(t, hum, "sudo -n sh -c id")
	refused(t, out, err, "password")
	out, err = s.ssh(t, hum, "sudo -n id")
	allowed(t, out, err)
}

// forgetRoster takes the roster out of the control plane's database.
func (s *scene) forgetRoster(t *testing.T) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+s.fleet.Database()+"?_pragma=busy_timeout(20000)")
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), "DELETE FROM rosters")
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// policy puts another one in force.
func (s *scene) policy(t *testing.T, text string) {
	t.Helper()
	cleo := s.fleet.People["cleo"]
	was, _, err := cleo.Run(t.Context(), "", "policy", "status")
	if err == nil {
		err = s.fleet.Policy(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.wait(t, "the other policy", func() error {
		is, _, err := cleo.Run(t.Context(), "", "policy", "status")
		if err == nil && is == was {
			err = errors.New("the one before is in force")
		}
		return err
	})
}
