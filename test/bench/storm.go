package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"curfew.internal/test/lab"
)

// programs is how many a storm starts.
const programs = 1000

// stormScript starts them one after the other, then opens files, and then starts
// some at fixed times. It begins once all is ready.
const stormScript = `#!/bin/bash
until [ -e /run/bench-storm ]; do sleep 0.05; done
a=${EPOCHREALTIME/./}
for i in {1..1000}; do /bin/true; done
b=${EPOCHREALTIME/./}
echo storm $((b - a))
for ((i = 0; i < 20000; i++)); do : </dev/null; done
echo opens $((${EPOCHREALTIME/./} - b))
exec bench pace
`

// weather is what a storm runs under. All come in through sshd and logind;
// the account of the host's own carries no label.
type weather struct {
	name, short              string
	agent, ours, beside, log bool // the agent is there; it is sam; it is beside a login of sam's; auditd logs each exec
	alone                    bool // the control plane is stopped meanwhile, as if it were another machine
}

var (
	absent     = weather{name: "1000 x fork+exec, agent and programs absent", short: "absent"}
	unlabelled = weather{name: "the same, agent there, nobody labelled", short: "not labelled", agent: true}
	beside     = weather{name: "the same, beside somebody who is labelled", short: "beside a label", agent: true, beside: true}
	recorded   = weather{name: "the same, labelled and recorded", short: "recorded", agent: true, ours: true}
	alone      = weather{name: "the same, control plane stopped meanwhile", short: "alone", agent: true, ours: true, alone: true}
	audited    = weather{name: "the same, agent absent, auditd with an execve rule", short: "auditd", log: true}
	both       = weather{name: "the same, labelled and recorded, beside auditd", short: "both", agent: true, ours: true, log: true}
)

// storm measures what the record costs, in turns.
func (b *bench) storm(ctx context.Context) error {
	m, err := b.storms(ctx, 12, absent, unlabelled, beside, recorded, alone)
	if err != nil {
		return err
	}
	over("not labelled over absent, medians", m[1], m[0])
	over("beside a label over absent, medians", m[2], m[0])
	over("recorded over absent, medians", m[3], m[0])
	over("recorded, control plane stopped, over absent, medians", m[4], m[0])
	return nil
}

// auditd does the same beside auditd. It comes last: a kernel whose audit was
// on once does a little more at each system call until it boots again.
func (b *bench) auditd(ctx context.Context) error {
	if why := auditable(ctx); why != nil {
		fmt.Printf("auditd was not compared: %v\n", why)
		return b.agent(ctx, true)
	}
	m, err := b.storms(ctx, 10, absent, recorded, audited, both, alone)
	if err != nil {
		return err
	}
	over("recorded over absent, medians", m[1], m[0])
	over("auditd over absent, medians", m[2], m[0])
	over("both over absent, medians", m[3], m[0])
	over("both over auditd, medians", m[3], m[2])
	over("recorded, control plane stopped, over absent, medians", m[4], m[0])
	return b.agent(ctx, true)
}

// storms runs each kind in each round, and begins each round with another.
func (b *bench) storms(ctx context.Context, rounds int, kinds ...weather) ([]time.Duration, error) {
	took, opens, onTime := make([][]time.Duration, len(kinds)), make([][]time.Duration, len(kinds)), make([][]time.Duration, len(kinds))
	for r := range rounds {
		for k := range kinds {
			i := (r + k) % len(kinds)
			t, err := b.one(ctx, kinds[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", kinds[i].name, err)
			}
			took[i], opens[i], onTime[i] = append(took[i], t["storm"]...), append(opens[i], t["opens"]...), append(onTime[i], t["paced"]...)
		}
	}
	medians := make([]time.Duration, len(kinds))
	for i, k := range kinds {
		medians[i] = show(k.name, took[i])
	}
	b.showCosts()
	for i, k := range kinds {
		m := show("20000 x open: "+k.short, opens[i])
		if i > 0 {
			over("20000 opens: "+k.short+" over "+kinds[0].short+", medians", m, median(opens[0]))
		}
	}
	for i, k := range kinds {
		show(fmt.Sprintf("one each %v, its time -> it ended: %s", pace, k.short), onTime[i])
	}
	return medians, nil
}

func (b *bench) one(ctx context.Context, w weather) (took map[string][]time.Duration, err error) {
	if err := b.agent(ctx, w.agent); err != nil {
		return nil, err
	}
	if w.log {
		stop, err := b.audit(ctx)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if w.agent && !w.ours {
		end, err := b.labels(ctx, w.beside)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, end()) }()
	}
	out, err := b.blow(ctx, w)
	took = stamps(out)
	if err != nil || len(took["storm"]) != 1 || len(took["opens"]) != 1 || len(took["paced"]) != paced {
		return nil, fmt.Errorf("it printed %q: %w", out, errors.Join(err, errors.New("no figure")))
	}
	return took, nil
}

// blow has the storm begin once it is logged in, and all is ready.
func (b *bench) blow(ctx context.Context, w weather) (out string, err error) {
	if _, err := b.host.Sh(ctx, "rm -f /run/bench-storm"); err != nil {
		return "", err
	}
	over := make(chan error, 1)
	go func() {
		var err error
		if w.ours {
			out, _, err = b.sam.Run(ctx, "", "ssh", "db1", "--", "bench-storm")
		} else {
			var all []byte
			all, err = b.ssh(ctx, "bench-storm").CombinedOutput()
			out = string(all)
		}
		over <- err
	}()
	err = b.within(ctx, "the storm", time.Minute, func() error {
		_, err := b.host.Sh(ctx, "pgrep -x bench-storm")
		return err
	})
	before, costErr := b.spent(ctx, w)
	err = errors.Join(err, costErr)
	if w.alone {
		err = errors.Join(err, syscall.Kill(b.fleet.ServerPID(), syscall.SIGSTOP))
	}
	_, goErr := b.host.Sh(ctx, "touch /run/bench-storm")
	err = errors.Join(err, goErr, <-over)
	if w.alone {
		err = errors.Join(err, syscall.Kill(b.fleet.ServerPID(), syscall.SIGCONT))
	}
	if w.ours {
		b.stormed += programs + paced
	}
	if err != nil || !w.ours {
		return out, err
	}
	return out, b.cost(ctx, w, before)
}

// labels sees to it that somebody has a label, until end, or that nobody has
// and the programs are at rest.
func (b *bench) labels(ctx context.Context, some bool) (end func() error, err error) {
	const attached = "ls /sys/fs/bpf/curfew/links-*/on_sys_exit"
	look, end := "! "+attached, func() error { return nil }
	if some {
		done := make(chan error, 1)
		go func() {
			_, _, err := b.sam.Run(ctx, "", "ssh", "db1", "--", "sleep 60 || true")
			done <- err
		}()
		look = attached
		end = func() error {
			_, err := b.host.Sh(ctx, "pkill -u sam -x sleep")
			return errors.Join(err, <-done)
		}
	}
	return end, b.within(ctx, "programs as they should be", time.Minute, func() error {
		_, err := b.host.Sh(ctx, look)
		return err
	})
}

// ssh logs the host's own account in, and runs a command.
func (b *bench) ssh(ctx context.Context, command string) *exec.Cmd {
	return b.fleet.In(ctx, lab.Place, "ssh", "-F", "none", "-i", b.key, "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "local@"+b.host.Address, command)
}

// agent starts the agent, or takes it and all that it pinned away.
func (b *bench) agent(ctx context.Context, there bool) error {
	if there == b.present {
		return nil
	}
	b.present = there
	if !there {
		// What is in the ring is read first: without its pins it would be lost.
		if err := b.onRecord(ctx, b.started, b.stormed-b.before); err != nil {
			return err
		}
		_, err := b.host.Sh(ctx, "systemctl stop curfew-sweep.timer curfew-sweep.service curfew-agent.service && rm -r /sys/fs/bpf/curfew && test ! -e /sys/fs/bpf/curfew")
		return err
	}
	b.started, b.before = time.Now(), b.stormed
	if _, err := b.host.Sh(ctx, "test ! -e /sys/fs/bpf/curfew && systemctl start curfew-agent.service curfew-sweep.timer"); err != nil {
		return err
	}
	return b.within(ctx, "the agent's link", 20*time.Second, func() error {
		out, _, err := b.fleet.People["cleo"].Run(ctx, "", "hosts", "list")
		if err == nil && !strings.Contains(out, "connected") {
			err = errors.New(out)
		}
		return err
	})
}

// onRecord waits until the control plane has that many of the storms' programs
// on record.
func (b *bench) onRecord(ctx context.Context, since time.Time, want int) error {
	return b.within(ctx, "the record", 20*time.Second, func() error {
		n, err := b.count(ctx, "--kind", "exec", "--person", "sam", "--since", since.UTC().Format(time.RFC3339), "/bin/true")
		if err == nil && n != want {
			err = fmt.Errorf("%d programs on record, %d were run", n, want)
		}
		return err
	})
}

// count is how many events were found whose program is /bin/true.
func (b *bench) count(ctx context.Context, args ...string) (n int, err error) {
	out, _, err := b.fleet.People["cleo"].Run(ctx, "", append([]string{"audit", "search", "--limit", "0"}, args...)...)
	for line := range strings.Lines(out) {
		if strings.Contains(line, "] /bin/true  uid") {
			n++
		}
	}
	return n, err
}

// record compares what was run with what is on record, and tells what the
// host says was lost.
func (b *bench) record(ctx context.Context) error {
	if err := b.onRecord(ctx, b.begun, b.stormed); err != nil {
		return err
	}
	out, _, err := b.fleet.People["cleo"].Run(ctx, "", "audit", "search", "--limit", "0", "--kind", "gap", "-o", "ndjson")
	if err != nil {
		return err
	}
	lost, gaps := 0, 0
	for line := range strings.Lines(out) {
		var e struct {
			Lost int `json:"lost,string"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return err
		}
		gaps++
		lost += e.Lost
	}
	fmt.Printf("%-58s %d run, %d on the control plane's record\n", "programs of the recorded storms", b.stormed, b.stormed)
	fmt.Printf("%-58s %d (of %d gaps, by starts without pins)\n", "events that the kernel counted as lost", lost, gaps)
	return nil
}
