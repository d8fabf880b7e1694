// Bench measures what docs/performance.md reports, with the real programs on
// a real host, side by side in one run. It judges nothing: it prints figures.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
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
    commands: [/usr/bin/true]
    max_duration: 1h
    reason: optional
    approval: none
groups:
  first: [pa, pb, pc, pd, pe, pf, pg, ph]
  second: [qa, qb, qc, qd, qe, qf, qg, qh]
  third: [ra, rb, rc, rd, re, rf, rg, rh]
eligible:
  - {role: asked, groups: [first]}
  - {role: free, groups: [first, third]}
`

// bench is one run.
type bench struct {
	fleet *lab.Fleet
	host  *lab.Host
	done  []string // grants of the first people
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	err := run(ctx)
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
	defer func() { err = errors.Join(err, f.Close()) }() //nolint:contextcheck // what was made is taken away also when ctx is done
	b := &bench{fleet: f}
	if b.host, err = f.Add(ctx, "db1", "tier=db"); err != nil {
		return err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	fmt.Printf("load before: %s", load)
	for _, part := range []func(context.Context) error{b.memory, b.approve, b.storm, b.audited, b.sudo, b.memory, b.revoke, b.end, b.losses} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// show prints what was measured: median, 99th percentile (the largest, below
// 100 samples) and how many.
func show(what string, all []time.Duration) time.Duration {
	slices.Sort(all)
	median, p99 := all[len(all)/2], all[(len(all)*99-1)/100]
	fmt.Printf("%-64s median %-12v p99 %-12v n=%d\n", what, median.Round(10*time.Microsecond), p99.Round(10*time.Microsecond), len(all))
	return median
}
