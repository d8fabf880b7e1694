// Bench measures what docs/performance.md reports, with the real programs on
// a real host, side by side in one run. It judges nothing: it prints figures,
// and fails where a figure would mean nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"curfew.internal/test/lab"
)

const policy = `labels:
  tier: [db]
roles:
  asked:
    hosts: {tier: db}
    commands: [/usr/bin/true]
    max_duration: 1h
    reason: optional
    approval: {by: ["group:second"], count: 1}
  free:
    hosts: {tier: db}
    commands: [/usr/bin/true, /usr/local/lib/true]
    max_duration: 1h
    reason: optional
    approval: none
  unseen:
    hosts: {tier: db}
    commands: [/usr/bin/true]
    max_duration: 1h
    reason: optional
    approval: none
    record: {terminal: false}
groups:
  first: [pa, pb, pc, pd, pe, pf, pg, ph]
  second: [qa, qb, qc, qd, qe, qf, qg, qh]
eligible:
  - {role: asked, groups: [first]}
  - {role: free, groups: [first, second]}
  - {role: free, people: [sam]}
  - {role: unseen, people: [ted]}
`

// bench is one run.
type bench struct {
	fleet   *lab.Fleet
	host    *lab.Host
	pairs   []pair
	sam     *lab.Person // has a grant all the time, and is measured at work
	ted     *lab.Person // has one whose terminals are not recorded
	begun   time.Time
	key     string // of the host's own account, which is not ours
	present bool   // whether the agent runs
	stormed int    // programs that sam ran in storms
	before  int    // and of these, before the agent started last
	started time.Time
	costs   map[string][]processors // of recorded programs, by what they ran under
}

// pair is somebody who asks and somebody who approves.
type pair struct{ asks, approves *lab.Person }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 35*time.Minute)
	var err error
	if len(os.Args) == 3 && os.Args[1] == "knock" {
		err = knock(ctx, os.Args[2])
	} else if len(os.Args) == 2 && os.Args[1] == "pace" {
		err = keepPace(ctx)
	} else {
		err = run(ctx)
	}
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	repo, err := os.Getwd()
	if err != nil {
		return err
	}
	f, err := lab.NewFleet(ctx, os.Stderr, repo, policy)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	now := time.Now()
	b := &bench{fleet: f, begun: now, started: now, present: true}
	if err := b.setUp(ctx); err != nil {
		return err
	}
	// Words name the parts to measure: all, without any.
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"", b.people},
		{"", b.machine},
		{"", b.idle},
		{"decisions", b.decisions},
		{"sessions", b.sessions},
		{"ends", b.ends},
		{"sudo", b.sudo},
		{"door", b.door},
		{"keys", b.keys},
		{"storm", b.storm},
		{"memory", b.memory},
		{"auditd", b.auditd},
		{"", b.record},
		{"", b.machine},
	} {
		if part.name != "" && len(os.Args) > 1 && !slices.Contains(os.Args[1:], part.name) {
			continue
		}
		if err := part.run(ctx); err != nil {
			log, _ := b.host.Sh(context.WithoutCancel(ctx), "journalctl --no-pager -n 30 -u curfew-agent")
			return fmt.Errorf("%w\n%s", err, log)
		}
	}
	return nil
}

// setUp starts the host with what the parts need on it: ourselves, to knock;
// an account of the host's own, for programs without a label; and a second
// "true", whose sudo goes through PAM without our lines.
func (b *bench) setUp(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b.key = filepath.Join(b.fleet.Dir(), "key")
	if out, err := b.fleet.In(ctx, lab.Place, "ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", b.key).CombinedOutput(); err != nil {
		return fmt.Errorf("ssh-keygen: %w: %s", err, out)
	}
	b.host, err = b.fleet.Add(ctx, "db1", "tier=db",
		lab.File{Path: "/usr/local/bin/bench", From: self, Mode: 0o755},
		lab.File{Path: "/usr/local/bin/bench-sudo", Text: sudoScript, Mode: 0o755},
		lab.File{Path: "/usr/local/bin/bench-storm", Text: stormScript, Mode: 0o755},
		lab.File{Path: "/root/key.pub", From: b.key + ".pub", Mode: 0o644})
	if err != nil {
		return err
	}
	_, err = b.host.Sh(ctx, `set -e
cp /usr/bin/true /usr/local/lib/true
grep -v curfew /etc/pam.d/sudo > /etc/pam.d/sudo-without
grep -q curfew /etc/pam.d/sudo
echo 'Defaults!/usr/local/lib/true pam_service=sudo-without' > /etc/sudoers.d/bench
chmod 440 /etc/sudoers.d/bench
visudo -cq
useradd -m -s /bin/bash local
install -D -o local -m 600 /root/key.pub ~local/.ssh/authorized_keys
chown local ~local/.ssh`)
	return err
}

// people enrols everybody. It takes its time: the control plane bounds how
// many may sign in from one address.
func (b *bench) people(ctx context.Context) (err error) {
	invite := func(name string) *lab.Person {
		select {
		case <-ctx.Done():
		case <-time.After(1500 * time.Millisecond):
		}
		p, failed := b.fleet.Invite(ctx, name, "")
		err = errors.Join(err, failed)
		return p
	}
	for x := 'a'; x <= 'h' && err == nil; x++ {
		b.pairs = append(b.pairs, pair{invite("p" + string(x)), invite("q" + string(x))})
	}
	b.sam, b.ted = invite("sam"), invite("ted")
	return err
}

// machine tells where this runs, and what else does.
func (b *bench) machine(context.Context) error {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Printf("%s  %d CPUs, Linux %s, load %safter %v\n", time.Now().UTC().Format(time.DateTime), runtime.NumCPU(),
		strings.TrimSpace(string(kernel)), load, time.Since(b.begun).Round(time.Second))
	return err
}
