package host

import (
	"strings"
	"testing"

	"curfew.internal/test/lab"
)

// terminal is a person's shell on db1, of whom a role with one command stands
// there.
func (s *scene) terminal(t *testing.T, p *lab.Person) *lab.Terminal {
	t.Helper()
	term, err := p.Terminal(t.Context(), t.TempDir(), "ssh", "db1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = term.Close(t.Context()) }) // it ended with its grant
	s.shows(t, term, "", "$")
	return term
}

// types types a line behind a mark, and waits for the words to come after it.
func (s *scene) types(t *testing.T, term *lab.Terminal, mark, line string, words ...string) {
	t.Helper()
	if err := term.Type(t.Context(), ": "+mark+"; "+line); err != nil {
		t.Fatal(err)
	}
	s.shows(t, term, ": "+mark+"; ", words...)
}

func (s *scene) shows(t *testing.T, term *lab.Terminal, after string, words ...string) (out string) {
	t.Helper()
	s.until(t, "words on a terminal", func() (err error) {
		out, err = term.Shows(t.Context(), after, words...)
		return err
	})
	return out
}

// code types the person's next code.
func code(t *testing.T, term *lab.Terminal, p *lab.Person) {
	t.Helper()
	c, err := p.Code(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := term.Type(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// elevated: sudo that is typed without a grant for it asks for one.
func elevated(t *testing.T, s *scene) {
	t.Helper()
	boss := s.person(t, "bob")
	people := map[string]*lab.Person{}
	terms := map[string]*lab.Terminal{}
	ids := map[string]string{}
	for _, name := range []string{"ora", "pip", "quy"} {
		people[name] = s.person(t, name)
		ids[name] = s.grant(t, people[name], "second", "20m")
	}
	for name, p := range people {
		terms[name] = s.terminal(t, p)
	}
	atOnce(t, s, terms["ora"])
	broken(t, s, terms["ora"])

	// Approved: it runs where it was typed.
	ora := terms["ora"]
	s.types(t, ora, "m1", "cd /var/tmp; MARK=here; sudo pwd; echo code $? in $MARK", "role elevated would (Look about), once approved by 1 of bob", "Reason: ")
	if err := ora.Type(t.Context(), "disk full"); err != nil {
		t.Fatal(err)
	}
	s.shows(t, ora, ": m1; ", "Code of your second factor: ")
	code(t, ora, people["ora"])
	out := s.shows(t, ora, ": m1; ", "waits for 1 of: bob until")
	id := requestID.FindString(out)
	shown, _, err := boss.Run(t.Context(), "", "show", id)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"a shell on db1, session ", "as db1 says, /usr/bin/pwd", "in /var/tmp", "disk full"} {
		if !strings.Contains(shown, w) {
			t.Errorf("the approver is not shown %q:\n%s", w, shown)
		}
	}
	if _, err := boss.Prove(t.Context(), "approve", id); err != nil {
		t.Fatal(err)
	}
	out = s.shows(t, ora, ": m1; ", "approved by bob: role elevated until", "code 0 in here")
	if !strings.Contains(out, "\n/var/tmp\n") {
		t.Errorf("it did not run where it was typed:\n%s", out)
	}
	s.types(t, ora, "m2", "sudo id -u", "\n0\n") // what stands is not asked for again

	// Denied: by whom, and why.
	pip := terms["pip"]
	s.types(t, pip, "m1", "sudo id -u; echo code $?", "Reason: ")
	if err := pip.Type(t.Context(), "to see"); err != nil {
		t.Fatal(err)
	}
	s.shows(t, pip, ": m1; ", "Code of your second factor: ")
	code(t, pip, people["pip"])
	id = requestID.FindString(s.shows(t, pip, ": m1; ", "waits for 1 of: bob until"))
	if _, _, err := boss.Run(t.Context(), "", "deny", id, "--why", "not tonight"); err != nil {
		t.Fatal(err)
	}
	s.shows(t, pip, ": m1; ", "was denied by bob: not tonight", "code 1")

	// Given up: nobody is left with a request to look at.
	quy := terms["quy"]
	s.types(t, quy, "m1", "sudo id -u; echo code $?", "Reason: ")
	if err := quy.Type(t.Context(), "by mistake"); err != nil {
		t.Fatal(err)
	}
	s.shows(t, quy, ": m1; ", "Code of your second factor: ")
	code(t, quy, people["quy"])
	id = requestID.FindString(s.shows(t, quy, ": m1; ", "waits for 1 of: bob until"))
	if err := quy.Press(t.Context(), "C-c"); err != nil {
		t.Fatal(err)
	}
	s.shows(t, quy, ": m1; ", "request "+id+" is withdrawn", "code 1")
	if out, _, err := people["quy"].Run(t.Context(), "", "show", id); err != nil || !strings.Contains(out, "withdrawn") {
		t.Errorf("%v %s", err, out)
	}
	for name, id := range ids {
		if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// atOnce: what cannot ask says so at once.
func atOnce(t *testing.T, s *scene, term *lab.Terminal) {
	t.Helper()
	s.types(t, term, "n1", "sudo -n id; echo code $?", "role elevated would, and sudo -n does not ask: ask with `curfew request elevated --on db1 --for 30m`", "code 1")
	s.types(t, term, "n2", "sudo tail /etc/shadow; echo code $?", "no role that you may ask for would allow it either", "code 1")
	s.types(t, term, "n3", "bash -c 'sudo id'; echo code $?", "curfew: no grant of yours lets sudo run this", "code 1")
	s.types(t, term, "n4", "sudo whoami; echo code $?", "\nroot\n", "code 0")
}

// broken: without the agent, or the control plane, nobody can be asked, and
// the terminal says so.
func broken(t *testing.T, s *scene, term *lab.Terminal) {
	t.Helper()
	if err := s.fleet.KillServer(); err != nil {
		t.Fatal(err)
	}
	s.types(t, term, "b1", "sudo id; echo code $?", "the control plane cannot be reached from this host; what you hold goes on", "code 1")
	if err := s.fleet.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.sh(t, "systemctl stop curfew-agent")
	s.types(t, term, "b2", "sudo id; echo code $?", "the agent of this host does not answer, so sudo is refused", "code 1")
	s.sh(t, "systemctl start curfew-agent; grep -q '00010000 .* [^ ]*/curfew/sudo.sock' /proc/net/unix") // what is ready listens
}
