package host

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"curfew.internal/test/evade"
)

// storms: one session starts programs on all processors while another works.
// What was made, by the programs' own count, is what the record has and what
// it says was lost; and the one that works loses nothing, even while nobody
// reads what the kernel tells.
func storms(t *testing.T, s *scene) {
	t.Helper()
	evade.Equip(t, s.db1)
	defer s.sh(t, "rm -rf /run/storm")
	s.sh(t, "mkdir -p /run/storm")
	flood, work := &stormer{name: "sol"}, &stormer{name: "wyn"}
	for _, p := range []*stormer{flood, work} {
		p.grant = s.grant(t, s.person(t, p.name), "ops", "30m")
	}
	// What a storm of nothing makes is what sudo and env make.
	s.storm(t, flood, work, storm{name: "calm"})
	for _, c := range []storm{
		{name: "read", flood: 500, work: 50},
		{name: "not read", flood: 1200, work: 50, stopped: true},
	} {
		s.storm(t, flood, work, c)
		if c.stopped && flood.lost == 0 {
			t.Errorf("%s: nothing was lost, and that is what this was to show", c.name)
		}
	}
	s.sh(t, "cp -a /etc/curfew/agent.yaml /root && echo 'quota: 4000000' >>/etc/curfew/agent.yaml && systemctl restart curfew-agent")
	s.storm(t, flood, work, storm{name: "unsent", flood: 1200, work: 40, unsent: true})
	if flood.lost == 0 {
		t.Error("unsent: nothing was lost, and that is what this was to show")
	}
	s.sh(t, "mv /root/agent.yaml /etc/curfew/ && systemctl restart curfew-agent")
	s.over(t, "sol", flood.grant)
	s.over(t, "wyn", work.grant)
}

// storm is how many programs each of two workers starts in the two sessions.
type storm struct {
	name        string
	flood, work int
	stopped     bool // the agent reads nothing meanwhile
	unsent      bool // the control plane is out of its reach meanwhile
}

type stormer struct {
	name, grant string
	calm        int // events of a storm of nothing
	lost        int
}

const workers = 2

func (s *scene) storm(t *testing.T, flood, work *stormer, c storm) {
	t.Helper()
	s.sh(t, "rm -f /run/storm/*")
	n := workers
	if c.flood == 0 {
		n = 0
	}
	for p, programs := range map[*stormer]int{flood: c.flood, work: c.work} {
		if _, err := s.fleet.People[p.name].Start(t.Context(), t.TempDir()+"/out", "ssh", "db1", "--", fmt.Sprintf("sudo -n env /usr/lib/lab/storm %d %d /run/storm/go /run/storm/%s-%s", n, programs, p.name, strings.Fields(c.name)[0])); err != nil {
			t.Fatal(err)
		}
	}
	s.wait(t, "both sessions", func() error {
		_, err := s.db1.Sh(t.Context(), "[ $(pgrep -cx storm) = 2 ]")
		return err
	})
	if c.stopped {
		s.sh(t, "systemctl kill -s STOP curfew-agent")
	}
	if c.unsent {
		s.sh(t, "nft 'add table inet away; add chain inet away out { type filter hook output priority -10; }; add rule inet away out ip daddr 10.77.0.1 tcp dport 7443-7444 reject with tcp reset'")
	}
	s.sh(t, "touch /run/storm/go")
	s.wait(t, "the end of the storm", func() error {
		_, err := s.db1.Sh(t.Context(), "[ $(cat /run/storm/*-* | wc -l) = 2 ]")
		return err
	})
	if c.stopped {
		s.sh(t, "systemctl kill -s CONT curfew-agent")
	}
	if c.unsent {
		s.sh(t, "nft delete table inet away")
	}
	s.account(t, flood, c, n)
	s.account(t, work, c, n)
	if work.lost > 0 {
		t.Errorf("%s: the session that works lost %d events", c.name, work.lost)
	}
}

// account compares what a storm made with what the record has of it.
func (s *scene) account(t *testing.T, p *stormer, c storm, n int) {
	t.Helper()
	file := fmt.Sprintf("/run/storm/%s-%s", p.name, strings.Fields(c.name)[0])
	ran, err := strconv.Atoi(strings.TrimSpace(s.sh(t, "cat "+file)))
	if err != nil {
		t.Fatal(err)
	}
	var recorded int
	// An exec and an exit each, and an exit of each worker.
	made := p.calm + 2*ran + n
	s.wait(t, "the account of "+file, func() error {
		all := evade.Entries(t, s.fleet, p.grant)
		recorded, p.lost = tally(all, file)
		if p.calm == 0 && recorded == ended(all, file) {
			p.calm, made = recorded, recorded
		}
		if recorded+p.lost < made || made == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	t.Logf("%-9s %s: %d programs, %d events made, %d recorded, %d lost", c.name, p.name, ran, made, recorded, p.lost)
	if recorded+p.lost != made {
		t.Errorf("%s: %s: %d events were made, %d are recorded and %d told as lost", c.name, p.name, made, recorded, p.lost)
	}
}

// tally counts what the record has of the session in which the storm with the
// file was, and what it says is missing of it.
func tally(all []evade.Entry, file string) (recorded, lost int) {
	session := sessionOf(all, file)
	numbers := map[string]bool{}
	for _, e := range all {
		switch {
		case session == "" || e.Session != session || e.Seq == "" && e.Kind != "gap":
		case e.Kind == "gap": // one of what the host had no room for may name no numbers
			n, _ := strconv.Atoi(e.Lost) // none counts for nothing, and shows
			lost += n
		default:
			numbers[e.Seq] = true
		}
	}
	return len(numbers), lost
}

func sessionOf(all []evade.Entry, file string) string {
	for _, e := range all {
		if e.Kind == "exec" && e.Process.Path == "/usr/lib/lab/storm" && e.Process.Argv[len(e.Process.Argv)-1] == file {
			return e.Session
		}
	}
	return ""
}

// ended is the number of the last event of the session: that sudo exits.
func ended(all []evade.Entry, file string) int {
	session, last := sessionOf(all, file), 0
	for _, e := range all {
		if session != "" && e.Session == session && e.Kind == "exit" && e.Process.Comm == "sudo" {
			n, _ := strconv.Atoi(e.Seq) // the record has numbers there
			last = max(last, n)
		}
	}
	return last
}
