package vm

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
)

// all is said by `make test-vm`. Without it, one kernel and mode is tried.
var all = flag.Bool("all", false, "try every kernel and mode")

const policy = `labels:
  tier: [db]
roles:
  ops:
    hosts: {tier: db}
    run_as: [root]
    commands: [/usr/bin/id, "/usr/bin/env *"]
    max_duration: 1h
    reason: optional
    approval: none
  keeper:
    hosts: {tier: db}
    commands: ["/usr/bin/env *"]
    max_duration: 1h
    reason: optional
    approval: none
    guard: false
groups:
  all: [abe, ana, bea, ben, dan, eva, eve, fay, gus, hal, ida, jon, kay, kim, lea, mel, ned, noe, ora, tom, ulf]
eligible:
  - {role: ops, groups: [all]}
  - {role: keeper, groups: [all]}
`

// scene is a fleet with one guest. Each test has a person of its own: a code
// of a second factor is good once.
type scene struct {
	fleet *lab.Fleet
	vm    *Guest
}

func on(t testing.TB, kernel string, lsm bool) *scene {
	t.Helper()
	need.Root(t)
	need.Program(t, "qemu-system-x86_64", "gcc", "mkfs.ext4", "mmdebstrap", "ip", "ssh", "unshare")
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"curfew", "curfew-server", "curfew-agent", "curfew-record", "curfew-shell", "pam_curfew.so"} {
		if _, err := os.Stat(filepath.Join(repo, "bin", p)); err != nil {
			t.Fatalf("%v: run `make build` first", err)
		}
	}
	f, err := lab.NewFleet(t.Context(), t.Output(), repo, policy)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{fleet: f}
	t.Cleanup(func() {
		if s.vm != nil {
			err = s.vm.PowerOff()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Error(err)
		}
	})
	if s.vm, err = New(t.Context(), f.Lab, "db1", Kind{Suite: lab.Bookworm, Kernel: kernel, LSM: lsm, Files: ours(repo)}); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := s.vm.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(begun))
	s.join(t, "curfew-agent install && ")
	return s
}

// join lets the guest join the fleet, once a script has done what comes before.
func (s *scene) join(t testing.TB, before string) {
	t.Helper()
	token, err := s.fleet.People["cleo"].Administer(t.Context(), "hosts", "token", "--label", "tier=db", "--host", s.vm.Name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.vm.Feed(t.Context(), token, before+"curfew-agent join --name "+s.vm.Name+" --address "+s.vm.address+` &&
systemctl daemon-reload && systemctl enable --now curfew-agent.service curfew-sweep.service curfew-sweep.timer 2>&1 && sync`); err != nil {
		t.Fatal(err)
	}
}

// person enrols somebody.
func (s *scene) person(t testing.TB, name string) *lab.Person {
	t.Helper()
	p, err := s.fleet.Invite(t.Context(), name, "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var grantID = regexp.MustCompile(`g-[a-z2-7]{16}`)

// grant gives a person the role, and waits until it is on the guest.
func (s *scene) grant(t testing.TB, p *lab.Person, length time.Duration) (id string, end time.Time) {
	t.Helper()
	return s.grantOf(t, p, "ops", length)
}

func (s *scene) grantOf(t testing.TB, p *lab.Person, role string, length time.Duration) (id string, end time.Time) {
	t.Helper()
	out, err := p.Prove(t.Context(), "request", role, "--on", "db1", "--for", length.String(), "--no-wait")
	if err != nil {
		t.Fatal(err)
	}
	end = time.Now().Add(length)
	if id = grantID.FindString(out); id == "" {
		t.Fatalf("no grant in %q", out)
	}
	s.until(t, "account "+p.Name, func() error {
		_, err := s.vm.Sh(t.Context(), "test -e /run/curfew/managed/"+p.Name+" && test -e /run/curfew/sudoers.d/"+id)
		return err
	})
	return id, end
}

// until repeats a look, with the patience that an emulated machine needs.
func (s *scene) until(t testing.TB, what string, look func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	if err := lab.Until(ctx, what, look); err != nil {
		log, _ := s.vm.Sh(t.Context(), "journalctl --no-pager -n 40 -u curfew-agent -u curfew-sweep; cat /run/curfew/status.json; grep -v cgroup /proc/mounts; ls -laR /run/curfew /run/userdb")
		t.Fatalf("%v\n%s\n%s", err, log, s.fleet.ServerLog())
	}
}

// ssh runs a command on the guest as the person, in a login of its own. Where
// the agent says that it was too slow and to try again, it does.
func (s *scene) ssh(t testing.TB, p *lab.Person, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for {
		out, errs, err := p.Run(ctx, "", "ssh", "db1", "--", command)
		if err == nil || !strings.Contains(errs, "too slow to decide") {
			return out + errs, err
		}
	}
}

func (s *scene) sh(t testing.TB, script string) string {
	t.Helper()
	out, err := s.vm.Sh(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// traces prints what the guest has of a person's, and nothing else.
func traces(name string) string {
	return fmt.Sprintf(`{ getent passwd %[1]s; grep -ls '^%[1]s ' /run/curfew/sudoers.d/*
ls -d /run/curfew/*/%[1]s /run/curfew/ssh/*/%[1]s /run/userdb/%[1]s.* 2>/dev/null; ps -eo user:32= | grep -x %[1]s; true; }`, name)
}

// nothing waits until the guest has nothing of the person's.
func (s *scene) nothing(t testing.TB, name string) {
	t.Helper()
	s.until(t, "removal of "+name, func() error {
		out, err := s.vm.Sh(t.Context(), traces(name))
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}
		return err
	})
}

// clean waits for a receipt that says that nothing is left.
func (s *scene) clean(t testing.TB, id string) {
	t.Helper()
	s.until(t, "receipt of "+id, func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "timeline", id)
		if err == nil && !strings.Contains(out, "nothing is left; signed by db1") {
			err = errors.New(out)
		}
		return err
	})
}

func (s *scene) mode(t testing.TB) string {
	t.Helper()
	var status struct{ Mode string }
	s.until(t, "word of the agent", func() error {
		out, err := s.vm.Sh(t.Context(), "curfew-agent status -o json")
		if err == nil {
			err = json.Unmarshal([]byte(out), &status)
		}
		return err
	})
	return status.Mode
}

// wait lets time pass until then.
func wait(t *testing.T, then time.Time) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(time.Until(then)):
	}
}

func refused(t *testing.T, out string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("let through: %s", out)
	}
}

func TestOnKernels(t *testing.T) {
	type part struct {
		name string
		run  func(*testing.T, *scene)
	}
	parts := []part{
		{"a grant opens what it says, and all of it ends", life},
		{"a granted root cannot take Curfew away", guarded},
		{"what comes to a watched place by another name, and where datagrams go, is told", named},
		{"the power is cut in the middle of a grant, and across its end", powerCut},
	}
	kernels, modes := versions[:1], []bool{true}
	if *all {
		kernels, modes = versions, []bool{true, false}
		parts = append(parts, part{"the power is cut as a grant ends", cutAtEnd}, part{"the agent is killed at the end", killed}, part{"with nobody alive, the kernel refuses", fenced}, part{"the sweep ends what sleeps", swept},
			part{"past the end each way to begin something is refused", free}, part{"what a granted root sets up does not outlast her unseen", escape},
			part{"the cable is out at the end", apart}, part{"the disk is full at the end", full},
			part{"somebody spins in real time across the end", spun},
			part{"the clock is set back and forward", clocks}, part{"the machine is suspended across the end", asleep},
			part{"the power is cut while dpkg is at work", cutOnce}) // comes last: what it leaves is another agent
	}
	for _, k := range kernels {
		for _, lsm := range modes {
			t.Run(fmt.Sprintf("Linux %s, LSM %v", k, lsm), func(t *testing.T) {
				s := on(t, k, lsm)
				if k == versions[1] && lsm { // a user's own binfmt_misc, among them, is younger than 6.1
					t.Run("whatever is run to be missed is seen, or said not to be", func(t *testing.T) { evades(t, s) })
				}
				for _, p := range parts {
					t.Run(p.name, func(t *testing.T) { p.run(t, s) })
				}
			})
		}
	}
	if *all {
		packages(t)
	}
}

// mode is what the agent has to prove on this guest.
func (g *Guest) mode() string {
	if g.LSM {
		return "lsm+guard+fexit+tracing"
	}
	return "fmod_ret+guard+fexit+tracing"
}

// life also holds the agent to the mode that it claims: LSM programs count
// where the guest was started with them, and those of the other way elsewhere.
func life(t *testing.T, s *scene) {
	t.Helper()
	if got := s.mode(t); got != s.vm.mode() {
		t.Errorf("the mode is %q, not %q: %s", got, s.vm.mode(), s.sh(t, "journalctl --no-pager -u curfew-agent"))
	}
	p := s.person(t, "dan")
	id, end := s.grant(t, p, time.Minute)
	out, err := s.ssh(t, p, "sudo -n id && sudo -n env setsid -f sleep 5000 >/dev/null 2>&1")
	if err != nil || !strings.Contains(out, "uid=0(root)") {
		t.Errorf("refused: %v %s", err, out)
	}
	s.sh(t, "pgrep -f '^sleep 5000'")
	wait(t, end)
	s.nothing(t, "dan")
	s.sh(t, "! pgrep -f '^sleep 5000'")
	out, err = s.ssh(t, p, "true")
	refused(t, out, err)
	s.clean(t, id)
}

func powerCut(t *testing.T, s *scene) {
	t.Helper()
	long, short := s.person(t, "eva"), s.person(t, "fay")
	first, _ := s.grant(t, long, 10*time.Minute)
	second, end := s.grant(t, short, time.Minute)
	s.sh(t, "curfew-agent status >/dev/null; getent passwd eva fay")
	if err := s.vm.PowerOff(); err != nil {
		t.Fatal(err)
	}
	wait(t, end)
	if err := s.vm.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := s.sh(t, traces("fay")); strings.TrimSpace(out) != "" {
		t.Errorf("after the power cut there is still %s", out)
	}
	// What is in the middle of its time stands, also without a control plane.
	s.until(t, "grant after the power cut", func() error {
		_, err := s.vm.Sh(t.Context(), "test -e /run/curfew/sudoers.d/"+first+" && getent passwd eva && runuser -u eva -- sudo -n id")
		return err
	})
	s.sh(t, `at() { journalctl -b -u "$1" -o json --no-pager | grep '"JOB_RESULT":"done"' | head -1 | sed 's/.*"__MONOTONIC_TIMESTAMP":"\([0-9]*\)".*/\1/'; }
sweep=$(at curfew-sweep) ssh=$(at ssh); echo "sweep at $sweep, sshd at $ssh"; [ "$sweep" -gt 0 ] && [ "$sweep" -lt "$ssh" ]`)
	out, err := s.ssh(t, short, "true")
	refused(t, out, err)
	s.clean(t, second)
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", first); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "eva")
	s.clean(t, first)
}

// killed: systemd starts the agent again, which finds what it was about to
// end.
func killed(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "gus")
	id, end := s.grant(t, p, 90*time.Second)
	if _, err := p.Start(t.Context(), t.TempDir()+"/out", "ssh", "db1", "--", "sudo -n env setsid sleep 5001 & sleep 5002"); err != nil {
		t.Fatal(err)
	}
	s.until(t, "processes", func() error {
		_, err := s.vm.Sh(t.Context(), "pgrep -f '^sleep 5001' && pgrep -f '^sleep 5002'")
		return err
	})
	wait(t, end.Add(-500*time.Millisecond))
	s.sh(t, "systemctl kill -s KILL curfew-agent")
	s.nothing(t, "gus")
	s.sh(t, "! pgrep -f '^sleep 500[12]'")
	s.clean(t, id)
	// The agent after it has put its programs in the place of the others.
	if got := s.mode(t); got != s.vm.mode() {
		t.Errorf("the mode is %q, not %q", got, s.vm.mode())
	}
	if n := strings.TrimSpace(s.sh(t, "ls -d /sys/fs/bpf/curfew/gate-* /sys/fs/bpf/curfew/guard-* /sys/fs/bpf/curfew/after-* 2>/dev/null | wc -l")); n != "3" {
		t.Errorf("there are %s sets of programs that refuse or see", n)
	}
}

// silence takes the agent away before the grant ends, and with it the unit and
// the timers that are named.
func (s *scene) silence(t *testing.T, end time.Time, unit, timers string) {
	t.Helper()
	t.Cleanup(func() { // whatever fails: the parts after this one need the agent
		_, _ = s.vm.Sh(context.WithoutCancel(t.Context()), "systemctl unmask --runtime curfew-agent.service curfew-sweep.service; systemctl start curfew-agent.service curfew-sweep.timer")
	})
	s.sh(t, "systemctl mask --runtime curfew-agent.service "+unit+"; systemctl stop '"+timers+`'
systemctl kill -s KILL curfew-agent; for i in {1..50}; do [ "$(systemctl show -P MainPID curfew-agent)" = 0 ] && exit; sleep 0.1; done; exit 1`)
	if time.Now().After(end) {
		t.Fatal("the machine is too slow: the grant ended before its test began")
	}
}

// speak brings them back.
func (s *scene) speak(t *testing.T) {
	t.Helper()
	s.sh(t, `! systemctl is-active curfew-agent && systemctl unmask --runtime curfew-agent.service curfew-sweep.service &&
systemctl start curfew-agent.service curfew-sweep.timer`)
}

// fenced: the agent and the sweep are away across the end. A process that
// forks nothing and executes nothing opens a file for writing each moment, and
// dies of the first one. Its like, in no session, goes on.
func fenced(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "hal")
	id, end := s.grant(t, p, 90*time.Second)
	const loop = `while [ $SECONDS -lt 3000 ]; do :>/tmp/hal; done`
	if _, err := p.Start(t.Context(), t.TempDir()+"/out", "ssh", "db1", "--", "bash -c '"+loop+"'"); err != nil {
		t.Fatal(err)
	}
	lives := "pgrep -u hal -f '^bash -c while'"
	s.until(t, "process", func() error {
		_, err := s.vm.Sh(t.Context(), lives)
		return err
	})
	s.sh(t, "setsid bash -c '"+strings.ReplaceAll(loop, "hal", "root")+"' >/dev/null 2>&1 &")
	s.silence(t, end, "curfew-sweep.service", "curfew-sweep.timer")
	s.sh(t, lives)
	wait(t, end.Add(time.Second))
	s.until(t, "the kernel", func() error {
		if out, err := s.vm.Sh(t.Context(), lives); err == nil {
			return fmt.Errorf("still there: %s", out)
		}
		return nil
	})
	s.sh(t, "pkill -u root -f '^bash -c while'")
	s.speak(t)
	s.nothing(t, "hal")
	s.clean(t, id)
}

// swept: the agent is away across the end, and these kernels have no timer that
// would end what sleeps. The sweep, which a timer starts each 30 seconds, does.
func swept(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "kay")
	id, end := s.grant(t, p, 90*time.Second)
	if out, err := s.ssh(t, p, "sudo -n env setsid -f sleep 5003 >/dev/null 2>&1"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.silence(t, end, "", "curfew-end-*.timer")
	s.sh(t, "pgrep -f '^sleep 5003'")
	wait(t, end)
	s.until(t, "the sweep", func() error {
		_, err := s.vm.Sh(t.Context(), "! pgrep -f '^sleep 5003'")
		return err
	})
	s.nothing(t, "kay")
	s.speak(t) // which it was not, until now
	s.clean(t, id)
}

// clocks: set back, the clock lengthens nothing; set forward, it ends what
// is over by it, and says why nothing new begins until time is right again.
func clocks(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "ida")
	id, end := s.grant(t, p, 90*time.Second)
	s.sh(t, "date -s '-1 hour'")
	wait(t, end)
	s.nothing(t, "ida")
	s.sh(t, "date -s '+1 hour'")
	s.clean(t, id)
	p = s.person(t, "jon")
	id, _ = s.grant(t, p, 30*time.Minute)
	// Whoever sets the clock wakes the loop, which looks by itself once an hour.
	s.sh(t, "cp /etc/curfew/agent.yaml /root/; echo 'resync: 1h' >>/etc/curfew/agent.yaml; systemctl restart curfew-agent")
	s.sh(t, "date -s '+1 hour'")
	s.nothing(t, "jon")
	s.sh(t, "date -s '-1 hour'; cp /root/agent.yaml /etc/curfew/; systemctl restart curfew-agent")
	s.clean(t, id)
	// Once the control plane's time has put right what that clock did, nobody
	// is kept waiting.
	p = s.person(t, "ana")
	id, _ = s.grant(t, p, 10*time.Minute)
	s.end(t, id, "ana")
}
