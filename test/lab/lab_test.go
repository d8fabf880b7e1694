package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"curfew.internal/test/need"
)

// loop is a unit of the kind that pins into bpffs: it writes there what it
// finds, at each start.
const loop = `[Unit]
RequiresMountsFor=/sys/fs/bpf
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mkdir -p /sys/fs/bpf/loop
[Install]
WantedBy=multi-user.target
`

func TestHosts(t *testing.T) {
	need.Nspawn(t)
	need.Program(t, "ssh", "ssh-keygen")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	before := machine(t)
	l, err := New(ctx, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, l.dir, before)
	}()
	if _, err := l.Join(ctx, "cp"); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(l.Dir(), "key")
	if out, err := l.In(ctx, "cp", "ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	files := []File{
		{Path: "/etc/ssh/keys/tess", From: key + ".pub", Mode: 0o644},
		{Path: "/etc/ssh/sshd_config.d/keys.conf", Text: "AuthorizedKeysFile /etc/ssh/keys/%u\n", Mode: 0o644},
		{Path: "/root/placed", Text: "placed\n", Mode: 0o440},
		{Path: "/etc/systemd/system/loop.service", Text: loop, Mode: 0o644},
		{Path: "/etc/systemd/system/multi-user.target.wants/loop.service", Link: "../loop.service"},
	}
	hosts := make([]*Host, 2)
	g, gctx := errgroup.WithContext(ctx)
	for i, name := range []string{"one", "two"} {
		g.Go(func() (err error) {
			hosts[i], err = l.Host(gctx, name, files...)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	s := story{ctx, l, hosts[0], hosts[1], key}
	t.Run("a host is a machine of its own", s.own)
	t.Run("a login is a real one", s.login)
	t.Run("a program on a host belongs to no login and has no more power than it", s.command)
	t.Run("a host's units are its own", s.units)
	t.Run("files go in and out", s.files)
	t.Run("bpffs is one for all units", s.bpffs)
	t.Run("a cable that is out cuts one host off", s.cable)
	t.Run("after a power cut the disk is there", s.powerCut)
	t.Run("after a reboot the disk is there", s.reboot)
	t.Run("a host whose unit fails does not start", s.degraded)
	t.Run("what is given up is killed", s.givenUp)
}

type story struct {
	ctx      context.Context
	lab      *Lab
	one, two *Host
	key      string
}

// sh runs a script and wants it to succeed.
func (s story) sh(t *testing.T, h *Host, script string) string {
	t.Helper()
	out, err := h.Sh(s.ctx, script)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// ssh logs in as tess from the control plane's place.
func (s story) ssh(h *Host, script string) (string, error) {
	out, err := s.lab.In(s.ctx, "cp", "ssh", "-i", s.key, "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=2", "tess@"+h.Address, script).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (s story) own(t *testing.T) {
	for _, what := range []string{"cat /etc/machine-id", "cat /etc/ssh/ssh_host_ed25519_key.pub", "hostname", "stat -Lc %i /proc/1/ns/net /proc/1/ns/mnt"} {
		if a, b := s.sh(t, s.one, what), s.sh(t, s.two, what); a == b || a == "" {
			t.Errorf("%s: %q and %q", what, a, b)
		}
	}
	if got := s.sh(t, s.one, "stat -c %a /root /root/placed; systemctl is-system-running; systemctl is-enabled ssh; sudo -l -U root >/dev/null && getent hosts one | cut -d' ' -f1"); got !=
		"700\n440\nrunning\nenabled\n"+s.one.Address {
		t.Errorf("host one: %s", got)
	}
}

func (s story) login(t *testing.T) {
	s.sh(t, s.one, "useradd -m -s /bin/bash tess")
	out, err := s.ssh(s.one, "cat /proc/self/loginuid; echo; id -u; loginctl --no-legend list-sessions; loginctl show-session -p Type -p Service -p Remote $XDG_SESSION_ID")
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	uid := s.sh(t, s.one, "id -u tess")
	if lines := strings.Split(out, "\n"); lines[0] != uid || lines[1] != uid {
		t.Errorf("login uid and uid are not %s: %s", uid, out)
	}
	for _, want := range []string{" tess", "Service=sshd", "Remote=yes", "Type=tty"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if out, err := s.ssh(s.two, "true"); err == nil {
		t.Errorf("a login of a person whom the host does not know: %s", out)
	}
}

func (s story) command(t *testing.T) {
	got := s.sh(t, s.one, "cat /proc/self/loginuid; echo; test -z \"$XDG_SESSION_ID\" && ! loginctl session-status >/dev/null 2>&1 && grep ^CapEff: /proc/self/status /proc/1/status | cut -f2")
	lines := strings.Fields(got)
	if len(lines) != 3 || lines[0] != "4294967295" || lines[1] != lines[2] {
		t.Errorf("login uid, capabilities, those of pid 1: %q", lines)
	}
	if out, err := s.one.Sh(s.ctx, "date -s '2001-01-01'"); err == nil {
		t.Fatalf("the machine's clock was set: %s", out)
	}
	r, err := s.one.Run(s.ctx, "sh", "-c", "echo out; echo err >&2; exit 7")
	if want := (Result{"out\n", "err\n", 7}); err != nil || r != want {
		t.Errorf("run: %v %+v", err, r)
	}
	if r, err = s.one.Run(s.ctx, "sh", "-c", "kill -9 $$"); err != nil || r.Code != 128+9 {
		t.Errorf("killed: %v %+v", err, r)
	}
	if r, err = s.one.Run(s.ctx, "sh", "-c", "sleep 100 & echo begun"); err != nil || r.Out != "begun\n" {
		t.Errorf("left one behind: %v %+v", err, r)
	}
}

func (s story) units(t *testing.T) {
	s.sh(t, s.one, "systemctl stop cron; ! systemctl is-active cron")
	if got := s.sh(t, s.two, "systemctl is-active cron; pgrep -xc cron"); got != "active\n1" {
		t.Errorf("host two's cron, after host one's stopped: %s", got)
	}
	// A process that a host can't see shows as 0.
	if got := s.sh(t, s.two, "cat $(find /sys/fs/cgroup/ -path '*/system.slice/*' -name cgroup.procs) | grep -c '^0$' || true"); got != "0" {
		t.Errorf("%s processes of others are in the groups of host two's units", got)
	}
	s.sh(t, s.one, "systemctl start cron")
}

func (s story) files(t *testing.T) {
	const name, text = "/srv/a b/it's", "x\x00y\n"
	for _, mode := range []os.FileMode{0o600, 0o755} {
		if err := s.one.Put(s.ctx, name, text, mode); err != nil {
			t.Fatal(err)
		}
		got, err := s.one.Read(s.ctx, name)
		if err != nil || got != text {
			t.Errorf("read: %v %q", err, got)
		}
		if m := s.sh(t, s.one, "stat -c %a "+quote(name)+"; ls -A '/srv/a b' | wc -l"); m != fmt.Sprintf("%o\n1", mode) {
			t.Errorf("mode %o: %s", mode, m)
		}
	}
	if _, err := s.one.Read(s.ctx, "/none"); err == nil || !strings.Contains(err.Error(), "on one: ") {
		t.Errorf("read of nothing: %v", err)
	}
}

func (s story) bpffs(t *testing.T) {
	s.sh(t, s.one, "findmnt -n -o FSTYPE /sys/fs/bpf | grep -x bpf && mkdir /sys/fs/bpf/outer")
	// Another start of a unit sees what was there, and what its first made.
	got := s.sh(t, s.one, "rmdir /sys/fs/bpf/loop && systemctl restart loop && ls -d /sys/fs/bpf/*/ && systemd-run -q --pipe --wait sh -c 'ls -d /sys/fs/bpf/*/'")
	if want := strings.TrimSpace(strings.Repeat("/sys/fs/bpf/loop/\n/sys/fs/bpf/outer/\n", 2)); got != want {
		t.Errorf("%q, not %q", got, want)
	}
	if got := s.sh(t, s.two, "ls -d /sys/fs/bpf/*/"); got != "/sys/fs/bpf/loop/" {
		t.Errorf("host two sees %q", got)
	}
}

func (s story) cable(t *testing.T) {
	if err := s.lab.Cable(s.ctx, "one", false); err != nil {
		t.Fatal(err)
	}
	if out, err := s.ssh(s.one, "true"); err == nil {
		t.Errorf("a login through a cable that is out: %s", out)
	}
	// Two answers, if only to refuse her.
	if out, _ := s.ssh(s.two, "true"); !strings.Contains(out, "Permission denied") {
		t.Errorf("the other host: %s", out)
	}
	if err := s.lab.Cable(s.ctx, "one", true); err != nil {
		t.Fatal(err)
	}
	if out, err := s.ssh(s.one, "true"); err != nil {
		t.Errorf("a login through a cable that is in again: %v %s", err, out)
	}
	if err := s.lab.Cable(s.ctx, "three", true); err == nil {
		t.Error("a cable of nobody")
	}
}

func (s story) powerCut(t *testing.T) {
	id := s.sh(t, s.one, "echo kept > /root/kept; echo lost > /run/lost; cat /etc/machine-id")
	if err := s.one.PowerOff(s.ctx); err != nil {
		t.Fatal(err)
	}
	if out, err := s.one.Sh(s.ctx, "true"); err == nil {
		t.Errorf("a host that is off did it: %s", out)
	}
	if err := s.one.Start(s.ctx); err != nil {
		t.Fatal(err)
	}
	if got := s.sh(t, s.one, "cat /root/kept /etc/machine-id; test ! -e /run/lost; ls -d /sys/fs/bpf/*/"); got != "kept\n"+id+"\n/sys/fs/bpf/loop/" {
		t.Errorf("after the power cut: %s", got)
	}
	if out, err := s.ssh(s.one, "true"); err != nil {
		t.Errorf("a login after the power cut: %v %s", err, out)
	}
}

func (s story) reboot(t *testing.T) {
	s.sh(t, s.one, "echo lost > /run/lost; systemd-run -q -p ExecStop='/bin/touch /root/stopped' sleep 1000")
	if err := s.one.Reboot(s.ctx); err != nil {
		t.Fatal(err)
	}
	s.sh(t, s.one, "cat /root/kept /root/stopped; test ! -e /run/lost")
	// A host that went off by itself starts again.
	if _, err := s.one.Sh(s.ctx, "systemctl poweroff --no-block"); err != nil {
		t.Fatal(err)
	}
	if err := s.one.PowerOff(s.ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.one.Start(s.ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.one.Start(s.ctx); err == nil {
		t.Error("it was started twice")
	}
}

func (s story) degraded(t *testing.T) {
	_, err := s.lab.Host(s.ctx, "bad",
		File{Path: "/etc/systemd/system/bad.service", Text: "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo so it goes; exit 1'\n", Mode: 0o644},
		File{Path: "/etc/systemd/system/multi-user.target.wants/bad.service", Link: "../bad.service"})
	if err == nil || !strings.Contains(err.Error(), "bad is degraded") || !strings.Contains(err.Error(), "so it goes") {
		t.Errorf("%v", err)
	}
}

func (s story) givenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(s.ctx)
	cmd := s.two.Command(ctx, "sh", "-c", "echo begun; sleep 54321 & sleep 54321")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well")
	}
	if err := Until(s.ctx, "the end of both", func() error {
		r, err := s.two.Run(s.ctx, "pgrep", "-fx", "sleep 54321")
		if err == nil && r.Code != 1 {
			err = errors.New(r.Out)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// machine is what the machine shows of labs: mounts, links, control groups and
// names in /run.
func machine(t *testing.T) []string {
	t.Helper()
	var seen []string
	for _, pattern := range []string{"/run/*", "/run/systemd/*", "/sys/fs/cgroup/*/*", "/sys/class/net/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, names...)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return append(seen, strings.Split(string(mounts), "\n")...)
}

// nothingLeft makes sure that a closed lab has gone without a trace. Other
// labs may come and go meanwhile; these keep no name of ours.
func nothingLeft(t *testing.T, dir string, before []string) {
	t.Helper()
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	if left, _ := filepath.Glob("/run/netns/" + filepath.Base(dir) + "-*"); len(left) > 0 {
		t.Errorf("%s are left", left)
	}
	pids, err := inhabitants(dir, nil)
	if err != nil || len(pids) > 0 {
		t.Errorf("processes %v are left (%v)", pids, err)
	}
	after := machine(t)
	if others, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "cfw-*")); len(others) > 0 {
		return
	}
	for _, what := range after {
		// The first network that ip(8) ever names on a machine makes a mount.
		if !slices.Contains(before, what) && !strings.Contains(what, "/run/netns") {
			t.Errorf("%s was not there before", what)
		}
	}
}

// TestAKilledRun kills a process that has a lab; the next one takes that away.
func TestAKilledRun(t *testing.T) {
	need.Nspawn(t)
	if os.Getenv("LAB_TO_BE_KILLED") != "" {
		t.Fatal(toBeKilled(t.Context()))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	before := machine(t)
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestAKilledRun$")
	child.Env = append(os.Environ(), "LAB_TO_BE_KILLED=1")
	child.Stderr = t.Output()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	dir := ""
	for scan := bufio.NewScanner(out); dir == "" && scan.Scan(); {
		_, dir, _ = strings.Cut(scan.Text(), "its lab: ")
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if pids, err := inhabitants(dir, nil); dir == "" || err != nil || len(pids) == 0 {
		t.Fatalf("the killed run left no processes in %q: %v %v", dir, pids, err)
	}
	l, err := New(ctx, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob("/run/netns/" + filepath.Base(dir) + "-*"); len(left) > 0 {
		t.Errorf("%s are left", left)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, dir, before)
	nothingLeft(t, l.dir, before)
}

// toBeKilled makes a lab, says where, and waits for its end.
func toBeKilled(ctx context.Context) error {
	l, err := New(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if _, err := l.Host(ctx, "one"); err != nil {
		return err
	}
	if _, err := l.Join(ctx, "cp"); err != nil {
		return err
	}
	if err := l.In(ctx, "cp", "sleep", "1000").Start(); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "its lab:", l.dir)
	return unix.Pause()
}
