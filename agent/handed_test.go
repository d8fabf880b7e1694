package agent

import (
	"testing"

	"curfew.internal/ledger"
)

func TestWorkThatIsHandedOverIsToldAsSuch(t *testing.T) {
	run := func(path string, argv ...string) ledger.Entry {
		return ledger.Entry{Kind: ledger.Exec, Process: &ledger.Process{Path: path, Argv: argv}}
	}
	to := func(peer string) ledger.Entry {
		return ledger.Entry{Kind: ledger.Connect, Object: peer, Process: &ledger.Process{}}
	}
	opened := func(path string) ledger.Entry {
		return ledger.Entry{Kind: ledger.Open, Object: path, Process: &ledger.Process{}}
	}
	named := func(path, text string) ledger.Entry {
		return ledger.Entry{Kind: ledger.Named, Object: path, Text: text, Process: &ledger.Process{}}
	}
	for _, c := range []struct {
		name string
		e    ledger.Entry
		want string
	}{
		{"systemd-run", run("/usr/bin/systemd-run", "systemd-run", "id"), "systemd"},
		{"systemd-run under another name", run("/usr/bin/systemd-run", "x", "id"), "systemd"},
		{"a copy of at", run("/tmp/x", "at", "now"), "at"},
		{"batch, which is a script", ledger.Entry{Kind: ledger.Exec, Process: &ledger.Process{Path: "/usr/bin/dash", Argv: []string{"/bin/sh", "/usr/bin/batch"}, Script: "/usr/bin/batch"}}, "at"},
		{"crontab", run("/usr/bin/crontab", "crontab", "-"), "cron"},
		{"a unit that is restarted", run("/usr/bin/systemctl", "systemctl", "restart", "x"), "systemd"},
		{"a unit that is looked at", run("/usr/bin/systemctl", "systemctl", "status", "x"), ""},
		{"any other program", run("/usr/bin/id", "id"), ""},
		{"no argument at all", run("/usr/bin/id"), ""},
		{"the bus", to("unix:/run/dbus/system_bus_socket"), "D-Bus"},
		{"the bus by the older path", to("unix:/var/run/dbus/system_bus_socket"), "D-Bus"},
		{"systemd itself", to("unix:/run/systemd/private"), "systemd"},
		{"her own systemd", to("unix:/run/user/70001/systemd/private"), "systemd"},
		{"docker", to("unix:/var/run/docker.sock"), "docker"},
		{"lxd", to("unix:/var/lib/lxd/unix.socket"), "lxd"},
		{"tmux", to("unix:/tmp/tmux-70001/default"), "tmux"},
		{"the journal", to("unix:/run/systemd/journal/stdout"), ""},
		{"a name that is no file's", to("unix:@/run/systemd/private"), ""},
		{"sshd of this host", to("tcp://127.0.0.1:22"), "sshd"},
		{"sshd of another", to("tcp://10.0.0.5:22"), ""},
		{"a crontab", opened("/var/spool/cron/crontabs/root"), "cron"},
		{"a unit", opened("/etc/systemd/system/x.service"), "systemd"},
		{"another file", opened("/etc/passwd"), ""},
		{"a file that is moved to cron's", named("/etc/cron.d/x", "put what was /tmp/x at /etc/cron.d/x (rename)"), "cron"},
		{"one that is moved away from there", named("/etc/cron.d/x", "took away /etc/cron.d/x"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := handedTo(c.e); got != c.want {
				t.Errorf("%q", got)
			}
			c.e.Text += "x"
			if said := outside(c.e); (said == c.e.Text) != (c.want == "") {
				t.Errorf("%q", said)
			}
		})
	}
}
