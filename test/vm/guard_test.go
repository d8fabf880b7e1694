package vm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// against are the ways to take Curfew away, as a root may try before the end.
// Undo follows a try that came about; where there is none, it would take the
// guest's own life, and is tried only where it is refused. Mounts are undone
// at once, whoever has a file on them open: the agent looks there often.
var against = []struct{ name, try, undo string }{
	{"kill", "kill -9 $agent", ""},
	{"stop", "kill -STOP $agent", "kill -CONT $agent"},
	{"signal by a file", `python3 -c 'import fcntl, os; fcntl.fcntl(os.pipe()[0], 10, 9)'`, "true"},
	{"signal by a file, in 64 bits", `perl -e 'pipe(R, W); syscall(72, fileno(R), 10, 1 << 32 | 9) < 0 and $! != 22 and die "$!\n"'`, "true"}, // EINVAL before Linux 6.5
	{"signal of real time by a file", `python3 -c 'import fcntl, os; fcntl.fcntl(os.pipe()[0], 10, 34)'`, "true"},
	{"ionice", "ionice -c 3 -p $agent", "ionice -c 0 -p $agent"},
	{"ptrace", "way ptrace $agent", "true"},
	{"limit", "prlimit --pid $agent --nofile=4096:4096", "prlimit --pid $agent --nofile=1024:524288"},
	{"limit the first", "prlimit --pid 1 --nofile=65536:", "prlimit --pid 1 --nofile=524288:"},
	{"renice", "renice 1 -p $agent", "renice 0 -p $agent"},
	{"freeze", "echo 1 >/sys/fs/cgroup/system.slice/curfew-agent.service/cgroup.freeze", "echo 0 >/sys/fs/cgroup/system.slice/curfew-agent.service/cgroup.freeze"},
	{"freeze above", "echo 1 >/sys/fs/cgroup/system.slice/cgroup.freeze", ""},
	{"kill above", "echo 1 >/sys/fs/cgroup/system.slice/cgroup.kill", ""},
	{"freeze the first", "echo 0 >/sys/fs/cgroup/init.scope/cgroup.freeze", "true"},
	{"a group among ours", "mkdir /sys/fs/cgroup/system.slice/mine.service", "rmdir /sys/fs/cgroup/system.slice/mine.service"},
	{"bpf", "way bpf 0", "true"},
	{"hold up the host", "way hold 0", "true"},
	{"lease", `: >/root/leased; python3 -c 'import fcntl; fcntl.fcntl(open("/root/leased"), 1024, 1)'`, "true"},
	{"freeze the disk", "fsfreeze -f /", ""},
	{"stop the disk", `python3 -c 'import fcntl, os; fcntl.ioctl(os.open("/", 0), 0x8004587d, bytes([2, 0, 0, 0]))'`, ""},
	{"module", "modprobe dummy", "rmmod dummy"},
	{"clock", "way clock 0", "true"},
	{"sudoers", "echo '# x' >>/etc/sudoers", "sed -i '$d' /etc/sudoers"},
	{"sudoers.d", "touch /etc/sudoers.d/mine", "rm /etc/sudoers.d/mine"},
	{"symlink", "ln -s / /etc/pam.d/mine", "rm /etc/pam.d/mine"},
	{"hard link", "ln /etc/sudoers /root/mine", "rm /root/mine"},
	{"unlink", "rm /etc/pam.d/chfn", "touch /etc/pam.d/chfn"},
	{"replace", "touch /root/mine; mv -f /root/mine /etc/pam.d/chfn", "true"},
	{"truncate", ": >/etc/pam.d/chfn", "true"},
	{"mode", "chmod g+r /etc/pam.d/chfn", "true"},
	{"flags", "chattr +i /etc/sudoers", "chattr -i /etc/sudoers"},
	{"programs off", "echo 0 >/proc/sys/kernel/ftrace_enabled", ""},
	{"core pattern", "echo '|/root/mine' >/proc/sys/kernel/core_pattern", "echo core >/proc/sys/kernel/core_pattern"},
	{"module helper", "echo /root/mine >/proc/sys/kernel/modprobe", "echo /sbin/modprobe >/proc/sys/kernel/modprobe"},
	{"threads of all", "n=$(cat /proc/sys/kernel/threads-max); echo $n >/proc/sys/kernel/threads-max", "true"},
	{"files of all", "n=$(cat /proc/sys/fs/file-max); echo $n >/proc/sys/fs/file-max", "true"},
	{"real time", "n=$(cat /proc/sys/kernel/sched_rt_runtime_us); echo $n >/proc/sys/kernel/sched_rt_runtime_us", "true"},
	{"sysrq", "echo h >/proc/sysrq-trigger", "true"}, // asks for help alone
	{"lockdown", ": >>/sys/kernel/security/lockdown", "true"},
	{"module file", "dd if=/dev/null of=$(ls /usr/lib/*/security/pam_echo.so) conv=notrunc", "true"},
	{"kept", "mkdir /var/lib/curfew/mine", "rmdir /var/lib/curfew/mine"},
	{"rule", "rm /run/curfew/sudoers.d/*", "true"},
	{"pin", "rm -r /sys/fs/bpf/curfew", ""},
	{"pins away", "mv /sys/fs/bpf/curfew /sys/fs/bpf/mine", "mv /sys/fs/bpf/mine /sys/fs/bpf/curfew"},
	{"agent's program", "cp -p /usr/bin/curfew-agent /root/mine; mv /root/mine /usr/bin/curfew-agent", ""},
	{"folder away", "mv /etc/pam.d /etc/mine", "mv /etc/mine /etc/pam.d"},
	{"above away", "mv /etc /mine", ""},
	{"mount over", "mount -t tmpfs x /etc/security", "umount -l /etc/security"},
	{"mount above", "mount -t tmpfs x /etc", "umount -l /etc"},
	{
		"move away", // nothing moves out of, or into, what is shared
		"mkdir -p /on; mount -t tmpfs x /on; mount --make-private /on; mkdir /on/b; mount --make-private /sys; mount --move /sys/fs/bpf /on/b || { umount /on; false; }",
		"mount --move /on/b /sys/fs/bpf; mount --make-shared /sys; umount -l /on",
	},
	{"bind", "mount --bind /root /etc/pam.d", "umount -l /etc/pam.d"},
	{"disguised bind", "way disguised 0", "umount -l /etc/pam.d"},
	{"by a bind", "mkdir -p /bound; mount --bind /etc /bound; touch /bound/pam.d/mine", "rm /etc/pam.d/mine; umount -l /bound"},
	{"own mounts", "unshare -m mount -t tmpfs x /etc/sudoers.d", "true"},
	{"umount", "umount -l /sys/fs/bpf", ""},
}

// work is what a granted root does all day, guarded or not.
const work = `set -e
touch /etc/mine; echo x >>/etc/mine; mv /etc/mine /root/mine; rm /root/mine
mkdir -p /on; mount -t tmpfs x /on; umount /on; unshare -m true
sleep 60 & kill $!
prlimit --pid $$ --nofile=100:100
touch $HOME/mine /run/mine; rm $HOME/mine
systemctl restart cron
`

// told are the kinds of refusals that stand in the record.
var told = []string{
	"a signal to the agent", "to trace the agent", "to limit the agent or the first process", "bpf()", "to load code into the kernel", "to set the clock",
	"to write a file that is guarded", "to rename a file that is guarded", "to remove a file that is guarded",
	"to change the attributes of a file that is guarded", "to change the mounts that guarded files are reached by",
	"to have this host wait for it before files are opened (fanotify, a lease)", "to freeze or shut down a disk that guarded files are on",
}

// guarded: under a role that is guarded a root gets nowhere, and the record
// says so. Under one that is not, what she tries comes about: so the tries are
// good.
func guarded(t *testing.T, s *scene) {
	t.Helper()
	script := `agent=$(systemctl show -p MainPID --value curfew-agent)
way() { rm -f /root/said; timeout -s KILL 5 /usr/lib/lab/ways $1 0 /root/said $2; cat /root/said; grep -q back /root/said; }
try() { out=$(eval "$2" 2>&1); rc=$?; echo "$1: $rc: $(echo "$out" | tr '\n' ' ')"; [ $rc != 0 ] || eval "$3"; }
`
	for _, w := range against {
		guard := ""
		if w.undo == "" {
			guard = "[ $1 = free ] || "
		}
		script += fmt.Sprintf("%stry %q '%s' '%s'\n", guard, w.name, strings.ReplaceAll(w.try, "'", `'\''`), strings.ReplaceAll(w.undo, "'", `'\''`))
	}
	script += "sleep 3\n" // the agent puts right what it can
	if _, err := s.vm.Feed(t.Context(), script, "cat >/usr/lib/lab/against"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.vm.Feed(t.Context(), work, "cat >/usr/lib/lab/work"); err != nil {
		t.Fatal(err)
	}
	keeper := s.person(t, "mel")
	second, _ := s.grantOf(t, keeper, "keeper", 10*time.Minute)
	free, err := s.ssh(t, keeper, "sudo -n env bash /usr/lib/lab/against free && sudo -n env bash /usr/lib/lab/work")
	if err != nil {
		t.Errorf("not guarded: %v", err)
	}
	tried(t, free, false)
	p := s.person(t, "lea")
	first, _ := s.grant(t, p, 10*time.Minute)
	out, err := s.ssh(t, p, "sudo -n env bash /usr/lib/lab/against held && sudo -n env bash /usr/lib/lab/work")
	if err != nil {
		t.Errorf("guarded: %v: %s", err, out)
	}
	tried(t, out, true)
	s.sh(t, "umount -l /bound")
	s.until(t, "what the record says", func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "timeline", first)
		for _, what := range told {
			if err == nil && !strings.Contains(out, "the kernel refused "+what) {
				err = fmt.Errorf("nothing of %s: %s", what, out)
			}
		}
		return err
	})
	s.end(t, first, "lea")
	s.end(t, second, "mel")
}

// end revokes a grant, and waits until nothing is left of it.
func (s *scene) end(t testing.TB, id, name string) {
	t.Helper()
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, name)
	s.clean(t, id)
}

// tried looks at what became of each try.
func tried(t testing.TB, out string, guarded bool) {
	t.Helper()
	said := map[string]string{}
	for line := range strings.Lines(out) {
		if name, rest, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			said[name] = rest
		}
	}
	for _, w := range against {
		if w.undo == "" && !guarded {
			continue
		}
		rest, ok := said[w.name]
		did := strings.HasPrefix(rest, "0:")
		t.Logf("guarded %-5v  %-15s %s", guarded, w.name, rest)
		switch {
		case !ok:
			t.Errorf("%s was not tried", w.name)
		case guarded && (did || !slices.ContainsFunc([]string{"not permitted", "permission denied", "must be superuser", "errno 1"}, func(s string) bool { return strings.Contains(rest, s) })):
			t.Errorf("%s: the kernel did not refuse it: %s", w.name, rest)
		case !guarded && !did:
			t.Errorf("%s fails without a guard too, and shows nothing: %s", w.name, rest)
		}
	}
}
