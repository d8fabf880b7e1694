package host

import (
	"strings"
	"testing"
	"time"
)

func TestOnRealHosts(t *testing.T) {
	s := on(t)
	for _, c := range []struct {
		name string
		run  func(*testing.T, *scene)
	}{
		{"a grant opens what it says, and ends on time", endsOnTime},
		{"the end of one grant does not cut another", overlap},
		{"a grant lost in no answer: an agent that hangs lets nobody in", hangs},
		{"with the agent dead, sudo itself ends the rule and the sweep removes", deadAgent},
		{"what she set up to go on without her is gone", goesOn},
		{"what a session left is named", named},
		{"what a session left goes as the role says", tidied},
		{"a look for leftovers goes on with the next agent", lookedByTheNext},
		{"an agent that starts again suspends no lease", leased},
		{"what was kept and is damaged stops nobody who takes away", damaged},
		{"what an agent needs and is broken stops no sweep", spoiled},
		{"what the agent keeps and somebody takes away is there again", takenAway},
		{"whoever has the host wait before it opens a file is ended", heldUp},
		{"whoever loses her label gets it again by her login", unlabelled},
		{"a session that cannot be put under record is not opened, by sudo neither", unrecorded},
		{"a sudo call ends with the grant that it came by", borrowed},
		{"the kernel's lock alone ends what sleeps and ignores signals", kernelAlone},
		{"systemd's timer alone has the sweep end it on the second", timerAlone},
		{"the door alone refuses where a standing rule would let through", doorAlone},
		{"sudo alone refuses with the door and the agent gone", sudoAlone},
		{"sshd alone refuses a certificate that is over", certificateAlone},
		{"an agent killed again and again leaves nothing and loses nothing", killedOften},
		{"a full disk hinders no removal, and gives nothing that is not kept", fullDisk},
		{"a home that is full hinders nobody else", fullHome},
		{"what somebody changes is put right", drift},
		{"what the agent starts, and its own, is told apart", apart},
		{"whatever is run to be missed is seen, or said not to be", evades},
		{"a storm of programs is recorded, or told as lost, and costs others nothing", storms},
		{"an account of the host's own is not touched", conflict},
		{"a revocation during a partition counts when the cable is back", partition},
		{"a host that loses power honours its grants alone, and ends them", powerCut},
		{"a control plane that is killed loses no decision", serverKilled},
		{"a role's network is the account's only one", scoped},
		{"su into an account that ended is refused", suRefused},
		{"an extension keeps sessions open", extended},
		{"what runs may drain, nothing new is let in, and a revocation ends it", drained},
		{"files and forwards go where her shell may, and no longer", carried},
		{"the call by curl is as it is written", documented},
		{"the policy in force is explained, and a change of it is planned", planned},
		{"sudo that is typed without a grant asks for one", elevated},
		{"an approval in two steps is given in turn", inTurn},
		{"somebody approves in place of one who is away, and no longer", lent},
		{"whom a command calls on call approves, and nobody once it is silent", paged},
		{"what a terminal shows is recorded, replayed and found, and no password", onRecord},
		{"logins without a terminal go on, and the record says what it lacks", bare},
		{"whoever ends the recorder ends the session", recorderKilled},
		{"an agent that is killed loses nothing of a terminal", agentKilled},
		{"somebody looks on, and ends the session", watched},
		{"a grant that is asked for ahead and by label begins when it is to", scheduled},
		{"people are told at their terminal that the end is near", warned},
		{"an older set put back on the disk brings nothing back", rolledBack},
		{"the door comes back, and wiring that is taken out shows", unwired},
		{"decommissioned: what stands on the host is taken away, then it is refused", decommissioned},
		{"the control plane runs under its own unit", unit},
		{"a healthy host is fine, and what is broken is named and mended", doctored},
		{"a host observes who uses sudo without a grant, and then refuses", observed},
		{"what people's own keys sign is taken, and nothing that a stolen control plane makes", sealed},
		{"uninstall leaves every file as it was, and enforce mode locks nobody out", uninstalled},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.run(t, s) }) && t.Context().Err() != nil {
			return
		}
	}
}

func endsOnTime(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "dan")
	id := s.grant(t, p, "ops", "15s")
	begun := time.Now()
	out, err := s.ssh(t, p, "sudo -n id")
	allowed(t, out, err)
	out, err = s.ssh(t, p, "sudo -n id -u")
	refused(t, out, err, "password")
	out, err = s.ssh(t, p, "sudo -n cat /etc/shadow")
	refused(t, out, err, "password")
	out, err = s.ssh(t, p, "sudo -n env setsid sleep 5000 >/dev/null 2>&1 & sleep 0.3; exit 0")
	allowed(t, out, err)
	if n := strings.TrimSpace(s.sh(t, "pgrep -fc '^sleep 5000' || true")); n == "0" {
		t.Error("the child did not start")
	}
	s.nothing(t, "dan")
	if d := time.Since(begun); d < 10*time.Second {
		t.Errorf("it ended after %v of 15 s", d)
	}
	if n := strings.TrimSpace(s.sh(t, "pgrep -fc '^sleep 5000' || true")); n != "0" {
		t.Errorf("%s of its processes outlived it", n)
	}
	out, err = s.ssh(t, p, "true")
	refused(t, out, err)
	s.clean(t, id)
}

func overlap(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "eva")
	first := s.grant(t, p, "ops", "10m")
	second := s.grant(t, p, "second", "10m")
	shell, err := p.Start(t.Context(), t.TempDir()+"/out", "ssh", "db1", "--", "sleep 6000")
	if err != nil {
		t.Fatal(err)
	}
	s.until(t, "shell", func() error {
		_, err := s.db1.Sh(t.Context(), "pgrep -f '^sleep 6000'")
		return err
	})
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", first); err != nil {
		t.Fatal(err)
	}
	s.clean(t, first)
	s.sh(t, "pgrep -f '^sleep 6000'")
	out, err := s.ssh(t, p, "sudo -n id")
	refused(t, out, err)
	out, err = s.ssh(t, p, "sudo -n whoami")
	allowed(t, out, err)
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", second); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "eva")
	_ = shell.Wait() // its connection was cut
	s.clean(t, second)
}

func hangs(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "fay")
	s.grant(t, p, "ops", "10m")
	s.sh(t, "systemctl kill -s STOP curfew-agent")
	begun := time.Now()
	out, err := s.ssh(t, p, "true")
	refused(t, out, err)
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("the refusal took %v", d)
	}
	// Whoever is no account of ours is let in all the same.
	s.sh(t, "timeout 20 su -s /bin/true nobody")
	s.sh(t, "systemctl kill -s CONT curfew-agent")
	s.until(t, "agent", func() error {
		_, err := s.ssh(t, p, "sudo -n id")
		return err
	})
}

func deadAgent(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "gus")
	id := s.grant(t, p, "ops", "12s")
	s.sh(t, "systemctl mask --runtime --now curfew-agent.service; systemctl stop curfew-sweep.timer; pkill -9 -x curfew-agent; true")
	// The door is closed as soon as nobody answers.
	out, err := s.ssh(t, p, "true")
	refused(t, out, err)
	rule := s.sh(t, "cat /run/curfew/sudoers.d/"+id)
	if !strings.Contains(rule, "NOTAFTER=") {
		t.Errorf("%q", rule)
	}
	s.until(t, "the end by sudo's own clock", func() error {
		// Without our module in the way: sudo's listing of the rule as root.
		out, err := s.db1.Sh(t.Context(), "date -u +%Y%m%d%H%M%SZ")
		after := strings.Fields(rule[strings.Index(rule, "NOTAFTER=")+9:])[0]
		if err == nil && strings.TrimSpace(out) <= after {
			err = errNotYet
		}
		return err
	})
	s.sh(t, "curfew-agent sweep")
	s.nothing(t, "gus")
	s.sh(t, "systemctl unmask --runtime curfew-agent.service; systemctl start curfew-agent.service curfew-sweep.timer")
	s.clean(t, id)
}
