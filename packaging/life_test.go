// Package packaging tests what `make packages` builds: that it is the same
// each time, and that it can be put on a host, changed for another version and
// taken off again.
package packaging

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
)

const policy = `labels:
  tier: [db]
roles:
  db-admin:
    hosts: {tier: db}
    run_as: [root]
    commands: [/usr/bin/id -u, "/usr/bin/sleep *", /usr/bin/dpkg --remove curfew-agent]
    max_duration: 1h
    approval: {by: [ben], count: 1}
eligible:
  - {role: db-admin, people: [ana]}
`

// life is a fleet that was set up from packages alone.
type life struct {
	*lab.Fleet
	plane, db1 *lab.Host
	before     map[*lab.Host]snapshot
	grant      string
}

// versions are built from one source: what differs is what they say of
// themselves.
var versions = []string{"0.9.1", "0.9.2"}

func TestLifeOnHosts(t *testing.T) {
	need.Nspawn(t)
	need.Program(t, "dpkg-deb", "gcc", "objdump")
	var debs []lab.File
	home := t.TempDir()
	for _, v := range versions {
		out := build(t, repository(t), v)
		for _, p := range []string{"curfew-agent", "curfew-server"} {
			debs = append(debs, lab.File{Path: "/srv/" + p + "_" + v + ".deb", From: filepath.Join(out, p+"_"+v+"_amd64.deb"), Mode: 0o644})
		}
		// People have the first command line throughout.
		if v == versions[0] {
			output(t.Context(), t, "dpkg-deb", "-x", filepath.Join(out, "curfew_"+v+"_amd64.deb"), home)
		}
	}
	if err := os.Symlink("usr/bin", filepath.Join(home, "bin")); err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	s := &life{Fleet: &lab.Fleet{Lab: l, Repo: home, People: map[string]*lab.Person{}}}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := l.Join(t.Context(), lab.Place); err != nil {
		t.Fatal(err)
	}
	if s.plane, err = l.Host(t.Context(), "plane", debs...); err != nil {
		t.Fatal(err)
	}
	if s.db1, err = l.Host(t.Context(), "db1", debs...); err != nil {
		t.Fatal(err)
	}
	s.before = map[*lab.Host]snapshot{s.plane: look(t, s.plane), s.db1: look(t, s.db1)}
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"installing wires nothing", s.install},
		{"a control plane and a host are set up", s.setUp},
		{"the main job", s.job},
		{"every change of version leaves grants and sessions alone", s.change},
		{"nobody removes the agent from under herself", s.under},
		{"a removal ends what was granted, and keeps the membership", s.remove},
		{"a power cut in the middle leaves a host that can be logged in to", s.cuts},
		{"a purge leaves db1 as it was", s.purgeAgent},
		{"a purge leaves the control plane's host as it was", s.purgeServer},
	} {
		if !t.Run(part.name, part.run) {
			return // what comes next stands on it
		}
	}
}

func (s *life) sh(t *testing.T, h *lab.Host, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := h.Sh(ctx, script)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.logs(t))
	}
	return out
}

func (s *life) until(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	if err := lab.Until(ctx, what, check); err != nil {
		t.Fatalf("%v\n%s", err, s.logs(t))
	}
}

func (s *life) logs(t *testing.T) string {
	t.Helper()
	server, _ := s.plane.Sh(t.Context(), "journalctl --no-pager -n 20 -u curfew-server")
	agent, _ := s.db1.Sh(t.Context(), "journalctl --no-pager -n 40 -u curfew-agent -u curfew-sweep -u ssh; find /run/curfew /run/userdb")
	return server + agent
}

// person runs curfew as somebody.
func (s *life) person(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, _, err := s.People[name].Run(ctx, "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *life) install(t *testing.T) {
	t.Helper()
	s.sh(t, s.plane, "dpkg -i /srv/curfew-server_0.9.1.deb")
	s.sh(t, s.db1, "dpkg -i /srv/curfew-agent_0.9.1.deb")
	for _, c := range changes(s.before[s.db1], look(t, s.db1)) {
		name, _, _ := strings.Cut(c, ":")
		if strings.HasPrefix(name, "/etc/") && name != "/etc/curfew" {
			t.Error(c)
		}
	}
	for h, unit := range map[*lab.Host]string{s.plane: "curfew-server", s.db1: "curfew-agent"} {
		if r, err := h.Run(t.Context(), "systemctl", "is-active", unit); err != nil || r.Code == 0 {
			t.Errorf("%s: %v %v", unit, r, err)
		}
	}
	s.sh(t, s.db1, "su -s /bin/true nobody && sshd -t && visudo -cq")
}

func (s *life) setUp(t *testing.T) {
	t.Helper()
	s.URL = "https://" + s.plane.Address + ":7443"
	code := s.sh(t, s.plane, "runuser -u curfew-server -- curfew-server init --fleet example --url "+s.URL+" --admin cleo 2>/dev/null; rm /etc/curfew-server/policy/*")
	if err := s.plane.Put(t.Context(), "/etc/curfew-server/policy/policy.yaml", policy, 0o644); err != nil {
		t.Fatal(err)
	}
	s.sh(t, s.plane, "systemctl enable --now curfew-server && systemd-analyze security --threshold=20 curfew-server >/dev/null")
	s.ready(t)
	if user := strings.TrimSpace(s.sh(t, s.plane, "stat -c %U /proc/$(systemctl show -P MainPID curfew-server)")); user != "curfew-server" {
		t.Errorf("the server runs as %s", user)
	}
	if _, err := s.Enrol(t.Context(), "cleo", strings.TrimSpace(code)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ana", "ben"} {
		if _, err := s.Invite(t.Context(), name, ""); err != nil {
			t.Fatal(err)
		}
	}
	token := s.person(t, "cleo", "hosts", "token", "--label", "tier=db")
	if _, err := s.db1.Feed(t.Context(), token, "curfew-agent install && curfew-agent join --address "+s.db1.Address); err != nil {
		t.Fatal(err)
	}
	s.sh(t, s.db1, "systemctl enable --now curfew-agent curfew-sweep.service curfew-sweep.timer")
	s.connected(t)
}

// ready waits for the control plane.
func (s *life) ready(t *testing.T) {
	t.Helper()
	s.until(t, "the control plane", func() error {
		_, err := s.plane.Sh(t.Context(), `exec 3<>/dev/tcp/127.0.0.1/7445 && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && head -1 <&3 | grep 200`)
		return err
	})
}

// connected waits until db1 has said that it is well.
func (s *life) connected(t *testing.T) {
	t.Helper()
	s.until(t, "db1's uplink", func() error {
		_, err := s.db1.Sh(t.Context(), "curfew-agent status | grep 'connected to'")
		return err
	})
}

var (
	requestID = regexp.MustCompile(`r-[a-z2-7]{16}`)
	grantID   = regexp.MustCompile(`g-[a-z2-7]{16}`)
)

func (s *life) job(t *testing.T) {
	t.Helper()
	out, err := s.People["ana"].Prove(t.Context(), "request", "db-admin", "--on", "db1", "--for", "50m", "--why", "disk full", "--no-wait")
	if err != nil {
		t.Fatal(err)
	}
	if out, err = s.People["ben"].Prove(t.Context(), "approve", requestID.FindString(out)); err != nil {
		t.Fatal(err)
	}
	s.grant = grantID.FindString(out)
	s.until(t, "the grant", func() error {
		_, err := s.db1.Sh(t.Context(), "getent passwd ana && test -e /run/curfew/sudoers.d/"+s.grant)
		return err
	})
	s.works(t)
	for _, command := range []string{"sleep 7000", "sudo sleep 7001"} {
		if _, err := s.People["ana"].Start(t.Context(), filepath.Join(t.TempDir(), "out"), "ssh", "db1", "--", command); err != nil {
			t.Fatal(err)
		}
	}
	s.until(t, "two sessions", func() error {
		if n := s.sleepers(t); n != 2 {
			return fmt.Errorf("%d sleepers", n)
		}
		return nil
	})
}

// works shows that the grant opens what it says.
func (s *life) works(t *testing.T) {
	t.Helper()
	if out := s.person(t, "ana", "ssh", "db1", "--", "id -un; sudo -n id -u"); !strings.Contains(out, "ana\n0\n") {
		t.Errorf("%q", out)
	}
}

func (s *life) sleepers(t *testing.T) (n int) {
	t.Helper()
	_, err := fmt.Sscan(s.sh(t, s.db1, "ps -eo args= | grep -cE '^sleep 700[01]$' || true"), &n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// change puts every version beside every other of the other side.
func (s *life) change(t *testing.T) {
	t.Helper()
	before := s.sh(t, s.db1, "pgrep -f '^sleep 700[01]$'")
	for _, step := range []struct {
		host       *lab.Host
		of, to     string
		service, v string
	}{
		{s.db1, "curfew-agent", "0.9.2", "curfew-agent", "curfew-agent 0.9.2"},
		{s.plane, "curfew-server", "0.9.2", "curfew-server", "0.9.2"},
		{s.db1, "curfew-agent", "0.9.1", "curfew-agent", "curfew-agent 0.9.1"},
		{s.plane, "curfew-server", "0.9.1", "curfew-server", "0.9.1"},
	} {
		old := s.sh(t, step.host, "systemctl show -P MainPID "+step.service)
		s.sh(t, step.host, "dpkg -i /srv/"+step.of+"_"+step.to+".deb 2>&1")
		if v := s.sh(t, step.host, step.of+" version"); strings.TrimSpace(v) != step.v {
			t.Errorf("it is %s", v)
		}
		if s.sh(t, step.host, "systemctl show -P MainPID "+step.service) == old {
			t.Errorf("%s: the old one runs on", step.of)
		}
		s.ready(t)
		s.connected(t)
		if now := s.sh(t, s.db1, "pgrep -f '^sleep 700[01]$'"); now != before {
			t.Errorf("%s %s: sessions were %q and are %q", step.of, step.to, before, now)
		}
		s.works(t)
		s.sh(t, s.db1, "curfew-agent status && su -s /bin/true nobody")
	}
	found := s.person(t, "ben", "audit", "search", "--grant", s.grant)
	if !strings.Contains(found, "sleep 7001") || strings.Contains(found, "gap") {
		t.Errorf("the record: %s", found)
	}
}

// under: a removal that would end the session it runs in changes nothing.
func (s *life) under(t *testing.T) {
	t.Helper()
	out, errs, err := s.People["ana"].Run(t.Context(), "", "ssh", "db1", "--", "sudo -n dpkg --remove curfew-agent")
	if err == nil || !strings.Contains(out+errs, "systemd-run") {
		t.Errorf("%v %s %s", err, out, errs)
	}
	s.sh(t, s.db1, "systemctl is-active curfew-agent curfew-sweep.timer && dpkg -s curfew-agent | grep 'install ok installed'")
	s.connected(t)
	s.works(t)
	if n := s.sleepers(t); n != 2 {
		t.Errorf("%d sleepers", n)
	}
}

func (s *life) remove(t *testing.T) {
	t.Helper()
	s.sh(t, s.db1, "dpkg --remove curfew-agent")
	if n := s.sleepers(t); n != 0 {
		t.Errorf("%d processes outlived the removal", n)
	}
	if out, err := s.db1.Sh(t.Context(), "getent passwd ana"); err == nil {
		t.Errorf("the account is there: %s", out)
	}
	s.sh(t, s.db1, "! grep -rl curfew /etc/pam.d /etc/sudoers.d /etc/ssh /etc/systemd && test ! -e /sys/fs/bpf/curfew && su -s /bin/true nobody")
	s.sh(t, s.db1, "dpkg -i /srv/curfew-agent_0.9.1.deb && curfew-agent install && systemctl enable --now curfew-agent curfew-sweep.service curfew-sweep.timer")
	s.connected(t)
	s.until(t, "the grant that still stands", func() error {
		_, err := s.db1.Sh(t.Context(), "getent passwd ana && test -e /run/curfew/sudoers.d/"+s.grant)
		return err
	})
	s.works(t)
}

func (s *life) purgeAgent(t *testing.T) {
	t.Helper()
	s.purge(t, s.db1, "curfew-agent")
}

func (s *life) purgeServer(t *testing.T) {
	t.Helper()
	s.purge(t, s.plane, "curfew-server")
}

// purge takes a package off while what it gave is in use.
func (s *life) purge(t *testing.T, h *lab.Host, name string) {
	t.Helper()
	s.sh(t, h, "dpkg --purge "+name)
	for _, c := range changes(s.before[h], look(t, h)) {
		t.Error(c)
	}
	if out := s.sh(t, h, "dpkg -l | grep curfew || true"); out != "" {
		t.Error(out)
	}
}

var errEarly = errors.New("dpkg was done before the power went")

// cuts takes the power away at moments in the middle of what dpkg does.
func (s *life) cuts(t *testing.T) {
	t.Helper()
	offsets := []time.Duration{0, 37 * time.Millisecond, 74 * time.Millisecond, 111 * time.Millisecond}
	middle := 0
	for i, command := range []string{
		"dpkg -i /srv/curfew-agent_0.9.2.deb", "dpkg -i /srv/curfew-agent_0.9.1.deb", "dpkg --remove curfew-agent", "dpkg -i /srv/curfew-agent_0.9.2.deb",
	} {
		for _, after := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, 900 * time.Millisecond} {
			err := s.cut(t, command, after+offsets[i%len(offsets)])
			if err != nil && !errors.Is(err, errEarly) {
				t.Fatalf("%s, cut after %v: %v", command, after, err)
			}
			if err == nil {
				middle++
			}
		}
		s.sh(t, s.db1, "dpkg --configure -a; "+command)
	}
	t.Logf("in %d of 16 cuts dpkg was at work", middle)
	s.sh(t, s.db1, "curfew-agent install && systemctl enable --now curfew-agent curfew-sweep.service curfew-sweep.timer")
	s.connected(t)
	s.works(t)
}

// cut starts a command and takes the power away. Up again, root and whoever
// is none of ours get in.
func (s *life) cut(t *testing.T, command string, after time.Duration) error {
	t.Helper()
	cmd := s.db1.Command(t.Context(), "/bin/sh", "-c", command)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, or done before
		close(ended)
	}()
	var early error
	select {
	case <-ended:
		early = errEarly
	case <-time.After(after):
	}
	if err := s.db1.PowerOff(t.Context()); err != nil {
		return err
	}
	if early == nil {
		<-ended
	}
	if err := s.db1.Start(t.Context()); err != nil {
		return err
	}
	for _, service := range []string{"login", "sshd", "su", "sudo"} {
		if out, err := s.db1.Sh(t.Context(), "pamtester "+service+" root acct_mgmt open_session close_session"); err != nil {
			return fmt.Errorf("%s: %w: %s", service, err, out)
		}
	}
	out, err := s.db1.Sh(t.Context(), "su -s /bin/true nobody && sshd -t && visudo -cq && systemctl is-active ssh")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return early
}
