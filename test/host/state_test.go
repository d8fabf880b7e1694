package host

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"curfew.internal/test/evade"
)

// damaged: agent and sweep go on when what they wrote down cannot be read.
func damaged(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "bea")
	id := s.grant(t, p, "ops", "10m")
	out, err := s.ssh(t, p, "sudo -n env setsid -f sleep 8181 >/dev/null 2>&1; setsid -f sleep 8182 >/dev/null 2>&1; exit 0")
	allowed(t, out, err)
	s.sh(t, `systemctl stop curfew-agent
for f in /var/lib/curfew/opened.json /run/curfew/sessions/*.json /run/curfew/sessions/dead.json; do echo garbage > $f; done
curfew-agent sweep; systemctl start curfew-agent`)
	s.until(t, "the end of what nobody knows", func() error {
		if out, err := s.db1.Sh(t.Context(), "pgrep -f '^sleep 818[12]'"); err == nil {
			return errors.New(out)
		}
		return nil
	})
	out, err = s.ssh(t, p, "sudo -n id")
	allowed(t, out, err)
	s.over(t, "bea", id)
}

// spoiled: files that an agent needs, and a sweep does not, are spoiled, the disk
// takes nothing any more, and names like those of our units are made by the
// thousand. What is over goes all the same; the receipt waits for the next agent.
func spoiled(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "una")
	id := s.grant(t, p, "ops", "12s")
	out, err := s.ssh(t, p, "setsid -f sleep 8183 >/dev/null 2>&1; exit 0")
	allowed(t, out, err)
	s.sh(t, `cp -a /etc/curfew /root/etc-curfew; echo 'no: such: thing' >>/etc/curfew/agent.yaml; rm /etc/curfew/receipt.key /etc/curfew/ssh_ca.pub
mount --bind /var/lib/curfew /var/lib/curfew && mount -o remount,bind,ro /var/lib/curfew
systemctl kill -s KILL curfew-agent; for i in {1..1100}; do : >/etc/systemd/system/curfew-x$i; done`)
	s.until(t, "the sweep", func() error {
		out, err := s.db1.Sh(t.Context(), "! getent passwd una && ! test -e /run/curfew/sudoers.d/"+id+" && ! pgrep -f '^sleep 8183'")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	// Before an agent is there again, which would tell of each.
	s.sh(t, "umount /var/lib/curfew; rm /etc/systemd/system/curfew-x*; ! systemctl is-active curfew-agent && cp -a /root/etc-curfew/. /etc/curfew/ && systemctl reset-failed curfew-agent; systemctl restart curfew-agent")
	s.nothing(t, "una")
	s.clean(t, id)
	s.sh(t, "rm -r /root/etc-curfew")
}

// takenAway: who takes away all that the agent keeps does not keep the revocation
// out, and the record and the receipt in; the next agent finds it all again.
func takenAway(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "dag")
	id := s.grant(t, p, "ops", "10m")
	out, err := s.ssh(t, p, "sudo -n env sh -c 'rm -rf /var/lib/curfew; id -u'")
	allowed(t, out, err)
	s.until(t, "what the next agent has to know", func() error {
		_, err := s.db1.Sh(t.Context(), "grep "+id+" /var/lib/curfew/opened.json")
		return err
	})
	s.sh(t, "systemctl kill -s KILL curfew-agent")
	s.over(t, "dag", id)
	out, _, err = s.fleet.People["cleo"].Run(t.Context(), "", "timeline", id)
	if err != nil || !strings.Contains(out, "rm -rf /var/lib/curfew") {
		t.Errorf("what she did is not told: %v %s", err, out)
	}
}

// heldUp: a granted root has the whole host wait for her before it opens a file,
// and answers nobody: no program could be started any more, neither systemd's
// sweep nor another agent. Where the kernel has no timer she would outlast her
// end.
func heldUp(t *testing.T, s *scene) {
	t.Helper()
	evade.Equip(t, s.db1)
	p := s.person(t, "ana")
	id := s.grant(t, p, "ops", "5m")
	// The file that it makes wakes the loop.
	out, err := s.ssh(t, p, "sudo -n env setsid -f /usr/lib/lab/hold / /run/curfew/managed/stir >/dev/null 2>&1 </dev/null")
	s.until(t, "the end of who holds it", func() error {
		_, err := s.db1.Sh(t.Context(), "! pgrep -x hold")
		return err
	})
	s.until(t, "a login", func() error {
		_, err := s.ssh(t, p, "sudo -n id")
		return err
	})
	s.over(t, "ana", id)
	told, _, failed := s.fleet.People["cleo"].Run(t.Context(), "", "timeline", id)
	if failed != nil || !strings.Contains(told, "had this host wait for it") {
		t.Errorf("%v %s; the login said %v %s", failed, told, err, out)
	}
}
