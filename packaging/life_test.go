// Package packaging tests what `make packages` builds: that it is the same
// each time, and that it can be put on a host, changed for another version and
// taken off again.
package packaging

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
    max_duration: 12h
    approval: {by: [ben], count: 1}
eligible:
  - {role: db-admin, people: [ana, dan]}
`

// life is a fleet that was set up from packages alone: db1 with Debian 12, db2
// with Debian 13 and an sshd that a socket starts.
type life struct {
	*lab.Fleet
	plane, db1, db2 *lab.Host
	before          map[*lab.Host]lab.Snapshot
	grant           string
	key             string // of root, for sshd
	auditor         string // this version's command line
	certificate     string // of the pages
	code            string // cleo's
}

func TestLifeOnHosts(t *testing.T) {
	need.Nspawn(t)
	need.Program(t, "dpkg-deb", "gcc", "objdump")
	var debs []lab.File
	lines := map[string]string{}
	for v, out := range map[string]string{"0.9.1": older(t), "0.9.2": present(t)} {
		for _, p := range []string{"curfew-agent", "curfew-server"} {
			debs = append(debs, lab.File{Path: "/srv/" + p + "_" + v + "_amd64.deb", From: filepath.Join(out, p+"_"+v+"_amd64.deb"), Mode: 0o644})
		}
		lines[v] = t.TempDir()
		output(t.Context(), t, "dpkg-deb", "-x", filepath.Join(out, "curfew_"+v+"_amd64.deb"), lines[v])
	}
	home := lines["0.9.1"] // people have the previous command line throughout
	if err := os.Symlink("usr/bin", filepath.Join(home, "bin")); err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	s := &life{Fleet: &lab.Fleet{Lab: l, Repo: home, People: map[string]*lab.Person{}}, auditor: lines["0.9.2"], key: filepath.Join(t.TempDir(), "key")}
	output(t.Context(), t, "ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", s.key)
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
	if s.db2, err = l.HostOf(t.Context(), lab.Trixie, "db2", debs...); err != nil {
		t.Fatal(err)
	}
	s.ways(t, s.db1)
	s.sh(t, s.db2, `exec 2>&1; systemctl disable --now ssh.service && systemctl enable --now ssh.socket && ! systemctl is-active ssh.service &&
exec 3<>/dev/tcp/127.0.0.1/22 && read -r -u 3 hello && systemctl is-active ssh.service`) // the version before wants its folder
	s.before = map[*lab.Host]lab.Snapshot{s.plane: look(t, s.plane), s.db1: look(t, s.db1), s.db2: look(t, s.db2)}
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"installing wires nothing", s.install},
		{"a control plane and two hosts are set up", s.setUp},
		{"the main job", s.job},
		{"every change of version leaves grants and sessions alone", s.change},
		{"what the doctor prints mends what apt has to mend", s.mends},
		{"nobody removes the agent from under herself", s.under},
		{"a removal ends what was granted, and keeps the membership", s.remove},
		{"a power cut in the middle leaves a host that can be logged in to", s.cuts},
		{"a purge leaves the hosts as they were", s.purgeAgents},
		{"the control plane's machine is a host, and then is none", s.both},
		{"a purge leaves the control plane's machine as it was", s.purgeServer},
	} {
		if !t.Run(part.name, part.run) {
			return // what comes next stands on it
		}
	}
}

func look(t *testing.T, h *lab.Host) lab.Snapshot {
	t.Helper()
	seen, err := lab.Look(t.Context(), h.Sh)
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func (s *life) hosts() []*lab.Host {
	return slices.DeleteFunc([]*lab.Host{s.db1, s.db2}, func(h *lab.Host) bool { return h == nil })
}

// patience is for machines that are slower than ours, and busy.
const patience = 4 * time.Minute

func (s *life) sh(t *testing.T, h *lab.Host, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := h.Sh(ctx, script)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.logs(t))
	}
	return out
}

func (s *life) until(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := lab.Until(ctx, what, check); err != nil {
		t.Fatalf("%v\n%s", err, s.logs(t))
	}
}

func (s *life) logs(t *testing.T) string {
	t.Helper()
	server, _ := s.plane.Sh(t.Context(), "journalctl --no-pager -n 20 -u curfew-server")
	for _, h := range s.hosts() {
		agent, _ := h.Sh(t.Context(), "journalctl --no-pager -n 40 -u curfew-agent -u curfew-sweep -u ssh; find /run/curfew /run/userdb")
		server += h.Name + ":\n" + agent
	}
	return server
}

// person runs curfew as somebody.
func (s *life) person(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, _, err := s.People[name].Run(ctx, "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *life) install(t *testing.T) {
	t.Helper()
	s.sh(t, s.plane, "dpkg -i /srv/curfew-server_0.9.1_amd64.deb")
	for _, h := range s.hosts() {
		// What dpkg would take away without asking wires nothing.
		s.sh(t, h, `dpkg --unpack /srv/curfew-agent_0.9.2_amd64.deb && for c in install join; do ! said=$(curfew-agent $c </dev/null 2>&1) && [[ $said = *"dpkg --configure -a"* ]] || exit 1; done; dpkg --purge curfew-agent`)
		for _, c := range s.before[h].Changes(look(t, h)) {
			t.Error(c)
		}
		s.sh(t, h, "dpkg -i /srv/curfew-agent_0.9.1_amd64.deb")
		for _, c := range s.before[h].Changes(look(t, h)) {
			name, _, _ := strings.Cut(c, ":")
			if strings.HasPrefix(name, "/etc/") && name != "/etc/curfew" {
				t.Error(c)
			}
		}
		s.sh(t, h, "su -s /bin/true nobody && sshd -t && visudo -cq")
	}
	for h, unit := range map[*lab.Host]string{s.plane: "curfew-server", s.db1: "curfew-agent", s.db2: "curfew-agent"} {
		if r, err := h.Run(t.Context(), "systemctl", "is-active", unit); err != nil || r.Code == 0 {
			t.Errorf("%s: %v %v", unit, r, err)
		}
	}
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
	for _, name := range []string{"ana", "ben", "dan"} {
		if _, err := s.Invite(t.Context(), name, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range s.hosts() {
		s.join(t, h)
	}
	s.connected(t)
}

// join makes a machine with the package a host of the fleet.
func (s *life) join(t *testing.T, h *lab.Host) {
	t.Helper()
	token, err := s.People["cleo"].Administer(t.Context(), "hosts", "token", "--label", "tier=db")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Feed(t.Context(), token, "curfew-agent install && curfew-agent join --address "+h.Address); err != nil {
		t.Fatal(err)
	}
	s.sh(t, h, "systemctl enable --now curfew-agent curfew-sweep.service curfew-sweep.timer")
}

// ready waits for the control plane.
func (s *life) ready(t *testing.T) {
	t.Helper()
	s.until(t, "the control plane", func() error {
		_, err := s.plane.Sh(t.Context(), `exec 3<>/dev/tcp/127.0.0.1/7445 && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && head -1 <&3 | grep 200`)
		return err
	})
}

// connected waits until the hosts have said that they are well.
func (s *life) connected(t *testing.T) {
	t.Helper()
	for _, h := range s.hosts() {
		s.linked(t, h)
	}
}

func (s *life) linked(t *testing.T, h *lab.Host) {
	t.Helper()
	s.until(t, h.Name+"'s uplink", func() error {
		_, err := h.Sh(t.Context(), "curfew-agent status | grep 'connected to'")
		return err
	})
}

var (
	requestID = regexp.MustCompile(`r-[a-z2-7]{16}`)
	grantID   = regexp.MustCompile(`g-[a-z2-7]{16}`)
)

func (s *life) job(t *testing.T) {
	t.Helper()
	out, err := s.People["ana"].Prove(t.Context(), "request", "db-admin", "--on", "db1,db2", "--for", "11h", "--why", "disk full", "--no-wait")
	if err != nil {
		t.Fatal(err)
	}
	if out, err = s.People["ben"].Prove(t.Context(), "approve", requestID.FindString(out)); err != nil {
		t.Fatal(err)
	}
	s.grant = grantID.FindString(out)
	for _, h := range s.hosts() {
		s.granted(t, h)
	}
	s.works(t)
	for _, command := range []string{"sleep 7000", "sudo sleep 7001", "sh -c 'while sleep 0.2; do /bin/true; done' busy"} {
		if err := s.open(t.Context(), t, "ana", command); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range s.hosts() {
		s.until(t, "the sessions", func() error {
			_, err := h.Sh(t.Context(), "pgrep -f '^sleep 7000$' && pgrep -f '^sleep 7001$' && pgrep -f 'done busy$'")
			return err
		})
	}
}

// granted waits for the grant on a host.
func (s *life) granted(t *testing.T, h *lab.Host) {
	t.Helper()
	s.until(t, "the grant", func() error {
		_, err := h.Sh(t.Context(), "getent passwd ana && test -e /run/curfew/sudoers.d/"+s.grant)
		return err
	})
}

// works shows that the grant opens what it says.
func (s *life) works(t *testing.T) {
	t.Helper()
	for _, h := range s.hosts() {
		if out := s.person(t, "ana", "ssh", h.Name, "--", "id -un; sudo -n id -u"); !strings.Contains(out, "ana\n0\n") {
			t.Errorf("%s: %q", h.Name, out)
		}
	}
}

// sleepers are the processes of open sessions, one a line. The one that is busy
// is the oldest: a child that it has just forked looks the same.
func (s *life) sleepers(t *testing.T, h *lab.Host) string {
	t.Helper()
	return s.sh(t, h, "{ pgrep -f '^sleep 700[01]$'; pgrep -o -f 'done busy$'; } || true")
}

// under: a removal that would end the session it runs in changes nothing.
func (s *life) under(t *testing.T) {
	t.Helper()
	before := s.sleepers(t, s.db1)
	out, errs, err := s.People["ana"].Run(t.Context(), "", "ssh", "db1", "--", "sudo -n dpkg --remove curfew-agent")
	if err == nil || !strings.Contains(out+errs, "systemd-run") {
		t.Errorf("%v %s %s", err, out, errs)
	}
	s.sh(t, s.db1, "systemctl is-active curfew-agent curfew-sweep.timer && dpkg -s curfew-agent | grep 'install ok installed'")
	s.connected(t)
	s.works(t)
	if now := s.sleepers(t, s.db1); now != before {
		t.Errorf("sessions were %q and are %q", before, now)
	}
}

func (s *life) remove(t *testing.T) {
	t.Helper()
	s.sh(t, s.db1, "dpkg --remove curfew-agent")
	if left := s.sleepers(t, s.db1); left != "" {
		t.Errorf("processes outlived the removal: %s", left)
	}
	if out, err := s.db1.Sh(t.Context(), "getent passwd ana"); err == nil {
		t.Errorf("the account is there: %s", out)
	}
	s.sh(t, s.db1, "! grep -rl curfew /etc/pam.d /etc/sudoers.d /etc/ssh /etc/systemd && test ! -e /sys/fs/bpf/curfew && su -s /bin/true nobody")
	s.sh(t, s.db1, "dpkg -i /srv/curfew-agent_0.9.1_amd64.deb && curfew-agent install && systemctl enable --now curfew-agent curfew-sweep.service curfew-sweep.timer")
	s.connected(t)
	s.granted(t, s.db1) // it still stands
	s.works(t)
}

// halves are removals that would leave something: by a program that is not
// whole, and by one that does not know which host it is on while something is
// granted there.
const halves = `exec 2>&1
mv /usr/bin/curfew-agent /usr/bin/whole && install -m 0755 /dev/null /usr/bin/curfew-agent && ! dpkg --purge curfew-agent && mv /usr/bin/whole /usr/bin/curfew-agent &&
mv /etc/curfew/host.crt /run/ && ! dpkg --purge curfew-agent && mv /run/host.crt /etc/curfew/ && test -e /etc/sudoers.d/curfew && getent passwd ana`

// purgeAgents: one host is in the middle of an upgrade, and people are at work
// on both.
func (s *life) purgeAgents(t *testing.T) {
	t.Helper()
	if err := s.open(t.Context(), t, "ana", "sudo sleep 7001"); err != nil {
		t.Fatal(err)
	}
	s.until(t, "the session", func() error {
		_, err := s.db1.Sh(t.Context(), "pgrep -f '^sleep 7001$'")
		return err
	})
	s.purge(t, s.db1, "dpkg --unpack /srv/curfew-agent_0.9.2_amd64.deb && dpkg --purge curfew-agent")
	s.sh(t, s.db2, "dpkg -i /srv/curfew-agent_0.9.2_amd64.deb && "+halves)
	s.purge(t, s.db2, "systemctl mask curfew-sweep.timer && apt-get purge -y curfew-agent && rm /etc/systemd/system/curfew-sweep.timer")
}

// both makes the control plane's machine a host, on which dan is at work. Its
// sshd does not run at first, as where a socket starts it.
func (s *life) both(t *testing.T) {
	t.Helper()
	s.sh(t, s.plane, "dpkg -i /srv/curfew-agent_0.9.2_amd64.deb && systemctl stop ssh && ! test -e /run/sshd")
	s.join(t, s.plane)
	s.sh(t, s.plane, "rmdir /run/sshd; curfew-agent doctor | grep 'will not start again' && exit 1; systemctl start ssh")
	s.linked(t, s.plane)
	out, err := s.People["dan"].Prove(t.Context(), "request", "db-admin", "--on", "plane", "--for", "1h", "--why", "a look", "--no-wait")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.People["ben"].Prove(t.Context(), "approve", requestID.FindString(out)); err != nil {
		t.Fatal(err)
	}
	s.until(t, "the grant", func() error {
		_, err := s.plane.Sh(t.Context(), "getent passwd dan && test -n \"$(ls /run/curfew/sudoers.d)\"")
		return err
	})
	if _, err := s.People["dan"].Start(t.Context(), filepath.Join(t.TempDir(), "out"), "ssh", "plane", "--", "sudo sleep 7000 & sleep 7001"); err != nil {
		t.Fatal(err)
	}
	s.until(t, "dan's session", func() error {
		_, err := s.plane.Sh(t.Context(), "pgrep -f '^sleep 7000$' && pgrep -f '^sleep 7001$'")
		return err
	})
	s.sh(t, s.plane, "dpkg --remove curfew-agent")
	if left := s.sleepers(t, s.plane); left != "" {
		t.Errorf("processes outlived the removal: %s", left)
	}
	s.sh(t, s.plane, "systemctl is-active curfew-server")
}

// purgeServer: what was removed before is purged with it, and the server is in
// the middle of an upgrade.
func (s *life) purgeServer(t *testing.T) {
	t.Helper()
	s.purge(t, s.plane, "dpkg --unpack /srv/curfew-server_0.9.2_amd64.deb && dpkg --purge curfew-agent curfew-server")
}

// purge takes packages off while what they gave is in use.
func (s *life) purge(t *testing.T, h *lab.Host, script string) {
	t.Helper()
	s.sh(t, h, "exec 2>&1; "+script)
	for _, c := range s.before[h].Changes(look(t, h)) {
		t.Error(c)
	}
	if out := s.sh(t, h, "dpkg -l | grep curfew || true; pgrep -l curfew || true") + s.sleepers(t, h); out != "" {
		t.Error(out)
	}
}
