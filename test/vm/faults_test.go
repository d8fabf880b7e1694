package vm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
)

// apart: the cable is out across the end. What was granted ends all the same,
// and the receipt comes once the cable is back.
func apart(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "abe")
	id, end := s.grant(t, p, 90*time.Second)
	s.running(t, p, "5003")
	if err := s.fleet.Cable(t.Context(), s.vm.Name, false); err != nil {
		t.Fatal(err)
	}
	wait(t, end)
	s.nothing(t, "abe")
	s.sh(t, "! pgrep -f '^sleep 5003'")
	if err := s.fleet.Cable(t.Context(), s.vm.Name, true); err != nil {
		t.Fatal(err)
	}
	s.clean(t, id)
}

// full: across the end nothing more can be written, to the disk or to /run.
func full(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "bea")
	id, end := s.grant(t, p, 90*time.Second)
	s.running(t, p, "5004")
	s.sh(t, `for at in / /run; do for size in 64k 1; do dd if=/dev/zero of=$at/full-$size bs=$size count=65536 status=none 2>/dev/null; done; done
for at in /root /run; do if echo text >$at/fits 2>/dev/null; then echo "there is room in $at"; exit 1; fi; done`)
	wait(t, end)
	s.nothing(t, "bea")
	s.sh(t, "! pgrep -f '^sleep 5004'; rm -f /full-* /run/full-* /root/fits /run/fits")
	s.clean(t, id)
}

// running waits for a process of the person's that is root.
func (s *scene) running(t *testing.T, p *lab.Person, number string) {
	t.Helper()
	if out, err := s.ssh(t, p, "sudo -n env setsid -f sleep "+number+" >/dev/null 2>&1"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.sh(t, "pgrep -f '^sleep "+number+"'")
}

// spun: a process that goes before all others keeps the machine's one processor
// from 2 s before the end. It dies, though what ends it has to wait for its turn.
func spun(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "ora")
	id, end := s.grant(t, p, 90*time.Second)
	spin := fmt.Sprintf(`mkfifo /root/never; exec 9<>/root/never; rm /root/never
chrt -f 99 bash -c "read -t $((%d - EPOCHSECONDS)) -u 9; while [ 1 ]; do :; done" & disown`, end.Unix()-2)
	if out, err := s.ssh(t, p, "exec >/dev/null 2>&1 </dev/null; sudo -n env setsid bash -c "+quoted(spin)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.sh(t, "chrt -p $(pgrep -f 'while [[] 1') | grep SCHED_FIFO")
	wait(t, end)
	s.nothing(t, "ora")
	s.sh(t, "! pgrep -f 'while [[] 1'")
	s.clean(t, id)
}

// cutAtEnd cuts the power while a grant is being taken back: as its end comes,
// and a moment later. Whatever was half done is done, and said, after it.
func cutAtEnd(t *testing.T, s *scene) {
	t.Helper()
	for name, after := range map[string]time.Duration{"noe": 0, "ben": 200 * time.Millisecond} {
		p := s.person(t, name)
		id, end := s.grant(t, p, 90*time.Second)
		s.running(t, p, "5005")
		wait(t, end.Add(after))
		if err := s.vm.PowerOff(); err != nil {
			t.Fatal(err)
		}
		if err := s.vm.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if out := s.sh(t, traces(name)); strings.TrimSpace(out) != "" {
			t.Errorf("after the power cut there is still %s", out)
		}
		out, err := s.ssh(t, p, "true")
		refused(t, out, err)
		s.clean(t, id)
	}
}

// asleep: the machine is suspended to memory across the end. It knows by the
// clock that counts on in its sleep: nobody gets the time back that it slept.
func asleep(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "ulf")
	id, end := s.grant(t, p, 90*time.Second)
	s.running(t, p, "5006")
	const rest = 20 * time.Second
	slept := time.Until(end) + rest
	s.sh(t, fmt.Sprintf("before=$(cut -d. -f1 /proc/uptime); rtcwake -m mem -s %d && [ $(($(cut -d. -f1 /proc/uptime) - before)) -ge %d ]", int(slept.Seconds()), int(slept.Seconds())-1))
	if time.Now().Before(end) {
		t.Fatal("it woke before the end: nothing would be shown")
	}
	s.nothing(t, "ulf")
	s.sh(t, "! pgrep -f '^sleep 5006'; journalctl -b -k --no-pager | grep 'PM: suspend exit'")
	out, err := s.ssh(t, p, "true")
	refused(t, out, err)
	s.clean(t, id)
}
