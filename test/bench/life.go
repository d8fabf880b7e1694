package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"curfew.internal/test/lab"
)

var (
	requestID = regexp.MustCompile(`r-[a-z2-7]{16}`)
	grantID   = regexp.MustCompile(`g-[a-z2-7]{16}`)
)

// sleepers is how many processes a person leaves behind.
const sleepers = 20

// dying tells when the first and the last of the sleepers were seen dead.
const dying = `first=
while n=$(pgrep -cfx 'sleep 9999'); [ "$n" -gt 0 ]; do
	if [ -z "$first" ] && [ "$n" -lt 20 ]; then first=${EPOCHREALTIME/./}; fi
	sleep 0.002
done
last=${EPOCHREALTIME/./}
echo first ${first:-$last}
echo last $last`

// working tells when sudo first worked for a person.
const working = `until runuser -u %s -- sudo -n true 2>/dev/null; do sleep 0.002; done; echo works ${EPOCHREALTIME/./}`

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
	var works, dead []time.Duration
	for range 2 {
		for _, p := range b.pairs {
			w, id, err := b.approve(ctx, p)
			if err != nil {
				return err
			}
			d, err := b.revoke(ctx, p.asks, id)
			if err != nil {
				return err
			}
			works, dead = append(works, w), append(dead, d)
		}
	}
	show("`curfew approve` begins -> `sudo -n true` works", works)
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

func (b *bench) revoke(ctx context.Context, p *lab.Person, id string) (time.Duration, error) {
	if err := b.leave(ctx, p); err != nil {
		return 0, err
	}
	look := b.observe(ctx, dying)
	begun := time.Now()
	if _, _, err := b.fleet.People["cleo"].Run(ctx, "", "revoke", id); err != nil {
		return 0, err
	}
	at, err := look()
	return at["last"].Sub(begun), err
}

// leave has a person log in and leave the sleepers behind.
func (b *bench) leave(ctx context.Context, p *lab.Person) error {
	if _, _, err := p.Run(ctx, "", "ssh", "db1", "--", "for i in {1..20}; do setsid sleep 9999 >/dev/null 2>&1 & done"); err != nil {
		return err
	}
	return b.within(ctx, "sleepers", 5*time.Second, func() error {
		out, err := b.host.Sh(ctx, "pgrep -cfx 'sleep 9999'")
		if err == nil && strings.TrimSpace(out) != fmt.Sprint(sleepers) {
			err = errors.New(out)
		}
		return err
	})
}

func (b *bench) within(ctx context.Context, what string, limit time.Duration, look func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return lab.Until(ctx, what, look)
}

// ends measures from a grant's end until the last process is dead, and that
// none was before it.
func (b *bench) ends(ctx context.Context) error {
	var first, last []time.Duration
	for _, p := range b.pairs {
		for _, person := range []*lab.Person{p.asks, p.approves} {
			f, l, err := b.end(ctx, person, func() error { return nil })
			if err != nil {
				return err
			}
			first, last = append(first, f), append(last, l)
		}
	}
	show("a grant's end -> first process dead", first)
	show("a grant's end -> last of 20 processes dead", last)
	return nil
}

// endsAlone measures the end with nothing of ours awake in user space: the
// agent killed, or stopped, and no sweep.
func (b *bench) endsAlone(ctx context.Context) error {
	const quiet = "systemctl mask --runtime curfew-agent curfew-sweep; systemctl stop curfew-sweep.timer; systemctl kill -s %s curfew-agent"
	const awake = "systemctl unmask --runtime curfew-agent curfew-sweep; systemctl kill -s KILL curfew-agent; systemctl stop curfew-agent; systemctl start curfew-agent curfew-sweep.timer"
	for i, how := range []struct{ name, signal string }{{"killed", "KILL"}, {"stopped", "STOP"}} {
		var first, last []time.Duration
		for j, p := range b.pairs {
			if j%2 != i {
				continue
			}
			for _, person := range []*lab.Person{p.asks, p.approves} {
				f, l, err := b.end(ctx, person, func() error {
					_, err := b.host.Sh(ctx, fmt.Sprintf(quiet, how.signal))
					return err
				})
				if err != nil {
					return err
				}
				if _, err := b.host.Sh(ctx, awake); err != nil {
					return err
				}
				first, last = append(first, f), append(last, l)
			}
		}
		show("a grant's end, agent "+how.name+" -> first process dead", first)
		show("a grant's end, agent "+how.name+" -> last of 20 processes dead", last)
	}
	return nil
}

func (b *bench) end(ctx context.Context, p *lab.Person, before func() error) (first, last time.Duration, err error) {
	out, err := p.Prove(ctx, "request", "free", "--on", "db1", "--for", "4s", "--no-wait", "-o", "json")
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
	if err := errors.Join(b.leave(ctx, p), before()); err != nil {
		return 0, 0, err
	}
	at, err := b.observe(ctx, dying)()
	return at["first"].Sub(r.NotAfter), at["last"].Sub(r.NotAfter), err
}

// account waits until a person has one.
func (b *bench) account(ctx context.Context, p *lab.Person) error {
	return b.within(ctx, "the account of "+p.Name, 10*time.Second, func() error {
		_, err := b.host.Sh(ctx, "test -e /run/curfew/managed/"+p.Name)
		return err
	})
}
