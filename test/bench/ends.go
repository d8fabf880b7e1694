package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"curfew.internal/test/lab"
)

// crowds are those that an end is measured with.
var crowds = []crowd{{1, false}, {200, false}, {1, true}, {200, true}}

// A fault is what befalls the agent before the end. Asleep says that it is
// measured with what sleeps alone.
type fault struct {
	name, quiet, awake string
	asleep             bool
}

const (
	quiet = "systemctl mask --runtime curfew-agent curfew-sweep; systemctl stop curfew-sweep.timer; systemctl kill -s %s curfew-agent"
	awake = "systemctl unmask --runtime curfew-agent curfew-sweep; systemctl kill -s KILL curfew-agent; systemctl stop curfew-agent; systemctl start curfew-agent curfew-sweep.timer"
)

var faults = []fault{
	{name: "agent alive", quiet: "true", awake: "true"},
	{name: "agent killed", quiet: fmt.Sprintf(quiet, "KILL"), awake: awake},
	{name: "agent stopped", quiet: fmt.Sprintf(quiet, "STOP"), awake: awake},
	// As before Linux 6.13: without its pin and an agent the kernel's timer is off.
	{
		name: "no agent and no timer in the kernel, systemd's alone", asleep: true,
		quiet: "systemctl mask --runtime curfew-agent; systemctl stop curfew-sweep.timer curfew-sweep; systemctl kill -s KILL curfew-agent; systemctl stop curfew-agent; rm /sys/fs/bpf/curfew/alarms",
		awake: "systemctl unmask --runtime curfew-agent; systemctl start curfew-agent curfew-sweep.timer",
	},
}

// ends measures from a grant's end until the first and the last process is
// dead: with the agent alive, and with nothing of ours awake in user space.
// Each round has all faults, in turn, with another person.
func (b *bench) ends(ctx context.Context) error {
	for _, c := range crowds {
		suit := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return f.asleep && c.spins })
		first, last := map[string][]time.Duration{}, map[string][]time.Duration{}
		for _, p := range b.pairs {
			for i, f := range suit {
				person := []*lab.Person{p.asks, p.approves}[i%2]
				x, y, err := b.end(ctx, person, c, f)
				if err != nil {
					return fmt.Errorf("%s, %v: %w", f.name, c, err)
				}
				first[f.name], last[f.name] = append(first[f.name], x), append(last[f.name], y)
			}
		}
		for _, f := range suit {
			what := fmt.Sprintf("a grant's end, %s -> ", f.name)
			if c.size > 1 {
				show(what+fmt.Sprintf("first of %v dead", c), first[f.name])
			}
			show(what+fmt.Sprintf("last of %v dead", c), last[f.name])
		}
	}
	return nil
}

func (b *bench) end(ctx context.Context, p *lab.Person, c crowd, f fault) (first, last time.Duration, err error) {
	length := "4s"
	switch {
	case c.size > 100 && c.spins:
		length = "10s"
	case c.size > 100:
		length = "6s" // they take their time to start
	}
	out, err := p.Prove(ctx, "request", "free", "--on", "db1", "--for", length, "--no-wait", "-o", "json")
	if err != nil {
		return 0, 0, err
	}
	var r struct {
		NotAfter time.Time `json:"not_after"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return 0, 0, err
	}
	if err := b.account(ctx, p); err != nil {
		return 0, 0, err
	}
	w, err := b.leave(ctx, p, c)
	if err != nil {
		return 0, 0, err
	}
	if _, err := b.host.Sh(ctx, f.quiet); err != nil {
		return 0, 0, errors.Join(err, w.close())
	}
	if !time.Now().Before(r.NotAfter) {
		return 0, 0, errors.Join(errors.New("it was not ready before the end: nothing would be measured"), w.close())
	}
	x, y, err := w.dead(ctx)
	if err != nil {
		return 0, 0, err
	}
	_, err = b.host.Sh(ctx, f.awake)
	return x.Sub(r.NotAfter), y.Sub(r.NotAfter), err
}
