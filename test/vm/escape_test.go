package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/evade"
	"curfew.internal/test/lab"
)

// escapes are what a granted root may set up to stay root past the end. It is
// run as root in her sudo; NAME is her account. A number that a try starts a
// sleep with is how its processes are found again. Docs/ways.md has what
// becomes of each, and the test holds it to that.
var escapes = []struct{ name, try string }{
	{"setsid", "setsid sleep 7101 & sleep 0.1"},
	{"nohup", "nohup sleep 7102 & sleep 0.1"},
	{"double fork", "(setsid sh -c 'sleep 7103 & exit' &)"},
	{"deaf to signals", "setsid sh -c 'trap \"\" TERM HUP INT; sleep 7104; :' &"},
	{"stopped", "setsid sleep 7105 & sleep 0.5; kill -STOP $!"},
	{"fork loop", "setsid sh -c 'while :; do sleep 0.7106; done' &"},
	{"tmux", "tmux -L mine new -d 'sleep 7107'"},
	{"as nobody", "su -s /bin/sh nobody -c 'setsid sleep 7108 &'"},
	{"namespaces", "setsid unshare -Urmpf sleep 7109 & sleep 0.5"},
	{"first process's namespaces", "nsenter -t 1 -a setsid sleep 7110 & sleep 0.5"},
	{"memfd", `setsid python3 -c 'import os; f=os.memfd_create("x"); os.write(f,open("/bin/sleep","rb").read()); os.execve(f,["sleep","7111"],{})' & sleep 0.5`},
	{"io_uring", "setsid /usr/lib/lab/ways uring 0 /root/way 7112 & sleep 1; grep -q back /root/way"},
	{"first process's control group", "setsid sh -c 'echo $$ >/sys/fs/cgroup/init.scope/cgroup.procs; exec sleep 7113' & sleep 0.3"},
	{"sshd of her own", "mkdir -p /run/sshd; /usr/sbin/sshd -p 7114"},
	{"shell on a port", `setsid python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",7115)); s.listen(); s.accept()' 7115 & sleep 0.5`},
	{"systemd-run under her uid", "systemd-run -q --uid=NAME sleep 7116"},
	{"systemd-run", "systemd-run -q --unit=mine-7117 sleep 7117"},
	{"linger", "loginctl enable-linger NAME"},
	{"at", "echo 'sleep 7118' | at now + 1 hour 2>/dev/null"},
	{"her crontab", "echo '* * * * * sleep 7119' | crontab -u NAME -"},
	{"root's crontab", "echo '0 0 1 1 * sleep 7120' | crontab -"},
	{"cron.d", "echo '0 0 1 1 * root sleep 7121' >/etc/cron.d/mine"},
	{"unit", "printf '[Service]\\nExecStart=/bin/sleep 7122\\n' >/etc/systemd/system/mine.service; systemctl daemon-reload; systemctl start mine"},
	{"systemd timer", "printf '[Timer]\\nOnCalendar=yearly\\nUnit=mine.service\\n' >/etc/systemd/system/mine.timer; systemctl daemon-reload; systemctl start mine.timer"},
	{"udev rule", "mkdir -p /etc/udev/rules.d; echo 'RUN+=\"/bin/true\"' >/etc/udev/rules.d/99-mine.rules"},
	{"setuid shell", "cp /bin/sh /usr/local/bin/mine-sh; chmod 4755 /usr/local/bin/mine-sh"},
	{"setuid shell in /tmp", "cp /bin/sh /tmp/mine-sh; chmod 4755 /tmp/mine-sh"},
	{"capabilities", "cp /bin/cat /usr/local/bin/mine-cat; python3 -c 'import os; os.setxattr(\"/usr/local/bin/mine-cat\", \"security.capability\", bytes.fromhex(\"0100000204000000000000000000000000000000\"))'"},
	{"sudoers", "echo 'NAME ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/mine"},
	{"PAM", "sed -i '1i auth sufficient pam_permit.so' /etc/pam.d/sshd"},
	{"shadow", "usermod -p x nobody"},
	{"second root", "useradd -o -u 0 mine"},
	{"group of root's", "gpasswd -a nobody sudo"},
	{"authorized_keys", "mkdir -p /root/.ssh; echo 'ssh-ed25519 AAAA mine' >>/root/.ssh/authorized_keys"},
	{"sshd_config", "echo 'PermitRootLogin yes' >>/etc/ssh/sshd_config"},
	{"ld.so.preload", "touch /etc/ld.so.preload"},
	{"profile", "echo : >/etc/profile.d/mine.sh"},
	{"kill the agent", "kill -9 $(systemctl show -P MainPID curfew-agent)"},
	{"trace the agent", "timeout -s KILL 5 /usr/lib/lab/ways ptrace 0 /root/way $(systemctl show -P MainPID curfew-agent); grep -q back /root/way"},
	{"bpf()", "timeout -s KILL 5 /usr/lib/lab/ways bpf 0 /root/way; grep -q back /root/way"},
	{"pins", "rm -r /sys/fs/bpf/curfew"},
	{"mount over", "mount -t tmpfs x /etc/pam.d"},
	{"module", "modprobe dummy"},
	{"kexec", "timeout -s KILL 5 /usr/lib/lab/ways kexec 0 /root/way 0; grep -q back /root/way"},
	{"clock", "date -s '1 hour ago'"},
	{"core_pattern", "echo '|/bin/mine' >/proc/sys/kernel/core_pattern"},
	{"agent off", "systemctl mask --runtime curfew-sweep.service"},
}

// undone takes away what the tries made, where nothing of ours does.
const undone = `systemctl unmask --runtime curfew-sweep.service; systemctl stop mine mine.timer mine-7117
rm -f /root/way /root/tried.all /etc/cron.d/mine /etc/systemd/system/mine.* /etc/udev/rules.d/99-mine.rules /usr/local/bin/mine-* /etc/ld.so.preload /etc/profile.d/mine.sh
crontab -r; atq | cut -f1 | xargs -r atrm; userdel -f mine; gpasswd -d nobody sudo; usermod -p '*' nobody; rm -f /root/.ssh/authorized_keys
sed -i '/^PermitRootLogin yes/d' /etc/ssh/sshd_config; systemctl daemon-reload; true`

var number = regexp.MustCompile(`\b7[01][0-9]{2}\b`)

// escape: what a granted root sets up is refused, ends with the grant, or is
// named; and the docs say which.
func escape(t *testing.T, s *scene) {
	t.Helper()
	script := "try() { eval \"$2\" >/root/said 2>&1 </dev/null; echo \"$1: $?: $(tr '\\n' ' ' </root/said)\"; rm -f /root/said; }\n"
	script += "exec >/root/tried\n"
	for _, e := range escapes {
		script += fmt.Sprintf("try %q '%s'\n", e.name, strings.ReplaceAll(strings.ReplaceAll(e.try, "NAME", "ned"), "'", `'\''`))
	}
	script += "mv /root/tried /root/tried.all\n"
	if _, err := s.vm.Feed(t.Context(), script, "cat >/usr/lib/lab/escape"); err != nil {
		t.Fatal(err)
	}
	p := s.person(t, "ned")
	id, _ := s.grant(t, p, 30*time.Minute)
	// What she leaves running may hold her login open: it is not waited for.
	if _, err := p.Start(t.Context(), t.TempDir()+"/out", "ssh", "db1", "--", "sudo -n env bash /usr/lib/lab/escape >/dev/null 2>&1 </dev/null"); err != nil {
		t.Fatal(err)
	}
	out := s.tried(t)
	before := s.sh(t, "ps -eo args=")
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "ned")
	removed, left := s.leftovers(t, id)
	running := s.sh(t, "ps -eo args=")
	want := evade.Outcomes(t, "../../docs/ways.md")
	for _, e := range escapes {
		got := outcome(e.name, number.FindString(e.try), out, before, running, removed, left)
		t.Logf("%-30s %s", e.name, got)
		if got != want[e.name] {
			t.Errorf("%s: %q; docs/ways.md says %q", e.name, got, want[e.name])
		}
	}
	if len(want) != len(escapes) {
		t.Errorf("docs/ways.md has %d ways, not %d", len(want), len(escapes))
	}
	t.Logf("removed %q\nleft %q", removed, left)
	s.sh(t, undone)
}

// tried waits until each way was tried, and returns what they said. It takes
// minutes: an emulated machine starts few programs in a second.
func (s *scene) tried(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	var out string
	err := lab.Until(ctx, "the end of the tries", func() error {
		var err error
		out, err = s.vm.Sh(ctx, "cat /root/tried.all")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// traced is what a way leaves, where it is no process.
var traced = map[string]string{
	"linger": "linger", "at": "atjobs/", "her crontab": "crontabs/ned", "root's crontab": "crontabs/root", "cron.d": "cron.d/mine", "unit": "system/mine.service",
	"systemd timer": "system/mine.timer", "udev rule": "99-mine", "setuid shell": "bin/mine-sh", "setuid shell in /tmp": "/tmp/mine-sh", "capabilities": "mine-cat",
	"shadow": "/etc/shadow", "second root": "/etc/passwd", "group of root's": "/etc/group", "authorized_keys": "authorized_keys", "ld.so.preload": "ld.so.preload",
	"profile": "profile.d/mine.sh", "agent off": "curfew-sweep.service", "systemd-run": "mine-7117",
}

func outcome(name, number, out, before, running string, removed, left []string) string {
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, name+": "); ok && !strings.HasPrefix(rest, "0: ") {
			return "refused"
		}
	}
	runs := number != "" && strings.Contains(running, number)
	has := func(lines []string) bool {
		return traced[name] != "" && slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, traced[name]) })
	}
	switch {
	case has(removed):
		return "removed"
	case has(left) && runs:
		return "runs on, and named"
	case has(left):
		return "named"
	case runs:
		return "runs on"
	case number != "" && traced[name] == "" && strings.Contains(before, number):
		return "ended"
	}
	return "not found"
}

// leftovers waits for the host's second receipt.
func (s *scene) leftovers(t *testing.T, id string) (removed, left []string) {
	t.Helper()
	s.until(t, "what was left", func() error {
		removed, left = nil, nil
		for _, kind := range []string{"removed", "leftovers"} {
			out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "-o", "ndjson", "audit", "search", "--grant", id, "--kind", kind)
			if err == nil && out == "" {
				err = fmt.Errorf("no receipt of kind %s yet", kind)
			}
			if err != nil {
				return err
			}
			for line := range strings.Lines(out) {
				var e struct {
					Receipt struct{ Removed, Left []string }
				}
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					return err
				}
				removed, left = append(removed, e.Receipt.Removed...), append(left, e.Receipt.Left...)
			}
		}
		return nil
	})
	return removed, left
}
