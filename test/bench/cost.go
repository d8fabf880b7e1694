package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// processors is the processor time that agent and control plane took.
type processors struct{ agent, plane time.Duration }

// spent is what they took so far; of no interest where nothing is recorded.
func (b *bench) spent(ctx context.Context, w weather) (processors, error) {
	if !w.ours {
		return processors{}, nil
	}
	agent, err := b.host.Sh(ctx, "cat /proc/$(systemctl show -P MainPID curfew-agent)/task/*/schedstat")
	if err != nil {
		return processors{}, err
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", b.fleet.ServerPID()))
	if err != nil {
		return processors{}, err
	}
	var plane strings.Builder
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if err != nil {
			return processors{}, err
		}
		plane.Write(text)
	}
	return processors{running(agent), running(plane.String())}, nil
}

// running sums how long threads ran (proc_pid_schedstat(5)).
func running(schedstats string) (sum time.Duration) {
	for line := range strings.Lines(schedstats) {
		ns, _, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseInt(ns, 10, 64); err == nil {
			sum += time.Duration(n)
		}
	}
	return sum
}

// cost notes what a storm took of them, and what came of it within two seconds.
func (b *bench) cost(ctx context.Context, w weather, before processors) error {
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Second):
	}
	after, err := b.spent(ctx, w)
	if b.costs == nil {
		b.costs = map[string][]processors{}
	}
	b.costs[w.name] = append(b.costs[w.name], processors{after.agent - before.agent, after.plane - before.plane})
	return err
}

// showCosts prints what a recorded program costs, and forgets it.
func (b *bench) showCosts() {
	for name, all := range b.costs {
		half := func(of func(processors) time.Duration) float64 {
			var each []time.Duration
			for _, p := range all {
				each = append(each, of(p))
			}
			slices.Sort(each)
			return median(each).Seconds() * 1e6 / (programs + paced)
		}
		fmt.Printf("%-58s agent %7.1fus  control plane %7.1fus of processor a program, medians\n", name,
			half(func(p processors) time.Duration { return p.agent }), half(func(p processors) time.Duration { return p.plane }))
	}
	b.costs = nil
}
