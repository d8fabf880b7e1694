package host

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
)

var delegationID = regexp.MustCompile(`d-[a-z2-7]{16}`)

// asks has somebody ask for a role that others approve.
func (s *scene) asks(t *testing.T, p *lab.Person, role string) string {
	t.Helper()
	out, err := p.Prove(t.Context(), "request", role, "--on", "db1", "--for", "10m", "--why", "to see who says yes", "--no-wait", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	return requestID.FindString(out)
}

// says runs a command of somebody's that has to succeed, and to say so.
func (s *scene) says(t *testing.T, p *lab.Person, prove bool, line string, words ...string) string {
	t.Helper()
	run := func() (string, error) { return p.Prove(t.Context(), strings.Fields(line)...) }
	if !prove {
		run = func() (string, error) {
			out, _, err := p.Run(t.Context(), "", strings.Fields(line)...)
			return out, err
		}
	}
	out, err := run()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("%s: %s does not say %q\n%s", p.Name, line, w, out)
		}
	}
	return out
}

// given waits for what an approval gave, and ends it.
func (s *scene) given(t *testing.T, p *lab.Person, approved string) {
	t.Helper()
	id := grantID.FindString(approved)
	s.until(t, "the grant", func() error {
		_, err := s.ssh(t, p, "sudo -n id")
		return err
	})
	s.over(t, p.Name, id)
}

// lent: the delegation's commands, as three people type them.
func lent(t *testing.T, s *scene) {
	t.Helper()
	ona, lev, mim := s.person(t, "ona"), s.person(t, "lev"), s.person(t, "mim")
	first := s.asks(t, ona, "lent")
	if _, _, err := mim.Run(t.Context(), "", "show", first); err == nil {
		t.Error("mim sees a request before it is any of her business")
	}
	made := s.says(t, lev, true, "delegate to mim --for 2d --note skiing", "mim may approve in your place from ", "for lent")
	id := delegationID.FindString(made)
	s.says(t, mim, false, "delegate list", id, "lev", "mim", "skiing")
	s.says(t, mim, false, "show "+first, "mim in place of lev")
	s.given(t, ona, s.says(t, mim, true, "approve "+first+" -o json", `"in_place_of":"lev"`))
	s.says(t, s.fleet.People["cleo"], false, "timeline "+first, "in place of lev")
	s.says(t, mim, false, "delegate end "+id, "Ended: mim may no longer approve in place of lev.")
	second := s.asks(t, ona, "lent")
	if out, err := mim.Prove(t.Context(), "approve", second); err == nil {
		t.Error("mim approves with what she gave back:", out)
	}
	s.says(t, ona, false, "withdraw "+second)
}

// paged: the one whom a command names is an approver for as long as it does.
func paged(t *testing.T, s *scene) {
	t.Helper()
	pat, ray, cleo := s.person(t, "pat"), s.person(t, "ray"), s.fleet.People["cleo"]
	s.says(t, cleo, false, "policy explain pat paged --on db1", "may NOT ask", "names no on-call source")
	dir := t.TempDir()
	program, answer := filepath.Join(dir, "who-is-on-call"), filepath.Join(dir, "answer")
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for name, text := range map[string]string{
		program: "#!/bin/sh\nexec cat \"$ANSWER\"\n",
		answer:  fmt.Sprintf(`{"rotations": {"primary": [{"person": "ray", "from": "2026-01-01T00:00:00Z", "until": %q}]}}`, until.Format(time.RFC3339)),
	} {
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.fleet.Configure(t.Context(), fmt.Sprintf("on_call: {command: [%q], environment: {ANSWER: %q}, every: 1s, keep: 4s}\n", program, answer)); err != nil {
		t.Fatal(err)
	}
	s.says(t, cleo, false, "policy explain pat paged --on db1", "may ask", "group pager (ray, on call until ")
	id := s.asks(t, pat, "paged")
	approved := s.says(t, ray, true, "approve "+id+" -o json")
	s.says(t, cleo, false, "timeline "+id, "(on call in pager until "+until.Format("2006-01-02 15:04 MST")+")")
	s.given(t, pat, approved)
	if err := os.Remove(answer); err != nil {
		t.Fatal(err)
	}
	s.until(t, "the end of the last answer", func() error {
		out, _, err := cleo.Run(t.Context(), "", "policy", "explain", "pat", "paged", "--on", "db1")
		if err == nil && !strings.Contains(out, "nobody is on call: the last answer of the on-call source counted until ") {
			err = fmt.Errorf("ray is on call by nobody's word: %s", out)
		}
		return err
	})
	s.says(t, cleo, false, "policy status", "the on-call source gives no answer: run "+program+": exit status 1: cat: ")
	if err := s.fleet.Configure(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
}
