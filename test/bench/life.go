package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"curfew.internal/test/lab"
)

var (
	requestID = regexp.MustCompile(`r-[a-z2-7]{16}`)
	grantID   = regexp.MustCompile(`g-[a-z2-7]{16}`)
)

// working tells when sudo first worked for a person, and refusing when it
// first did not.
const (
	working  = `until runuser -u %s -- sudo -n true 2>/dev/null; do sleep 0.002; done; echo works ${EPOCHREALTIME/./}`
	refusing = `while runuser -u %s -- sudo -n true 2>/dev/null; do :; done; echo refuses ${EPOCHREALTIME/./}`
)

// observe runs a script on the host beside what follows. The host and we
// have one clock.
func (b *bench) observe(ctx context.Context, script string) func() (map[string]time.Time, error) {
	type seen struct {
		at  map[string]time.Time
		err error
	}
	c := make(chan seen, 1)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	go func() {
		defer cancel()
		out, err := b.host.Sh(ctx, script)
		at := map[string]time.Time{}
		for name, d := range stamps(out) {
			at[name] = time.UnixMicro(d[0].Microseconds())
		}
		c <- seen{at, err}
	}()
	return func() (map[string]time.Time, error) {
		s := <-c
		return s.at, s.err
	}
}

// decisions measures approvals and revocations: from the start of the command
// to what is so on the host.
func (b *bench) decisions(ctx context.Context) error {
	var works, refuses, dead []time.Duration
	for range 2 {
		for _, p := range b.pairs {
			w, id, err := b.approve(ctx, p)
			if err != nil {
				return err
			}
			r, d, err := b.revoke(ctx, p.asks, id)
			if err != nil {
				return err
			}
			works, refuses, dead = append(works, w), append(refuses, r), append(dead, d)
		}
	}
	show("`curfew approve` begins -> `sudo -n true` works", works)
	show("`curfew revoke` begins -> `sudo -n true` refused", refuses)
	show("`curfew revoke` begins -> last of 20 processes dead", dead)
	return nil
}

func (b *bench) approve(ctx context.Context, p pair) (took time.Duration, id string, err error) {
	out, err := p.asks.Prove(ctx, "request", "asked", "--on", "db1", "--for", "30m", "--no-wait")
	if err != nil {
		return 0, "", err
	}
	code, err := p.approves.Code(ctx)
	if err != nil {
		return 0, "", err
	}
	look := b.observe(ctx, fmt.Sprintf(working, p.asks.Name))
	begun := time.Now()
	said, _, err := p.approves.Run(ctx, code, "approve", requestID.FindString(out))
	if err != nil {
		return 0, "", err
	}
	at, err := look()
	return at["works"].Sub(begun), grantID.FindString(said), err
}

func (b *bench) revoke(ctx context.Context, p *lab.Person, id string) (refused, dead time.Duration, err error) {
	c, err := b.leave(ctx, p, crowd{20, false})
	if err != nil {
		return 0, 0, err
	}
	look := b.observe(ctx, fmt.Sprintf(refusing, p.Name))
	begun := time.Now()
	if _, _, err := b.fleet.People["cleo"].Run(ctx, "", "revoke", id); err != nil {
		return 0, 0, errors.Join(err, c.close())
	}
	_, last, err := c.dead(ctx)
	at, lookErr := look()
	return at["refuses"].Sub(begun), last.Sub(begun), errors.Join(err, lookErr)
}

func (b *bench) within(ctx context.Context, what string, limit time.Duration, look func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return lab.Until(ctx, what, look)
}

// account waits until a person has one.
func (b *bench) account(ctx context.Context, p *lab.Person) error {
	return b.within(ctx, "the account of "+p.Name, 10*time.Second, func() error {
		_, err := b.host.Sh(ctx, "test -e /run/curfew/managed/"+p.Name)
		return err
	})
}
