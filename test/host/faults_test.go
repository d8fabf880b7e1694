package host

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
)

var errNotYet = errors.New("not yet")

func drift(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "hal")
	id := s.grant(t, p, "ops", "10m")
	s.sh(t, "rm /run/curfew/sudoers.d/"+id)
	s.until(t, "rule", func() error {
		_, err := s.db1.Sh(t.Context(), "test -e /run/curfew/sudoers.d/"+id)
		return err
	})
	s.sh(t, "mkdir -p /run/systemd/transient/curfew-end-mine.timer/full")
	s.sh(t, "echo 'nobody ALL=(ALL) NOPASSWD: ALL' > /run/mine && chmod 440 /run/mine && mv /run/mine /run/curfew/sudoers.d/mine")
	s.until(t, "removal of a foreign rule, and of a folder in a timer's place", func() error {
		_, err := s.db1.Sh(t.Context(), "test ! -e /run/curfew/sudoers.d/mine && test ! -e /run/systemd/transient/curfew-end-mine.timer")
		return err
	})
	s.until(t, "a rule that nobody may remove", func() error { // a sweep may come first
		_, err := s.db1.Sh(t.Context(), `systemctl kill -s STOP curfew-agent; cd /run/curfew/sudoers.d && echo 'nobody ALL=(ALL) NOPASSWD: ALL' > fixed && chattr +i fixed && chattr +i . ; done=$?
systemctl kill -s CONT curfew-agent; exit $done`)
		return err
	})
	s.until(t, "removal of a rule that nobody may remove", func() error {
		_, err := s.db1.Sh(t.Context(), "test ! -e /run/curfew/sudoers.d/fixed")
		return err
	})
	// By hand: what `sed -i` puts beside it would be removed under its hands.
	s.sh(t, fmt.Sprintf("sed 's/NOPASSWD.*/NOPASSWD: ALL/' /run/curfew/sudoers.d/%[1]s > /run/wider && cat /run/wider > /run/curfew/sudoers.d/%[1]s", id))
	s.until(t, "rule as it was", func() error {
		_, err := s.db1.Sh(t.Context(), "! grep -q 'NOPASSWD: ALL' /run/curfew/sudoers.d/"+id)
		return err
	})
	// Who did it is named, a process that was gone at once too.
	s.changed(t, "sudo rule "+id+` was changed or removed by rm \(process \d+, uid 0\); it was put right`,
		"sudo rule "+id+` was changed or removed by (cat|bash|sh) \(process \d+, uid 0\); it was put right`,
		`sudo rule mine, which no grant calls for, was put there by mv \(process \d+, uid 0\); it was removed`)
	if out, err := s.ssh(t, p, "sudo -n env sh -c 'sed -i /pam_curfew/d /etc/pam.d/su; rm /run/curfew/sudoers.d/"+id+" /etc/sudoers.d/curfew'"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.changed(t, "sudo rule "+id+` was changed or removed by rm \(process \d+, uid 0\) in a session of hal; it was put right`,
		`/etc/sudoers.d/curfew was changed or removed by rm \(process \d+, uid 0\) in a session of hal`,
		`/etc/pam.d/su was changed or removed by sed \(process \d+, uid 0\) in a session of hal`)
	// Another CA opens no account for longer than a look takes, also one that
	// came while no agent ran: the control plane says which is ours.
	ours := "the CA as it was"
	as := func() error {
		_, err := s.db1.Sh(t.Context(), "cmp /root/ca.pub /etc/curfew/ssh_ca.pub")
		return err
	}
	s.sh(t, `cp /etc/curfew/ssh_ca.pub /root/ca.pub; ssh-keygen -q -t ed25519 -N '' -f /root/other; cat /root/other.pub >>/etc/curfew/ssh_ca.pub`)
	s.until(t, ours, as)
	s.changed(t, `/etc/curfew/ssh_ca.pub was changed or removed by (cat|bash|sh) \(process \d+, uid 0\); it was put right`)
	s.sh(t, "systemctl stop curfew-agent; cat /root/other.pub >/etc/curfew/ssh_ca.pub; systemctl start curfew-agent")
	s.until(t, ours, as)
	// Units come back; what an administrator says of one stands.
	s.sh(t, `cd /usr/lib/systemd/system && cp curfew-sweep.timer /root/ && echo 'OnActiveSec=9h' > curfew-sweep.timer && systemctl mask --runtime curfew-sweep.service`)
	s.until(t, "the unit as it was", func() error {
		_, err := s.db1.Sh(t.Context(), "cmp /root/curfew-sweep.timer /usr/lib/systemd/system/curfew-sweep.timer")
		return err
	})
	s.changed(t, `/usr/lib/systemd/system/curfew-sweep.timer was changed or removed by \w+ \(process \d+, uid 0\); it was put right`,
		`/run/systemd/system/curfew-sweep.service was put there by \w+ \(process \d+, uid 0\); it stands`)
	s.sh(t, "systemctl is-enabled curfew-sweep.service | grep -q masked && systemctl unmask --runtime curfew-sweep.service")
	// What it took to be told so, nobody has from then on.
	s.sh(t, `caps=$(sed -n 's/^CapEff:\s*//p' /proc/$(systemctl show -P MainPID curfew-agent)/status) && [ $((0x$caps >> 21 & 1)) = 0 ]`)
}

func conflict(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "ida")
	s.sh(t, "useradd -m ida && echo ida:x | chpasswd")
	before := s.sh(t, "getent passwd ida; getent shadow ida")
	id := s.ask(t, p, "ops", "10m")
	s.until(t, "refusal in the agent's log", func() error {
		_, err := s.db1.Sh(t.Context(), "journalctl -u curfew-agent | grep 'ida is not given: this host has'")
		return err
	})
	if after := s.sh(t, "getent passwd ida; getent shadow ida; ls /run/curfew/sudoers.d/ | wc -l"); !strings.HasPrefix(after, before) {
		t.Errorf("before %q, after %q", before, after)
	}
	out, err := s.ssh(t, p, "true")
	refused(t, out, err)
	s.until(t, "word of it in the record", func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "audit", "search", "--kind", "set-refused", "--person", "ida")
		if err == nil && !strings.Contains(out, "not installed") {
			err = errors.New(out)
		}
		return err
	})
	s.sh(t, "! grep -r '^ida ' /run/curfew/sudoers.d/")
	s.sh(t, "su - ida -c true")
	// It is nothing that the grant left.
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.clean(t, id)
	s.sh(t, "getent passwd ida; pkill -KILL -u ida; for i in {1..100}; do userdel -rf ida 2>/dev/null; getent passwd ida || exit 0; sleep 0.2; done; exit 1")
}

func partition(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "jon")
	id := s.grant(t, p, "ops", "10m")
	if err := s.fleet.Cable(t.Context(), "db1", false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.sh(t, "test -e /run/curfew/sudoers.d/"+id)
	if err := s.fleet.Cable(t.Context(), "db1", true); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "jon")
	s.clean(t, id)
}

func powerCut(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "kim")
	short := s.grant(t, p, "ops", "40s")
	if err := s.db1.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.fleet.Cable(t.Context(), "db1", false); err != nil {
		t.Fatal(err)
	}
	if err := s.db1.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Inside its time the host honours the grant, with nobody to ask.
	s.until(t, "grant after the power cut", func() error {
		_, err := s.db1.Sh(t.Context(), "getent passwd kim && test -e /run/curfew/sudoers.d/"+short)
		return err
	})
	s.nothing(t, "kim")
	if err := s.fleet.Cable(t.Context(), "db1", true); err != nil {
		t.Fatal(err)
	}
	s.clean(t, short)
}

func serverKilled(t *testing.T, s *scene) {
	t.Helper()
	lou := s.person(t, "lou")
	id := s.grant(t, lou, "ops", "10m")
	if err := s.fleet.KillServer(); err != nil {
		t.Fatal(err)
	}
	_, offline := s.db1.Sh(t.Context(), "test -e /run/curfew/sudoers.d/"+id+" && runuser -u lou -- sudo -n id")
	if err := s.fleet.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What was given stands without a control plane: she is in by the account's
	// own name, since no new certificate is to be had.
	if offline != nil {
		t.Error(offline)
	}
	out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "show", id)
	if err != nil || !strings.Contains(out, "issued") {
		t.Errorf("%v %s", err, out)
	}
	s.until(t, "the record of what was done meanwhile", func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "audit", "search", "--grant", id, "--kind", "login")
		if err == nil && !strings.Contains(out, "sudo") {
			err = errors.New(out)
		}
		return err
	})
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "people", "disable", "lou"); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "lou")
}

func scoped(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "mia")
	s.grant(t, p, "narrow", "10m")
	connect := func(port int) string {
		return fmt.Sprintf("timeout 3 bash -c 'exec 3<>/dev/tcp/10.77.0.1/%d'", port)
	}
	out, err := s.ssh(t, p, connect(7443))
	allowed(t, out, err)
	out, err = s.ssh(t, p, connect(7444))
	refused(t, out, err)
	s.sh(t, connect(7444)) // root is not limited
	// A firewall that is loaded again takes all rules with it. The next look
	// that nobody asks for is an hour away.
	s.sh(t, "cp -a /etc/curfew/agent.yaml /root && echo 'resync: 1h' >>/etc/curfew/agent.yaml && systemctl restart curfew-agent")
	for range 2 {
		s.sh(t, "nft list table inet curfew >/root/rules && nft flush ruleset")
		s.until(t, "the rules", func() error {
			_, err := s.db1.Sh(t.Context(), "diff <(grep -v timeout /root/rules) <(nft list table inet curfew | grep -v timeout)")
			return err
		})
	}
	out, err = s.ssh(t, p, connect(7444))
	refused(t, out, err)
	s.sh(t, "mv /root/agent.yaml /etc/curfew/ && systemctl restart curfew-agent")
	s.until(t, "who was limited by them", func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "audit", "search", "--kind", "drift", "--person", "mia")
		if err == nil && strings.Count(out, "network") != 2 {
			err = errors.New(out)
		}
		return err
	})
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "people", "disable", "mia"); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "mia")
	s.sh(t, "! nft list ruleset | grep -E 'u7[0-9]{4}'")
}

func suRefused(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "ned")
	id := s.grant(t, p, "ops", "10m")
	s.sh(t, "su - ned -c true && pamtester login ned acct_mgmt")
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "ned")
	out, err := s.db1.Sh(t.Context(), "su - ned -c true")
	refused(t, out, err)
	out, err = s.db1.Sh(t.Context(), "pamtester login ned acct_mgmt")
	refused(t, out, err)
	s.sh(t, "su - root -c true && pamtester login root acct_mgmt")
}

// extended: a grant that is extended keeps its sessions open.
func extended(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "oli")
	id := s.grant(t, p, "ops", "50s")
	begun := time.Now()
	if _, err := p.Start(t.Context(), t.TempDir()+"/out", "ssh", "db1", "--", "sleep 7000"); err != nil {
		t.Fatal(err)
	}
	s.until(t, "shell", func() error {
		_, err := s.db1.Sh(t.Context(), "pgrep -f '^sleep 7000'")
		return err
	})
	if _, err := p.Prove(t.Context(), "extend", id, "--for", "10m", "--why", "not done", "--no-wait"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-t.Context().Done():
	case <-time.After(time.Until(begun.Add(53 * time.Second))): // the first grant is over then
	}
	s.sh(t, "pgrep -f '^sleep 7000'")
	out, err := s.ssh(t, p, "sudo -n id")
	allowed(t, out, err)
	s.clean(t, id)
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "people", "disable", "oli"); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "oli")
	s.sh(t, "! pgrep -f '^sleep 7000'")
}

// drained: after the end what runs goes on for the role's time, with its
// account, and no longer; unless it is revoked.
func drained(t *testing.T, s *scene) {
	t.Helper()
	running := func(p *lab.Person, seconds string) (id string) {
		id = s.grant(t, p, "draining", "12s")
		out, err := s.ssh(t, p, "sudo -n env setsid -f sleep "+seconds+" >/dev/null 2>&1")
		allowed(t, out, err)
		s.until(t, "end of the rule", func() error {
			_, err := s.db1.Sh(t.Context(), "! test -e /run/curfew/sudoers.d/"+id)
			return err
		})
		s.sh(t, "pgrep -f '^sleep "+seconds+"' && getent passwd "+p.Name+" && test -d /run/curfew/home/"+p.Name)
		out, err = s.ssh(t, p, "true")
		refused(t, out, err)
		out, err = s.db1.Sh(t.Context(), "runuser -u "+p.Name+" -- sudo -n env true")
		refused(t, out, err)
		return id
	}
	jay, kit := s.person(t, "jay"), s.person(t, "kit")
	id := running(jay, "8711")
	s.nothing(t, "jay")
	s.sh(t, "! pgrep -f '^sleep 8711'")
	s.clean(t, id)
	s.over(t, "kit", running(kit, "8712"))
	s.sh(t, "! pgrep -f '^sleep 8712'")
}

// fullHome: what a person puts into her home fills nothing that others need,
// and a setuid file in it is none.
func fullHome(t *testing.T, s *scene) {
	t.Helper()
	p, other := s.person(t, "hux"), s.person(t, "ivy")
	s.sh(t, "mount -o remount,size=64m /run/curfew/home") // less to fill
	id := s.grant(t, p, "ops", "20m")
	out, err := s.ssh(t, p, "cp /usr/bin/id copy && sudo -n env sh -c 'chown root copy && chmod 4755 copy' && ./copy -u; cat /dev/zero > fill || exit 0")
	if err != nil || !strings.HasPrefix(out, "7") || !strings.Contains(out, "No space left on device") {
		t.Errorf("her home has no end, or a setuid file in it works: %v %s", err, out)
	}
	second := s.grant(t, other, "ops", "20m")
	out, err = s.ssh(t, other, "sudo -n id")
	allowed(t, out, err)
	s.over(t, "hux", id)
	s.over(t, "ivy", second)
	s.sh(t, "findmnt /run/curfew/home && ! ls /run/curfew/home | grep -xE 'hux|ivy'")
}

// rolledBack: with the control plane away and an older file of grants on the
// disk, what was revoked stays revoked.
func rolledBack(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "eli")
	id := s.grant(t, p, "ops", "20m")
	s.sh(t, "cp /var/lib/curfew/grants /root/")
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "eli")
	s.clean(t, id)
	if err := s.fleet.KillServer(); err != nil {
		t.Fatal(err)
	}
	s.sh(t, "systemctl stop curfew-agent && cp /root/grants /var/lib/curfew/grants && systemctl start curfew-agent")
	s.sh(t, "! getent passwd eli && test -z \"$(ls /run/curfew/sudoers.d)\" && journalctl -u curfew-agent | grep -q 'in place of'")
	if err := s.fleet.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.until(t, "the record of it", func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "audit", "search", "--kind", "set-refused", "in", "place", "of")
		if err == nil && !strings.Contains(out, "do not count") {
			err = errors.New(out)
		}
		return err
	})
	s.sh(t, "! getent passwd eli")
}

// unit: the control plane runs under its own unit, as its own user.
func unit(t *testing.T, s *scene) {
	t.Helper()
	h, err := s.fleet.Host(t.Context(), "plane",
		lab.File{Path: "/usr/bin/curfew-server", From: s.fleet.Repo + "/bin/curfew-server", Mode: 0o755},
		lab.File{Path: "/usr/lib/systemd/system/curfew-server.service", From: s.fleet.Repo + "/systemd/curfew-server.service", Mode: 0o644},
		lab.File{Path: "/usr/lib/sysusers.d/curfew-server.conf", From: s.fleet.Repo + "/systemd/sysusers.d/curfew-server.conf", Mode: 0o644},
		lab.File{Path: "/usr/lib/tmpfiles.d/curfew-server.conf", From: s.fleet.Repo + "/systemd/tmpfiles.d/curfew-server.conf", Mode: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.Sh(t.Context(), `set -e
systemd-sysusers
systemd-tmpfiles --create curfew-server.conf
curfew-server init --fleet example --url https://plane.example:7443 --admin cleo > /root/cleo.code
chown -R curfew-server: /var/lib/curfew-server /etc/curfew-server
systemctl enable --now curfew-server
exec 3<>/dev/tcp/127.0.0.1/7445
printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
head -1 <&3 | grep -q 200
ps -o user= -C curfew-server`)
	if err != nil || !strings.Contains(out, "curfew-s") {
		log, _ := h.Sh(t.Context(), "journalctl --no-pager -n 20 -u curfew-server")
		t.Errorf("%v %s %s", err, out, log)
	}
	if err := h.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
}
