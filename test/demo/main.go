// Demo plays the main job with the real programs on real hosts, and says in
// plain words what happens. Every step is checked; the first that is not so
// ends it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"curfew.internal/test/lab"
)

const policy = `labels:
  tier: [db, web]
groups:
  dba: [ben, cleo]
roles:
  db-admin:
    description: Restart and maintain database services
    hosts: {tier: db}
    run_as: [root]
    commands:
      - /usr/bin/systemctl restart cron
      - /usr/local/sbin/db-maintenance
    max_duration: 4h
    reason: required
    ticket_pattern: '^INC-[0-9]+$'
    approval: {by: [group:dba], count: 1}
    mfa: totp
  db-root:
    description: Everything, for what nobody foresaw
    hosts: {tier: db}
    any_command: true
    max_duration: 30m
    approval: {by: [group:dba], count: 1}
  web-admin:
    description: Restart web services
    hosts: {tier: web}
    commands: [/usr/bin/systemctl restart cron]
    max_duration: 4h
    approval: {by: [group:dba], count: 1}
eligible:
  - {role: db-admin, people: [ana]}
  - {role: db-root, people: [ana]}
  - {role: web-admin, people: [ben]}
`

// maintenance starts what outlives its caller in three ways.
const maintenance = `#!/bin/bash
nohup sleep 1000 >/dev/null 2>&1 &
setsid sleep 2000 >/dev/null 2>&1 &
( ( exec -a daemonised sleep 3000 >/dev/null 2>&1 & ) & )
exit 0
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	err := play(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo stopped: %v\n", err)
		os.Exit(1)
	}
}

func play(ctx context.Context) (err error) {
	repo, err := os.Getwd()
	if err != nil {
		return err
	}
	s := &story{begun: time.Now()}
	s.chapter("Setting up: a control plane, and two hosts with real systemd, sshd and sudo")
	f, err := lab.NewFleet(ctx, os.Stdout, repo, policy)
	if err != nil {
		return err
	}
	s.fleet = f
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := s.cast(ctx); err != nil {
		return s.explain(ctx, err)
	}
	for _, part := range []func(context.Context) error{s.nobody, s.ask, s.approve, s.work, s.record, s.end, s.revoke} {
		if err := part(ctx); err != nil {
			return s.explain(ctx, err)
		}
	}
	fmt.Printf("\nAll of it held, in %v. Nothing is left of ana on db1, and db1 has signed that.\n", time.Since(s.begun).Round(time.Second))
	return nil
}

// cast brings the people and the hosts on stage.
func (s *story) cast(ctx context.Context) error {
	f := s.fleet
	return errors.Join(
		s.step("ana, ben and the admin cleo enrol, each with a second factor of her own", func() error {
			_, err := f.Invite(ctx, "ana", "Ana Lima")
			if err == nil {
				_, err = f.Invite(ctx, "ben", "Ben Okri")
			}
			return err
		}),
		s.step("db1 (tier=db) boots, is wired and joins", func() (err error) {
			s.db1, err = f.Add(ctx, "db1", "tier=db", lab.File{Path: "/usr/local/sbin/db-maintenance", Text: maintenance, Mode: 0o755})
			return err
		}),
		s.step("web1 (tier=web) boots, is wired and joins", func() (err error) {
			if s.db1 == nil {
				return errors.New("db1 is not there")
			}
			s.web1, err = f.Add(ctx, "web1", "tier=web")
			return err
		}),
		s.step("both hosts are connected", func() error {
			return s.until(ctx, "hosts", 20*time.Second, func() error {
				out, _, err := f.People["cleo"].Run(ctx, "", "hosts", "list")
				if err == nil && strings.Count(out, "connected") < 2 {
					err = errors.New(out)
				}
				return err
			})
		}),
	)
}

// story keeps what the parts of the play share.
type story struct {
	begun     time.Time
	fleet     *lab.Fleet
	db1, web1 *lab.Host
	request   string
	grant     string
	ends      time.Time
	webBefore string
	failed    bool
}

func (s *story) chapter(text string) { fmt.Printf("\n== %s\n", text) }

// step does one thing and says whether it is so, and how long it took.
func (s *story) step(text string, do func() error) error {
	if s.failed {
		return nil // one thing that is not so is enough
	}
	begun := time.Now()
	err := do()
	mark := "ok"
	if err != nil {
		mark, s.failed = "NOT SO", true
	}
	fmt.Printf("  %-6s %s  (%v)\n", mark, text, time.Since(begun).Round(time.Millisecond))
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

func (s *story) until(ctx context.Context, what string, within time.Duration, look func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return lab.Until(ctx, what, look)
}

// explain adds what an operator would look at next.
func (s *story) explain(ctx context.Context, err error) error {
	var log strings.Builder
	fmt.Fprintf(&log, "\ncontrol plane:\n%s\n", s.fleet.ServerLog())
	for _, h := range []*lab.Host{s.db1, s.web1} {
		if h == nil {
			continue
		}
		look, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		out, _ := h.Sh(look, "journalctl --no-pager -n 40 -u curfew-agent -u ssh; cat /var/log/auth.log 2>/dev/null | tail -20")
		cancel()
		fmt.Fprintf(&log, "\n%s:\n%s\n", h.Name, out)
	}
	return fmt.Errorf("%w\n%s", err, log.String())
}

// file is in the lab's folder.
func (s *story) file(name string) string { return filepath.Join(s.fleet.Dir(), name) }
