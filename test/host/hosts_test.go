package host

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"curfew.internal/test/lab"
)

// enforced: on a host in enforce mode sudo and su are for live grants, for
// root, and for the break-glass group; with no agent there at all.
func enforced(t *testing.T, h *lab.Host) {
	t.Helper()
	script := `set -e
curfew-agent install --enforce --breakglass glass
groupadd glass; useradd -u 200007 -m -G glass -s /bin/bash key; useradd -m -s /bin/bash old
echo 'key ALL=(ALL) NOPASSWD: ALL
old ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/standing; chmod 440 /etc/sudoers.d/standing
sudo -n true
runuser -u key -- sudo -n true
if runuser -u old -- sudo -n true; then echo "old was let through"; exit 1; fi
su -s /bin/true nobody
userdel -r key 2>/dev/null; userdel -r old 2>/dev/null; groupdel glass 2>/dev/null || true
rm /etc/sudoers.d/standing
`
	out, err := h.Sh(t.Context(), script)
	if err != nil || !strings.Contains(out, "live grants only") {
		t.Errorf("%v %s", err, out)
	}
}

// byHand: whoever deletes or spoils the module, on a host in enforce mode and
// without an agent, locks nobody out: not root on the console, not ssh, not
// sudo. The doctor names it.
func byHand(t *testing.T, h *lab.Host) {
	t.Helper()
	for name, fault := range map[string]string{"deleted": "rm $so", "emptied": ": > $so", "no program": "echo x > $so"} {
		script := `set -e
so=/usr/lib/x86_64-linux-gnu/security/pam_curfew.so
grep -q 'pam_curfew.so enforce' /etc/pam.d/sudo
cp $so /root/so
` + fault + `
pamtester login root acct_mgmt open_session close_session
pamtester sshd nobody acct_mgmt open_session close_session
su -s /bin/true nobody
sudo -n true
useradd -m free; echo 'free ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/free; chmod 440 /etc/sudoers.d/free
runuser -u free -- sudo -n true
userdel -r free 2>/dev/null; rm /etc/sudoers.d/free
curfew-agent doctor || true
cp /root/so $so
`
		out, err := h.Sh(t.Context(), script)
		if err != nil || name == "deleted" && !strings.Contains(out, "pam_curfew.so is in none of the folders") {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
}

func decommissioned(t *testing.T, s *scene) {
	t.Helper()
	h, err := s.fleet.Add(t.Context(), "db2", "tier=db")
	if err != nil {
		t.Fatal(err)
	}
	p, cleo := s.person(t, "dov"), s.fleet.People["cleo"]
	out, err := p.Prove(t.Context(), "request", "ops", "--on", "db2", "--for", "20m")
	if err != nil {
		t.Fatal(err)
	}
	id := grantID.FindString(out)
	s.until(t, "account on db2", func() error {
		_, err := h.Sh(t.Context(), "test -e /run/curfew/sudoers.d/"+id)
		return err
	})
	out, _, err = p.Run(t.Context(), "", "ssh", "db2", "--", "sudo -n env setsid -f sleep 8600 >/dev/null 2>&1")
	allowed(t, out, err)
	// Out of reach, what was revoked stands there as well.
	if err := s.fleet.Cable(t.Context(), "db2", false); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"revoke", id}, {"hosts", "decommission", "db2"}} {
		if _, _, err := cleo.Run(t.Context(), "", args...); err != nil {
			t.Fatal(err)
		}
	}
	if out, _, err := cleo.Run(t.Context(), "", "hosts", "list"); err != nil || !strings.Contains(out, "NOT CONFIRMED") {
		t.Errorf("%v %s", err, out)
	}
	if _, err := h.Sh(t.Context(), "systemctl restart curfew-agent && getent passwd dov && pgrep -f '^sleep 8600'"); err != nil {
		t.Fatal(err)
	}
	if err := s.fleet.Cable(t.Context(), "db2", true); err != nil {
		t.Fatal(err)
	}
	s.until(t, "end of what stood on db2", func() error {
		_, err := h.Sh(t.Context(), "! getent passwd dov && ! pgrep -f '^sleep 8600' && ! test -e /run/curfew/sudoers.d/"+id)
		return err
	})
	s.until(t, "receipt of db2", func() error {
		out, _, err := cleo.Run(t.Context(), "", "timeline", id)
		if err == nil && !strings.Contains(out, "nothing is left; signed by db2") {
			err = errors.New(out)
		}
		return err
	})
	s.until(t, "word of db2", func() error {
		out, _, err := cleo.Run(t.Context(), "", "hosts", "list")
		if err == nil && strings.Contains(out, "NOT CONFIRMED") {
			err = errors.New(out)
		}
		return err
	})
	if out, _, err := cleo.Run(t.Context(), "", "audit", "search", "--kind", "admin", "decommissioned", "db2"); err != nil || !strings.Contains(out, "cleo") {
		t.Errorf("%v %s", err, out)
	}
	if _, err := h.Sh(t.Context(), "systemctl restart curfew-agent"); err != nil {
		t.Fatal(err)
	}
	s.until(t, "refusal of db2", func() error {
		_, err := h.Sh(t.Context(), "journalctl -u curfew-agent | grep -i decommissioned && curfew-agent status | grep 'REFUSED.*decommissioned'")
		return err
	})
	renamed(t, s, h)
	if err := h.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// renamed: the same machine, with all that it kept as db2, is another host.
func renamed(t *testing.T, s *scene, h *lab.Host) {
	t.Helper()
	token, err := s.fleet.People["cleo"].Administer(t.Context(), "hosts", "token", "--label", "tier=db", "--host", "db9")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Feed(t.Context(), token, "systemctl stop curfew-agent && curfew-agent join --name db9 --address "+h.Address+" && systemctl start curfew-agent"); err != nil {
		t.Fatal(err)
	}
	p := s.person(t, "lea")
	out, err := p.Prove(t.Context(), "request", "ops", "--on", "db9", "--for", "20m")
	if err != nil {
		t.Fatal(err)
	}
	s.until(t, "a login as db9", func() error {
		out, _, err := p.Run(t.Context(), "", "ssh", "db9", "--", "sudo -n id")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	id := grantID.FindString(out)
	s.until(t, "the record of db9", func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "timeline", id)
		if err == nil && (!strings.Contains(out, "sudo -n id") || !strings.Contains(out, "db9")) {
			err = errors.New(out)
		}
		return err
	})
	unmounted(t, &scene{fleet: s.fleet, db1: h}, id)
}

// unwired: a door that somebody takes away is there again, and a host whose
// sudo does not ask any more says so to its fleet.
func unwired(t *testing.T, s *scene) {
	t.Helper()
	p, cleo := s.person(t, "fox"), s.fleet.People["cleo"]
	id := s.grant(t, p, "ops", "20m")
	s.sh(t, "rm /run/curfew/door.sock")
	s.until(t, "the door", func() error {
		_, err := s.ssh(t, p, "sudo -n id")
		return err
	})
	// What was wired is put right, with the rest of the file as it was.
	s.sh(t, `cp -a /etc/pam.d /root/pam.d; for f in sudo sshd; do sed -i /pam_curfew/d /etc/pam.d/$f; done
rm /etc/sudoers.d/curfew; echo 'TrustedUserCAKeys none' > /etc/ssh/sshd_config.d/curfew.conf`)
	s.until(t, "wiring", func() error {
		_, err := s.db1.Sh(t.Context(), "diff -r /etc/pam.d /root/pam.d && grep -q includedir /etc/sudoers.d/curfew && grep -q ssh_ca.pub /etc/ssh/sshd_config.d/curfew.conf")
		return err
	})
	s.until(t, "login", func() error { // sshd takes the file up again meanwhile
		out, err := s.ssh(t, p, "sudo -n id")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	// What cannot be put right is told.
	s.sh(t, "mv /etc/curfew/wiring.json /root/ && mv /etc/sudoers.d/curfew /root/sudoers")
	state := func(want string) func() error {
		return func() error {
			out, _, err := cleo.Run(t.Context(), "", "hosts", "list")
			if err == nil && !strings.Contains(out, want) {
				err = errors.New(out)
			}
			return err
		}
	}
	s.until(t, "word of it", state("UNWIRED: /etc/sudoers.d/curfew"))
	s.sh(t, "mv /root/sudoers /etc/sudoers.d/curfew && mv /root/wiring.json /etc/curfew/")
	s.until(t, "word that all is well", state("connected"))
	// As is a file of PAM's that is not there: what else stood in it is not known.
	s.sh(t, "mv /etc/pam.d/su-l /root/")
	s.until(t, "word of it", state("UNWIRED: /etc/pam.d/su-l"))
	s.sh(t, "curfew-agent doctor | grep -A1 '/etc/pam.d/su-l: it is not there' | grep -q force-confmiss; sed -i /pam_curfew/d /root/su-l; mv /root/su-l /etc/pam.d/")
	s.until(t, "word that all is well", state("connected"))
	s.sh(t, "diff -r /etc/pam.d /root/pam.d")
	s.until(t, "the record of both", func() error {
		out, _, err := cleo.Run(t.Context(), "", "audit", "search", "--kind", "drift", "--host", "db1")
		for _, w := range []string{"the door's socket", "/etc/pam.d/sudo was changed or removed", "not asked any more by way of /etc/sudoers.d/curfew", "ask the agent again"} {
			if err == nil && !strings.Contains(out, w) {
				err = errors.New(out)
			}
		}
		return err
	})
	if _, _, err := cleo.Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "fox")
}

// reloads counts how often sshd was asked to read its configuration again.
const reloads = `until [ -z "$(systemctl list-jobs --no-legend)" ]; do sleep 0.1; done
journalctl --sync; journalctl --no-pager -o cat -u ssh | grep -c '^Reloading '`

func uninstalled(t *testing.T, s *scene) {
	t.Helper()
	h, err := s.fleet.Host(t.Context(), "bare",
		lab.File{Path: "/usr/bin/curfew-agent", From: s.fleet.Repo + "/bin/curfew-agent", Mode: 0o755},
		lab.File{Path: "/usr/libexec/curfew-agent/pam-try", From: s.fleet.Repo + "/bin/pam-try", Mode: 0o755},
		lab.File{Path: "/usr/lib/x86_64-linux-gnu/security/pam_curfew.so", From: s.fleet.Repo + "/bin/pam_curfew.so", Mode: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	look := "find /etc -type f -newermt 1970-01-01 -exec sha256sum {} + | sort -k2; find /etc -printf '%m %u %g %p %l\\n' | sort"
	before, err := h.Sh(t.Context(), look)
	if err != nil {
		t.Fatal(err)
	}
	// With /etc read-only nothing is changed, and it is said why.
	out, err := h.Sh(t.Context(), "unshare -m sh -c 'mount --bind /etc /etc && mount -o remount,bind,ro /etc && curfew-agent install'")
	refused(t, out, err, "read-only file system")
	if now, err := h.Sh(t.Context(), look); err != nil || now != before {
		t.Errorf("a read-only /etc changed: %v", err)
	}
	if out, err := h.Sh(t.Context(), "curfew-agent install && curfew-agent install && grep -c pam_curfew /etc/pam.d/sshd && sshd -t && su -s /bin/true nobody"); err != nil || !strings.Contains(out, "2") {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := h.Sh(t.Context(), reloads); err != nil || strings.TrimSpace(out) != "1" {
		t.Errorf("at the installation sshd was reloaded %s times: %v", out, err)
	}
	if _, err := h.Sh(t.Context(), "curfew-agent uninstall"); err != nil {
		t.Fatal(err)
	}
	after, err := h.Sh(t.Context(), look)
	if err != nil {
		t.Fatal(err)
	}
	if before != after {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	enforced(t, h)
	byHand(t, h)
	if err := h.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
}
