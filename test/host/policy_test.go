package host

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var requestID = regexp.MustCompile(`r-[a-z2-7]{16}`)

// planned: what the tools for policies ask the server for.
func planned(t *testing.T, s *scene) {
	t.Helper()
	p, cleo := s.person(t, "hea"), s.fleet.People["cleo"]
	id := s.grant(t, p, "second", "10m")
	dir := t.TempDir()
	fresh := strings.Replace(policy, "[/usr/bin/whoami]\n    max_duration: 1h", "[/usr/bin/whoami]\n    max_duration: 5m", 1)
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(fresh), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want []string
	}{
		{"policy explain hea second --on db1 --for 10m", []string{"hea may ask for second on db1 for 10m", "and db1 is one", "as a member of group all (policy.yaml:"}},
		{"policy explain nobody second --on db1", []string{"nobody may NOT ask", "add her to a line"}},
		{"policy explain hea second --on db1 --for 10m --dir " + dir, []string{"may NOT ask", "10m is more than the 5m", "and db1 is one"}},
		{"policy plan " + dir, []string{"narrower  second  ", "max_duration: 1h becomes 5m", "would be refused: role second lasts 5m at most"}},
		{"policy check --fleet " + dir, []string{"roles.guarded.approval.by: cannot be approved", "is a valid policy"}},
	} {
		out, stderr, err := cleo.Run(t.Context(), "", strings.Fields(c.args)...)
		if err != nil {
			t.Fatalf("%s: %v: %s", c.args, err, stderr)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %q is not said\n%s", c.args, w, out)
			}
		}
	}
	// The policy is for those who keep it.
	if out, stderr, err := p.Run(t.Context(), "", "policy", "explain", "hea", "second"); err == nil || !strings.Contains(stderr, "admins") {
		t.Errorf("%v: %s%s", err, out, stderr)
	}
	if _, _, err := cleo.Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.clean(t, id)
}

// inTurn: the second step waits for the first.
func inTurn(t *testing.T, s *scene) {
	t.Helper()
	ros, sue, tom := s.person(t, "ros"), s.person(t, "sue"), s.person(t, "tom")
	out, err := ros.Prove(t.Context(), "request", "turns", "--on", "db1", "--for", "10m", "--why", "two look at it", "--no-wait", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	id := requestID.FindString(out)
	if out, err := tom.Prove(t.Context(), "approve", id); err == nil || !strings.Contains(err.Error(), "it is not your turn: this request waits for 1 of: sue, uwe") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := sue.Prove(t.Context(), "approve", id); err != nil {
		t.Fatal(err)
	}
	if out, _, err := tom.Run(t.Context(), "", "show", id); err != nil || !strings.Contains(out, "1 of: tom") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := tom.Prove(t.Context(), "approve", id); err != nil {
		t.Fatal(err)
	}
	s.until(t, "the grant of both", func() error {
		_, err := s.ssh(t, ros, "sudo -n id")
		return err
	})
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "ros")
}

var fromForm = regexp.MustCompile(`stands from (\S+ \S+) UTC until`)

// scheduled: a grant that is asked for ahead is on no host before it begins.
func scheduled(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "sky")
	out, err := p.Prove(t.Context(), "request", "ops", "--label", "tier=db", "--at", "10s", "--for", "10m", "--no-wait")
	if err != nil {
		t.Fatal(err)
	}
	id, from := grantID.FindString(out), fromForm.FindStringSubmatch(out)
	if id == "" || from == nil || !strings.Contains(out, "db1") {
		t.Fatalf("no grant on db1 in %q", out)
	}
	start, err := time.Parse(time.DateTime, from[1])
	if err != nil {
		t.Fatal(err)
	}
	s.until(t, "beginning", func() error {
		_, err := s.db1.Sh(t.Context(), "test -e /run/curfew/sudoers.d/"+id)
		return err
	})
	made := s.sh(t, "date -ud @$(stat -c %Y /run/curfew/sudoers.d/"+id+") +%FT%TZ")
	if at, err := time.Parse(time.RFC3339, strings.TrimSpace(made)); err != nil || at.Before(start) {
		t.Errorf("in place at %s, and begins at %v: %v", made, start, err)
	}
	out, err = s.ssh(t, p, "sudo -n id")
	allowed(t, out, err)
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "sky")
}
