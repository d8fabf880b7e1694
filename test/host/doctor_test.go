package host

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"curfew.internal/test/lab"
)

// report is what `curfew-agent doctor --output json` prints.
type report struct {
	Host     string
	Severity string
	Checks   []string
	Findings []finding
}

type finding struct{ Check, Severity, Says, Mend string }

// examine runs the doctor, and holds its exit code against what it says.
func examine(t *testing.T, h *lab.Host) report {
	t.Helper()
	out, err := h.Sh(t.Context(), "curfew-agent doctor --output json; echo code $?")
	if err != nil {
		t.Fatal(err)
	}
	text, code, _ := strings.Cut(strings.TrimSpace(out), "\ncode ")
	var r report
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if want := map[string]string{"fine": "0", "note": "0", "warning": "1", "broken": "2"}[r.Severity]; code != want || len(r.Checks) < 12 {
		t.Errorf("exit code %s for %+v", code, r)
	}
	return r
}

// found is the finding of a check that says so.
func (r report) found(check, says string) (finding, error) {
	for _, f := range r.Findings {
		if f.Check == check && strings.Contains(f.Says, says) {
			return f, nil
		}
	}
	return finding{}, fmt.Errorf("no finding of %s that says %q in %+v", check, says, r.Findings)
}

// well waits until the doctor finds nothing that needs mending.
func well(t *testing.T, s *scene) {
	t.Helper()
	s.until(t, "a healthy host", func() error {
		if r := examine(t, s.db1); r.Severity != "fine" && r.Severity != "note" {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

// doctored: each fault is named, and the command that is printed beside it
// mends it, where a command on the host can.
func doctored(t *testing.T, s *scene) {
	t.Helper()
	well(t, s)
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() { // whatever fails: the tests after this one need the host
		if _, err := s.db1.Sh(ctx, "grep -q '^@includedir' /etc/sudoers || echo '@includedir /etc/sudoers.d' >>/etc/sudoers; rm -f /etc/sudoers.d/zz* /etc/systemd/system/nscd.service; curfew-agent install; systemctl unmask curfew-sweep.timer; systemctl start curfew-agent curfew-sweep.timer"); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct{ name, fault, check, says string }{
		{"agent stopped", "systemctl stop curfew-agent", "units", "curfew-agent.service is inactive"},
		// A running agent would put these right itself.
		{"PAM line removed", "systemctl stop curfew-agent && sed -i /pam_curfew/d /etc/pam.d/sudo", "wiring", "/etc/pam.d/sudo: its first account line is not ours"},
		{"sshd's file removed", "rm /etc/ssh/sshd_config.d/curfew.conf", "wiring", "/etc/ssh/sshd_config.d/curfew.conf: it is not there"},
		{"agent to be started again", "true", "agent", "the agent was last alive"},
		{"names not asked for", "sed -i 's/ systemd//' /etc/nsswitch.conf", "names", "does not ask systemd for passwd, group, shadow"},
		{"sudoers broken", "echo foo bar > /etc/sudoers.d/zz && chmod 440 /etc/sudoers.d/zz", "sudo", "/etc/sudoers.d/zz:1"},
		{"another's password", "printf '# mine\nDefaults targetpw\n' > /etc/sudoers.d/zz && chmod 440 /etc/sudoers.d/zz", "sudo", "/etc/sudoers.d/zz:2: Defaults targetpw true"},
		{"the door not asked", "printf 'Defaults !pam_acct_mgmt\n' > /etc/sudoers.d/zz", "sudo", "the door stands open"},
		{"sshd without PAM", "cp -p /etc/ssh/sshd_config /root/ && sed -i '1i UsePAM no' /etc/ssh/sshd_config", "sshd", "UsePAM no"},
		{"sweep timer masked", "systemctl mask --now curfew-sweep.timer", "units", "curfew-sweep.timer is masked"},
		{"a unit overridden", "mkdir -p /etc/systemd/system/curfew-agent.service.d && printf '[Service]\nNice=1\n' > /etc/systemd/system/curfew-agent.service.d/x.conf && systemctl daemon-reload", "units", "curfew-agent.service is overridden"},
		{"sweep timer not enabled", "systemctl disable curfew-sweep.timer", "units", "curfew-sweep.timer is disabled"},
		{"rules that anybody may write", "echo '# mine' > /etc/sudoers.d/zz && chmod 666 /etc/sudoers.d/zz", "sudo", "sudo passes over a file of its rules"},
		{"sudo's folder not read", "sed -i '/includedir/d' /etc/sudoers", "wiring", "/etc/sudoers does not read /etc/sudoers.d"},
		{"sshd's folder not read", "sed -i '/^Include/d' /etc/ssh/sshd_config", "wiring", "sshd_config does not read /etc/ssh/sshd_config.d"},
		{"our authority's kind not taken", "sed -i '1i CASignatureAlgorithms rsa-sha2-512' /etc/ssh/sshd_config", "sshd", "sshd takes no certificate that an authority signed with"},
		{"lookups that end early", `sed -i -E 's/^(passwd|group|shadow):.*/\1: files [NOTFOUND=return] systemd/' /etc/nsswitch.conf`, "names", "gives up on passwd, group, shadow"},
		{"lines of an earlier version", `sed -i -E 's/^account \[.*\] pam_curfew/account required pam_curfew/' /etc/pam.d/su`, "wiring", "the lines of an earlier version in su"},
		{"a unit changed", "mkdir -p /etc/systemd/system/curfew-sweep.timer.d && printf '[Timer]\nAccuracySec=2s\n' > /etc/systemd/system/curfew-sweep.timer.d/x.conf", "units", "curfew-sweep.timer was changed"},
		{"the change taken up", "true", "units", "curfew-sweep.timer is overridden"},
		{"the sweep failed", failed, "units", "curfew-sweep.service failed"},
		{"sweep timer stopped", "systemctl stop curfew-sweep.timer", "units", "curfew-sweep.timer is inactive"},
		{"names kept by another", cache, "names", "nscd.service keeps names"},
		{"nobody may pass without a grant", "curfew-agent install --enforce", "wiring", "no group may pass without one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.sh(t, c.fault)
			mends(t, s, c.check, c.says)
		})
	}
	s.sh(t, "! systemctl is-enabled nscd.service && rm /etc/systemd/system/nscd.service && systemctl daemon-reload")
	s.sh(t, "getent group breakglass && curfew-agent install --observe && groupdel breakglass")
	s.sh(t, "mv /root/sshd_config /etc/ssh/ && rm -f /etc/sudoers.d/zz* && systemctl reload ssh")
	unmendable(t, s)
	well(t, s)
}

// cache is a unit by the name of what keeps names: that is what is looked for.
const cache = `printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/nscd.service
systemctl daemon-reload && systemctl enable --now nscd.service`

// failed is a sweep that failed, and that no timer starts again. One that is
// under way as the command comes is ended before: systemd would take its start
// for the one that is to fail.
const failed = `systemctl stop curfew-sweep.timer 'curfew-end-*.timer' 'curfew-end-*.service' curfew-sweep.service; d=/run/systemd/system/curfew-sweep.service.d
mkdir -p $d && printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >$d/x.conf && systemctl daemon-reload
! systemctl start curfew-sweep.service && rm -r $d && systemctl daemon-reload`

// mends waits for a finding, types what stands beside it, and waits for its
// end.
func mends(t *testing.T, s *scene, check, says string) {
	t.Helper()
	var f finding
	s.until(t, "the finding", func() (err error) {
		f, err = examine(t, s.db1).found(check, says)
		return err
	})
	if out, err := s.db1.Sh(t.Context(), f.Mend); err != nil {
		t.Fatalf("%s: %v %s", f.Mend, err, out)
	}
	s.until(t, "its end", func() error {
		if f, err := examine(t, s.db1).found(check, says); err == nil {
			return fmt.Errorf("after the mending: %+v", f)
		}
		return nil
	})
}

// unmounted: homes that are no mount of their own are told, and the mount comes
// as soon as nobody has one. Nobody else has a grant on this host.
func unmounted(t *testing.T, s *scene, id string) {
	t.Helper()
	s.sh(t, "systemctl mask --runtime --now run-curfew-home.mount && systemctl restart curfew-agent")
	s.until(t, "homes in /run", func() error {
		_, err := s.db1.Sh(t.Context(), "test -n \"$(ls -A /run/curfew/home)\" && ! mountpoint -q /run/curfew/home")
		return err
	})
	mends(t, s, "units", "run-curfew-home.mount is masked")
	const says = "run-curfew-home.mount is inactive"
	f, err := examine(t, s.db1).found("units", says+", and does not come over homes")
	if err != nil {
		t.Fatal(err)
	}
	mended := make(chan error, 1)
	go func() {
		_, err := s.db1.Sh(t.Context(), f.Mend)
		mended <- err
	}()
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	if err := <-mended; err != nil {
		t.Fatalf("%s: %v", f.Mend, err)
	}
	if f, err := examine(t, s.db1).found("units", says); err == nil {
		t.Errorf("after the mending: %+v", f)
	}
}

// observed: on a host that only observes, who uses sudo without a grant is let
// through, the agent alive or dead, and recorded once; in enforce mode she is
// refused, and that is recorded. The fleet sees which it is, and what is wrong.
func observed(t *testing.T, s *scene) {
	t.Helper()
	cleo := s.fleet.People["cleo"]
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		if _, err := s.db1.Sh(ctx, "curfew-agent install --observe; rm -f /etc/sudoers.d/standing; systemctl start curfew-agent; userdel -r walt; userdel -r key; groupdel glass; true"); err != nil {
			t.Error(err)
		}
	})
	s.sh(t, `groupadd glass; useradd -m walt; useradd -m -G glass key
printf 'walt ALL=(ALL) NOPASSWD: ALL\nkey ALL=(ALL) NOPASSWD: ALL\n' > /etc/sudoers.d/standing && chmod 440 /etc/sudoers.d/standing
for i in 1 2 3; do runuser -u walt -- sudo -n true; done`)
	told := func(args []string, want ...string) {
		t.Helper()
		s.until(t, strings.Join(args, " "), func() error {
			out, _, err := cleo.Run(t.Context(), "", args...)
			for _, w := range want {
				if err == nil && !strings.Contains(out, w) {
					err = fmt.Errorf("no %q in %s", w, out)
				}
			}
			return err
		})
	}
	told([]string{"audit", "search", "--kind", "would-refuse", "--host", "db1", "walt"}, "walt called sudo without a grant; let through")
	s.sh(t, "curfew-agent status | grep 'only observed: [0-9]* calls'")
	s.sh(t, "systemctl restart curfew-agent") // its doctor looks when it has started
	told([]string{"hosts"}, "observe")
	told([]string{"hosts", "show", "db1"}, "recorded, and let through", "walt may run everything without a password", "mend, as db1 says: visudo -f /etc/sudoers.d/standing")
	told([]string{"hosts", "--doctor"}, "db1: warning, as it says itself, as of", "this host only observes")
	s.sh(t, "systemctl stop curfew-agent && runuser -u walt -- sudo -n true && systemctl start curfew-agent")
	// An installation that names no mode changes none.
	s.sh(t, "curfew-agent install --enforce --breakglass glass && curfew-agent install && runuser -u key -- sudo -n true && su -s /bin/true nobody && sudo -n true")
	out, err := s.db1.Sh(t.Context(), "runuser -u walt -- sudo -n true")
	refused(t, out, err)
	told([]string{"audit", "search", "--kind", "refused", "--host", "db1", "walt"}, "walt called sudo without a grant; refused")
	told([]string{"hosts"}, "enforce")
	// Who may be root without a grant does not change unseen, with the agent dead neither.
	told([]string{"audit", "search", "--kind", "drift", "--host", "db1", "without"},
		"the mode of this host is enforce; it was observe", "the break-glass group is glass; it was ")
	s.sh(t, "systemctl stop curfew-agent && usermod -aG glass walt && systemctl start curfew-agent")
	told([]string{"audit", "search", "--kind", "drift", "--host", "db1", "walt"}, "walt put into the break-glass group")
	s.sh(t, "gpasswd -d walt glass")
	told([]string{"audit", "search", "--kind", "drift", "--host", "db1", "walt"}, "walt taken out of the break-glass group")
	s.sh(t, "gpasswd -d key glass && groupdel glass")
	mends(t, s, "wiring", "the break-glass group glass is not there")
	s.sh(t, "usermod -aG glass key")
	// Dead or removed by hand: root comes in, and the break-glass group.
	s.sh(t, `systemctl stop curfew-agent && runuser -u key -- sudo -n true && ! runuser -u walt -- sudo -n true && pamtester login root acct_mgmt open_session close_session && su -s /bin/true nobody`)
}

// ahead is a host whose clock was five minutes ahead, and was put right: the
// mark of trusted time, as docs/protocol/uplink.md has it. A sweep, too, writes
// that down as it ends.
const ahead = `systemctl stop curfew-sweep.timer curfew-sweep.service curfew-agent && python3 - <<'E' && systemctl start curfew-agent curfew-sweep.timer
import hashlib
p = "/var/lib/curfew/clock"
b = open(p, "rb").read()
head, rest = b.split(b"\n", 1)
body = rest[32:]
assert hashlib.sha256(body).digest() == rest[:32] and body[0] == 8
wall = at = 0
i = 1
while True:
    wall |= (body[i] & 127) << at
    at += 7
    i += 1
    if body[i - 1] < 128:
        break
wall += 300 * 10**9
out = bytearray([8])
while wall > 127:
    out.append(wall & 127 | 128)
    wall >>= 7
out.append(wall)
body = bytes(out) + body[i:]
open(p, "wb").write(head + b"\n" + hashlib.sha256(body).digest() + body)
E`

// unmendable is what no command on the host puts right: it is named all the
// same.
func unmendable(t *testing.T, s *scene) {
	t.Helper()
	named := func(what, check, says string) {
		t.Helper()
		s.until(t, what, func() error {
			_, err := examine(t, s.db1).found(check, says)
			return err
		})
	}
	if err := s.fleet.KillServer(); err != nil {
		t.Fatal(err)
	}
	named("no control plane", "uplink", "is not heard")
	s.sh(t, ahead)
	named("a clock that was ahead", "clock", "before the latest time that was seen here")
	if err := s.fleet.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.sh(t, "mount -t tmpfs -o size=2m tmpfs /var/lib/curfew; dd if=/dev/zero of=/var/lib/curfew/fill bs=4k 2>/dev/null; true")
	named("no room", "room", "/var/lib/curfew is full")
	s.sh(t, "umount /var/lib/curfew")
	// A living agent puts that right within a second, and one that starts does.
	s.sh(t, "systemctl stop curfew-agent; mv /etc/curfew/ssh_ca.pub /root/")
	named("a lost authority", "sshd", "cannot trust our authority")
	s.sh(t, "systemctl start curfew-agent")
	s.until(t, "the authority as it was", func() error {
		_, err := s.db1.Sh(t.Context(), "cmp /root/ssh_ca.pub /etc/curfew/ssh_ca.pub")
		return err
	})
}
