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
	traced     bool // tracing ends it too
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
	{name: "setuid", traced: true},
	{name: "setgid", traced: true},
	{name: "setgroups"},
	{name: "userns"},
	{name: "capable", done: "test $(hostname) = freed"},
	{name: "exec", traced: true},
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
// user space is gone at the end. Where LSM programs refuse, none comes about;
// elsewhere they do, which shows that the tries are good.
func free(t *testing.T, s *scene) {
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
	p := s.person(t, "kim")
	id, end := s.grant(t, p, 50*time.Second)
	if out, err := s.ssh(t, p, fmt.Sprintf("sudo -n env bash /ways/start %d", end.Unix()+2)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.until(t, "processes that are ready", func() error {
		_, err := s.vm.Sh(t.Context(), fmt.Sprintf("[ $(grep -l ready /ways/out/* | wc -l) = %d ]", len(ways)))
		return err
	})
	s.silence(t, end)
	wait(t, end.Add(8*time.Second))
	for _, w := range ways {
		said := strings.TrimSpace(s.sh(t, "cat /ways/out/"+w.name))
		did := strings.HasSuffix(said, "came back")
		if w.done != "" {
			did = s.is(t, w.done)
		}
		t.Logf("%-9s happened: %-5v said: %q", w.name, did, said)
		switch {
		case s.vm.LSM && (did || said != "ready"):
			t.Errorf("%s: the kernel let it through: %q", w.name, said)
		case !s.vm.LSM && !w.traced && !did:
			t.Errorf("%s: it fails without our programs too, and shows nothing: %q", w.name, said)
		}
	}
	s.speak(t)
	s.sh(t, "hostname db1; umount /ways/on; umount /ways/off; pkill -x sleep; true")
	s.nothing(t, "kim")
	s.until(t, "end of what she left", func() error {
		if out, err := s.vm.Sh(t.Context(), "pgrep -x ways"); err == nil {
			return errors.New(out)
		}
		return nil
	})
	s.sh(t, "rm -rf /ways")
	s.clean(t, id)
}

func (s *scene) is(t *testing.T, what string) bool {
	t.Helper()
	return strings.TrimSpace(s.sh(t, "if "+what+"; then echo yes; fi")) == "yes"
}
