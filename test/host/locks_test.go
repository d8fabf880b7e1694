package host

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
)

// silence takes the agent and the sweep away, and brings them back after the
// test.
func (s *scene) silence(t *testing.T) (back func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	back = func() {
		if _, err := s.db1.Sh(ctx, "systemctl unmask --runtime curfew-agent.service curfew-sweep.service; systemctl start curfew-agent.service curfew-sweep.timer"); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(back) // whatever fails: the tests after this one need the agent
	s.sh(t, `systemctl mask --runtime curfew-agent.service curfew-sweep.service; systemctl stop curfew-sweep.timer
systemctl kill -s KILL curfew-agent; for i in {1..50}; do pgrep -x curfew-agent || exit 0; sleep 0.1; done; exit 1`)
	return back
}

// kernelAlone: nothing of ours is alive in user space, sudo and the door are
// asked for nothing, and what runs needs neither fork nor exec.
func kernelAlone(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "pia")
	id := s.grant(t, p, "ops", "25s")
	end := time.Now().Add(25 * time.Second)
	_, err := p.Start(t.Context(), t.TempDir()+"/out", "ssh", "db1", "--", `trap "" TERM HUP INT
sudo -n env setsid sh -c 'trap "" TERM; sleep 4441' >/dev/null 2>&1 &
(setsid setsid sleep 4442 >/dev/null 2>&1 &)
sh -c 'kill -STOP $$' &
while [ $SECONDS -lt 60 ]; do :; done`)
	if err != nil {
		t.Fatal(err)
	}
	s.until(t, "processes", func() error {
		_, err := s.db1.Sh(t.Context(), "pgrep -f '^sleep 4441' && pgrep -f '^sleep 4442'")
		return err
	})
	back := s.silence(t)
	lives := "pgrep -u pia || pgrep -f '^sleep 444[12]'"
	wait(t, time.Until(end)-2*time.Second)
	s.sh(t, lives)
	wait(t, time.Until(end)+time.Second)
	s.until(t, "the kernel", func() error {
		out, err := s.db1.Sh(t.Context(), lives)
		if err == nil {
			return fmt.Errorf("still there: %s", out)
		}
		return nil
	})
	s.sh(t, "! pgrep -x curfew-agent && test -e /run/userdb/pia.user && test -e /run/curfew/sudoers.d/"+id)
	back()
	s.nothing(t, "pia")
	s.clean(t, id)
}

// timerAlone: the agent is dead and stays so, the sweep's own timer is away,
// and systemd starts the sweep as the grant ends; also where one that began
// before the end still runs, which knows nothing of it. The kernel's timer is
// off, since nobody holds its map and its pin is away. Somebody isolated another
// target, which ends services and timers, and no session; and the host's
// zone is another, as where clocks go back.
func timerAlone(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "gil")
	id := s.grant(t, p, "ops", "45s")
	end := time.Now().Add(45 * time.Second)
	out, err := s.ssh(t, p, "sudo -n env setsid -f sleep 4449 >/dev/null 2>&1")
	allowed(t, out, err)
	// One that somebody put off, or took away, is there again.
	timer := "/run/systemd/transient/curfew-end-" + id + ".timer"
	for _, harm := range []string{"sed -i s/^OnCalendar=.*/OnCalendar=2099-01-01/ " + timer, "systemctl stop curfew-end-" + id + ".timer"} {
		s.sh(t, "cp "+timer+" /root/timer; "+harm+"; touch /run/curfew/managed/stir && rm -f /run/curfew/managed/stir")
		s.until(t, "the timer", func() error {
			_, err := s.db1.Sh(t.Context(), "diff <(grep OnCalendar /root/timer) <(grep OnCalendar "+timer+") && systemctl is-active curfew-end-"+id+".timer")
			return err
		})
	}
	back := s.silence(t)
	const zone, usual = "ln -sfn /usr/share/zoneinfo/Etc/", "systemctl isolate multi-user.target"
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() { // whatever fails: the tests after this one need sshd
		if _, err := s.db1.Sh(ctx, zone+"UTC /etc/localtime; "+usual); err != nil {
			t.Error(err)
		}
	})
	s.sh(t, zone+"GMT+12 /etc/localtime && systemctl isolate rescue.target && ! systemctl is-active ssh && systemctl unmask --runtime curfew-sweep.service && ! systemctl is-active curfew-sweep.timer && pgrep -f '^sleep 4449'")
	s.sh(t, `mkdir -p /run/systemd/system/curfew-sweep.service.d && cd /run/systemd/system/curfew-sweep.service.d
echo '[Service]
ExecStartPost=/bin/sh -c "touch /run/swept; while test -e /run/swept; do sleep 0.1; done"' >slow.conf
systemctl daemon-reload && systemctl start --no-block curfew-sweep
until test -e /run/swept; do sleep 0.1; done; rm /sys/fs/bpf/curfew/alarms; test -e /run/curfew/sudoers.d/`+id+" && pgrep -f '^sleep 4449'")
	if !time.Now().Before(end) {
		t.Fatal("it was not ready before the end: nothing would be shown")
	}
	wait(t, time.Until(end)+2*time.Second)
	s.sh(t, "rm -r /run/systemd/system/curfew-sweep.service.d /run/swept; systemctl daemon-reload")
	s.until(t, "end", func() error {
		_, err := s.db1.Sh(t.Context(), "! getent passwd gil && ! pgrep -f '^sleep 4449' && ! test -e /run/curfew/sudoers.d/"+id+
			" && ! systemctl list-units --all --plain --no-legend 'curfew-end-"+id+"*' | grep .")
		return err
	})
	s.sh(t, "! pgrep -x curfew-agent && ! systemctl is-active curfew-sweep.timer; "+usual)
	back()
	s.nothing(t, "gil")
	s.clean(t, id)
	out, _, err = s.fleet.People["cleo"].Run(t.Context(), "", "audit", "search", "--kind", "drift", "--grant", id)
	if err != nil || strings.Count(out, "end timer") != 2 {
		t.Errorf("the timer was not put right twice, and left alone otherwise: %v %s", err, out)
	}
}

// wait lets time pass on the host.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

// doorAlone: what else would refuse is away. A rule of the host's own stands,
// the account cannot be removed, and who asks carries no label and no uid of
// hers, so that nobody ends it: it is PAM's own conversation for sudo.
func doorAlone(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "quin")
	id := s.grant(t, p, "ops", "15s")
	const ask = "pamtester sudo quin acct_mgmt 2>&1"
	s.sh(t, `echo 'quin ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/standing && chmod 440 /etc/sudoers.d/standing
mount --bind /run/userdb/quin.user /run/userdb/quin.user; `+ask)
	s.until(t, "refusal", func() error {
		out, err := s.db1.Sh(t.Context(), "getent passwd quin && ! "+ask)
		if err == nil && !strings.Contains(out, "your grant ended") {
			err = errors.New(out)
		}
		return err
	})
	out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "timeline", id)
	if err != nil || strings.Contains(out, "nothing is left; signed by db1") {
		t.Errorf("a receipt says that nothing is left: %v %s", err, out)
	}
	s.sh(t, "umount /run/userdb/quin.user; rm /etc/sudoers.d/standing")
	s.nothing(t, "quin")
	s.clean(t, id)
}

// sudoAlone: no agent, no sweep, no line of ours in sudo's PAM stack. She may
// say which zone she is in.
func sudoAlone(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "rex")
	id := s.grant(t, p, "ops", "20s")
	back := s.silence(t)
	s.sh(t, "cp -p /etc/pam.d/sudo /root/pam-sudo; sed -i /pam_curfew/d /etc/pam.d/sudo")
	s.sh(t, "runuser -u rex -- sudo -n id")
	s.until(t, "refusal", func() error {
		if out, err := s.db1.Sh(t.Context(), "runuser -u rex -- sudo -n id 2>&1"); err == nil {
			return errors.New(out)
		}
		return nil
	})
	for _, zone := range []string{"Etc/GMT+12", "Etc/GMT-14"} { // half a day earlier by the clock, and later
		out, err := s.db1.Sh(t.Context(), "runuser -u rex -- env TZ="+zone+" sudo -n id 2>&1")
		refused(t, out, err)
	}
	s.sh(t, "test -e /run/curfew/sudoers.d/"+id+" && cp -p /root/pam-sudo /etc/pam.d/sudo")
	back()
	s.nothing(t, "rex")
	s.clean(t, id)
}

var keyIn = regexp.MustCompile(`-i (\S+)/key `)

// certificateAlone: no agent, no sweep, no line of ours in sshd's PAM stack,
// and the account stands. She has kept what `curfew ssh` gave to ssh.
func certificateAlone(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "kia")
	id := s.grant(t, p, "ops", "30s")
	if _, err := p.Start(t.Context(), t.TempDir()+"/out", "ssh", "-N", "db1"); err != nil {
		t.Fatal(err)
	}
	kept := t.TempDir()
	s.until(t, "ssh", func() error {
		out, err := exec.CommandContext(t.Context(), "pgrep", "-af", "^ssh .* -l kia ").Output()
		dir := keyIn.FindStringSubmatch(string(out))
		if err == nil && dir == nil {
			err = fmt.Errorf("no key in %q", out)
		}
		if err != nil {
			return err
		}
		return exec.CommandContext(t.Context(), "cp", dir[1]+"/key", dir[1]+"/key-cert.pub", kept).Run()
	})
	login := func() (string, error) {
		out, err := s.fleet.In(t.Context(), lab.Place, "ssh", "-F", "none", "-i", kept+"/key", "-o", "CertificateFile="+kept+"/key-cert.pub", "-o", "IdentitiesOnly=yes",
			"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-l", "kia", s.db1.Address, "id").CombinedOutput()
		return string(out), err
	}
	back := s.silence(t)
	s.sh(t, "cp -p /etc/pam.d/sshd /root/pam-sshd; sed -i /pam_curfew/d /etc/pam.d/sshd")
	// Sshd lets her in; that her shell then begins takes the agent.
	if out, err := login(); strings.Contains(out, "Permission denied") {
		t.Errorf("before the end: %v %s", err, out)
	}
	s.until(t, "refusal", func() error {
		if out, err := login(); err == nil || !strings.Contains(out, "Permission denied") {
			return errors.Join(err, errors.New(out))
		}
		return nil
	})
	s.sh(t, "getent passwd kia && test -e /run/curfew/sudoers.d/"+id+" && journalctl -u ssh | grep -i 'certificate invalid: expired' && cp -p /root/pam-sshd /etc/pam.d/sshd")
	back()
	s.nothing(t, "kia")
	s.clean(t, id)
}

// killedOften: the agent is killed at moments that nobody chose, while grants
// begin, are used, and end.
func killedOften(t *testing.T, s *scene) {
	t.Helper()
	names := []string{"sam", "tia", "uma"}
	var people []*lab.Person
	for _, n := range names {
		people = append(people, s.person(t, n))
	}
	ctx, stop := context.WithCancel(t.Context())
	killed := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if _, err := s.db1.Sh(t.Context(), "pkill -9 -x curfew-agent"); err == nil {
				n++
			}
			select {
			case <-ctx.Done():
			case <-time.After(500*time.Millisecond + rand.N(3*time.Second)):
			}
		}
		killed <- n
	}()
	var ids []string
	for _, p := range people {
		ids = append(ids, s.ask(t, p, "ops", "15s"))
		if out, err := s.ssh(t, p, "sudo -n id; setsid sleep 3331 >/dev/null 2>&1 & exit 0"); err != nil {
			t.Logf("not let in, as may be: %v %s", err, out)
		}
	}
	wait(t, 12*time.Second)
	stop()
	t.Logf("killed %d times", <-killed)
	for i, id := range ids {
		s.nothing(t, names[i])
		if out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "timeline", id); err == nil && !strings.Contains(out, "  db1 ") {
			t.Logf("no agent lived long enough to get it: %s", out)
			continue
		}
		s.clean(t, id)
	}
	s.sh(t, "! pgrep -f '^sleep 3331'")
	out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "audit", "search", "--kind", "gap", "--grant", ids[0])
	if err != nil || strings.Contains(out, "gap") {
		t.Errorf("the record of the grant has a gap: %v %s", err, out)
	}
}

// fullDisk: what cannot be written down is not given; what has to go goes.
func fullDisk(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "vic")
	// A look for what earlier grants left makes room when it is done.
	s.until(t, "the looks of grants before", func() error {
		_, err := s.db1.Sh(t.Context(), "! ls -A /var/lib/curfew/looks | grep . && ! grep -q '\"ended\":\"20' /var/lib/curfew/opened.json")
		return err
	})
	s.sh(t, `systemctl stop curfew-agent && cp -a /var/lib/curfew /root/state
mount -t tmpfs -o size=1m,mode=700 tmpfs /var/lib/curfew && cp -a /root/state/. /var/lib/curfew/ && systemctl start curfew-agent`)
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() { // whatever fails: the tests after this one need the room
		if _, err := s.db1.Sh(ctx, `rm -f /var/lib/curfew/fill*; systemctl stop curfew-agent; rm -rf /root/state; cp -a /var/lib/curfew /root/state
umount /var/lib/curfew; cp -a /root/state/. /var/lib/curfew/; rm -rf /root/state; systemctl start curfew-agent`); err != nil {
			t.Error(err)
		}
	})
	id := s.grant(t, p, "ops", "10m")
	s.sh(t, "dd if=/dev/zero of=/var/lib/curfew/fill bs=4k 2>/dev/null; dd if=/dev/zero of=/var/lib/curfew/fill2 bs=1 2>/dev/null; df /var/lib/curfew | grep 100%")
	out, err := s.ssh(t, p, "sudo -n id")
	allowed(t, out, err)
	s.sh(t, "systemctl restart curfew-agent")
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "vic")
	wait(t, 31*time.Second) // a code of the second factor is good once
	// What the agent was done with, such as a look for leftovers, made room.
	s.sh(t, "dd if=/dev/zero of=/var/lib/curfew/fill3 bs=1 2>/dev/null; true")
	second := s.ask(t, p, "ops", "10m")
	wait(t, 3*time.Second)
	s.sh(t, "! test -e /run/curfew/sudoers.d/"+second+" && ! getent passwd vic")
	s.sh(t, "journalctl -u curfew-agent | grep -i 'no space left'")
	s.sh(t, "rm /var/lib/curfew/fill*")
	s.until(t, "word of what was lost", func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "audit", "search", "--kind", "gap", "--host", "db1")
		if err == nil && !strings.Contains(out, "waited in the memory of an agent") {
			err = errors.New(out)
		}
		return err
	})
	s.until(t, "the grant, once there is room", func() error {
		_, err := s.db1.Sh(t.Context(), "getent passwd vic && test -e /run/curfew/sudoers.d/"+second)
		return err
	})
	s.clean(t, id)
	s.over(t, "vic", second)
}

// goesOn: jobs, a user manager with a unit, a terminal that was left, a
// forward without a command.
func goesOn(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "wil")
	id := s.grant(t, p, "ops", "20s")
	out, err := s.ssh(t, p, `echo '* * * * * touch /tmp/cron' | crontab -
echo 'touch /tmp/at' | at now + 1 hour 2>/dev/null
tmux new -d 'sleep 5551'
systemd-run --user --unit=on --quiet sleep 5552
systemd-run --user --scope --quiet sleep 5553 >/dev/null 2>&1 &
echo left > /tmp/wil; sleep 0.5; loginctl enable-linger 2>&1; pgrep -u wil sleep | wc -l`)
	allowed(t, out, err)
	if !strings.HasSuffix(strings.TrimSpace(out), "3") {
		t.Errorf("not all of it began: %s", out)
	}
	if _, err := p.Start(t.Context(), t.TempDir()+"/out", "ssh", "-N", "db1"); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "wil")
	s.clean(t, id)
	s.sh(t, "! ls /var/spool/cron/crontabs/wil /var/spool/cron/atjobs/a* /tmp/wil /var/lib/systemd/linger/wil 2>/dev/null | grep .")
	s.sh(t, "! journalctl -u curfew-agent | grep "+id+" | grep ERROR")
}

func warned(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "xia")
	id := s.grant(t, p, "ops", "5m6s")
	out := t.TempDir() + "/out"
	if _, err := p.Start(t.Context(), out, "ssh", "-tt", "db1", "sleep 7171"); err != nil {
		t.Fatal(err)
	}
	s.until(t, "warning", func() error {
		b, err := os.ReadFile(out)
		if err == nil && !strings.Contains(string(b), "ends in 5 minutes") {
			err = fmt.Errorf("the terminal shows %q", b)
		}
		return err
	})
	s.over(t, "xia", id)
}

func leased(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "zoe")
	id := s.grant(t, p, "leased", "10m")
	if _, err := p.Start(t.Context(), t.TempDir()+"/out", "ssh", "db1", "sleep 6161"); err != nil {
		t.Fatal(err)
	}
	s.until(t, "shell", func() error {
		_, err := s.db1.Sh(t.Context(), "pgrep -f '^sleep 6161' && ls /var/lib/curfew/heard.json")
		return err
	})
	if err := s.fleet.Cable(t.Context(), "db1", false); err != nil {
		t.Fatal(err)
	}
	s.sh(t, `was=$(systemctl show -p MainPID --value curfew-agent); systemctl kill -s KILL curfew-agent
for i in {1..300}; do test $(systemctl show -p MainPID --value curfew-agent) != $was && systemctl is-active curfew-agent && break; sleep 0.1; done
systemctl is-active curfew-agent && curfew-agent sweep`)
	s.sh(t, "pgrep -f '^sleep 6161' && runuser -u zoe -- sudo -n id")
	if err := s.fleet.Cable(t.Context(), "db1", true); err != nil {
		t.Fatal(err)
	}
	s.over(t, "zoe", id)
}

// borrowed: the last word of a long command is a command of a longer grant.
func borrowed(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "abe")
	long := s.grant(t, p, "second", "10m")
	short := s.grant(t, p, "ops", "12s")
	out, err := s.ssh(t, p, "sudo -n /bin/env sh -c 'setsid -f sleep 6262; exit 0' whoami")
	allowed(t, out, err)
	s.clean(t, short)
	s.sh(t, "! pgrep -f '^sleep 6262'")
	out, err = s.ssh(t, p, "sudo -n whoami")
	allowed(t, out, err)
	s.over(t, "abe", long)
}

// unlabelled: on a kernel that refuses nothing before the end, whoever is root
// takes the labels of all sessions away, and the agent with them. The next one
// knows by her login what she left as root, and labels it again; what wrote
// itself another login is said not to be known.
func unlabelled(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "ula")
	id := s.grant(t, p, "ops", "10m")
	const hides = `setsid -f sh -c "echo 0 >/proc/self/loginuid; exec sleep 8186"`
	if out, err := s.ssh(t, p, "sudo -n env sh -c 'exec >/dev/null 2>&1; setsid -f sleep 8184; "+hides+"; rm -r /sys/fs/bpf/curfew; pkill -9 -x curfew-agent'"); err != nil {
		t.Logf("cut short, as may be: %v %s", err, out)
	}
	s.until(t, "the next agent, which finds what she left", func() error {
		_, err := s.db1.Sh(t.Context(), "systemctl is-active curfew-agent && test -e /sys/fs/bpf/curfew/labels && ls /run/curfew/sessions/*.json && pgrep -f '^sleep 8184'")
		return err
	})
	s.over(t, "ula", id)
	s.sh(t, "! pgrep -f '^sleep 8184'; pkill -f '^sleep 8186'")
	s.until(t, "what is said of her labels", func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "timeline", id)
		if err == nil && (!strings.Contains(out, "the labels of its processes were taken away") || !strings.Contains(out, "processes that were labelled once and have another login now")) {
			err = errors.New(out)
		}
		return err
	})
}

// unrecorded: sudo would go on after PAM_SESSION_ERR.
func unrecorded(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "cid")
	id := s.grant(t, p, "ops", "10m")
	s.sh(t, "runuser -u cid -- sudo -n id")
	s.sh(t, "mount -t tmpfs -o ro tmpfs /run/curfew/sessions")
	out, err := s.db1.Sh(t.Context(), "runuser -u cid -- sudo -n id 2>&1")
	if err == nil || strings.Contains(out, "uid=0") {
		t.Errorf("sudo ran without a record: %s", out)
	}
	out, err = s.ssh(t, p, "id")
	refused(t, out, err)
	s.sh(t, "umount /run/curfew/sessions; runuser -u cid -- sudo -n id")
	s.over(t, "cid", id)
}
