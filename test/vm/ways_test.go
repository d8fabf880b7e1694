package vm

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// ways are what a process may try past its end. Done says, as a shell tells
// it, that it came about; where it is empty, that the call came back does.
var ways = []struct {
	name, done string
	replaced   bool // one that comes about says nothing
}{
	{name: "open", done: "test -e /ways/made-open"},
	{name: "write"},
	{name: "truncate", done: "! test -s /ways/long"},
	{name: "mkdir", done: "test -e /ways/made-mkdir"},
	{name: "rmdir", done: "! test -e /ways/folder"},
	{name: "mknod", done: "test -e /ways/made-mknod"},
	{name: "symlink", done: "test -L /ways/made-symlink"},
	{name: "link", done: "test -e /ways/made-link"},
	{name: "unlink", done: "! test -e /ways/unlinked"},
	{name: "rename", done: "test -e /ways/made-rename"},
	{name: "chmod", done: "test -u /ways/old"},
	{name: "xattr"},
	{name: "setuid"},
	{name: "setgid"},
	{name: "setgroups"},
	{name: "userns"},
	{name: "capable", done: "test $(hostname) = freed"},
	{name: "exec", replaced: true},
	{name: "ptrace"},
	{name: "traceme"},
	{name: "kill", done: "! kill -0 $(cat /ways/victim-kill) 2>/dev/null"},
	{name: "socket"},
	{name: "connect"},
	{name: "mount", done: "mountpoint -q /ways/on"},
	{name: "umount", done: "! mountpoint -q /ways/off"},
	{name: "bpf"},
	{name: "module", done: "grep -q ^dummy /proc/modules"},
	{name: "clock"},
}

const prepare = `set -e
mkdir -p /ways/folder /ways/on /ways/off /ways/out
cd /ways; touch old unlinked renamed; echo text >long; mount -t tmpfs off off
cp "$(modprobe -D dummy | sed -n 's/^insmod \([^ ]*\).*/\1/p' | tail -1)" module
for w in kill ptrace; do setsid sleep 6000 >/dev/null 2>&1 & echo $! >victim-$w; done
cat >start`

// free: a granted root has a process for each way ready, and all of ours in
// user space is gone at the end. None comes about. Before, with nobody's
// session, all do, which shows that the tries are good.
func free(t *testing.T, s *scene) {
	t.Helper()
	s.prepare(t)
	now := time.Now()
	s.sh(t, fmt.Sprintf("bash /ways/start %d", now.Unix()+4))
	s.ready(t)
	wait(t, now.Add(7*time.Second))
	for _, w := range ways {
		if said, did := s.became(t, w.name, w.done); !did && !w.replaced {
			t.Errorf("%s: it fails in no session too, and shows nothing: %q", w.name, said)
		}
	}
	s.undo(t)
	s.prepare(t)
	p := s.person(t, "kim")
	id, end := s.grant(t, p, 50*time.Second)
	if out, err := s.ssh(t, p, fmt.Sprintf("sudo -n env bash /ways/start %d", end.Unix()+2)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.ready(t)
	s.silence(t, end, "curfew-sweep.service", "curfew-sweep.timer")
	wait(t, end.Add(8*time.Second))
	for _, w := range ways {
		if said, did := s.became(t, w.name, w.done); did || said != "ready" {
			t.Errorf("%s: the kernel let it through: %q", w.name, said)
		}
	}
	s.speak(t)
	s.nothing(t, "kim")
	s.until(t, "end of what she left", func() error {
		if out, err := s.vm.Sh(t.Context(), "pgrep -x ways"); err == nil {
			return errors.New(out)
		}
		return nil
	})
	s.undo(t)
	s.clean(t, id)
}

// prepare makes what the ways need, and what starts them all.
func (s *scene) prepare(t *testing.T) {
	t.Helper()
	var names []string
	for _, w := range ways {
		names = append(names, w.name)
	}
	if _, err := s.vm.Feed(t.Context(), fmt.Sprintf(`for w in %s; do
	setsid /usr/lib/lab/ways $w $1 /ways/out/$w $(cat /ways/victim-$w 2>/dev/null || echo 0) >/dev/null 2>&1 &
done
`, strings.Join(names, " ")), prepare); err != nil {
		t.Fatal(err)
	}
}

// ready waits until each way is about to be tried.
func (s *scene) ready(t *testing.T) {
	t.Helper()
	s.until(t, "processes that are ready", func() error {
		_, err := s.vm.Sh(t.Context(), fmt.Sprintf("[ $(grep -l ready /ways/out/* | wc -l) = %d ]", len(ways)))
		return err
	})
}

// became tells what a try said, and whether it came about.
func (s *scene) became(t *testing.T, name, done string) (said string, did bool) {
	t.Helper()
	said = strings.TrimSpace(s.sh(t, "cat /ways/out/"+name))
	did = strings.HasSuffix(said, "came back")
	if done != "" {
		did = s.is(t, done)
	}
	t.Logf("%-9s happened: %-5v said: %q", name, did, said)
	return said, did
}

// undo takes away what the ways made.
func (s *scene) undo(t *testing.T) {
	t.Helper()
	s.sh(t, "pkill -KILL -x ways; pkill -x sleep; hostname db1; umount /ways/on; umount /ways/off; rmmod dummy; rm -rf /ways; true")
}

func (s *scene) is(t *testing.T, what string) bool {
	t.Helper()
	return strings.TrimSpace(s.sh(t, "if "+what+"; then echo yes; fi")) == "yes"
}
