package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"curfew.internal/test/lab"
)

var (
	requestID = regexp.MustCompile(`r-[a-z2-7]{16}`)
	grantID   = regexp.MustCompile(`g-[a-z2-7]{16}`)
)

// at runs a script on the host that ends with `date +%s.%N`, and returns that
// instant: the host and we have one clock.
func (b *bench) at(ctx context.Context, script string) (time.Time, error) {
	out, err := b.host.Sh(ctx, script+"; date +%s.%N")
	if err != nil {
		return time.Time{}, err
	}
	s, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	return time.UnixMicro(int64(s * 1e6)), err
}

// invite enrols somebody. It waits first: the control plane bounds how many
// may sign in from one address.
func (b *bench) invite(ctx context.Context, name string) (*lab.Person, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(2500 * time.Millisecond):
	}
	return b.fleet.Invite(ctx, name, "")
}

// memory tells the agent's resident set: at rest, and after the storms.
func (b *bench) memory(ctx context.Context) error {
	out, err := b.host.Sh(ctx, "ps -o rss= -p $(systemctl show -P MainPID curfew-agent)")
	if err != nil {
		return err
	}
	kb, err := strconv.Atoi(strings.TrimSpace(out))
	fmt.Printf("%-64s %d MB\n", "agent, resident set", kb/1024)
	return err
}

// approve measures from the start of `curfew approve` to the first sudo that
// works on the host.
func (b *bench) approve(ctx context.Context) error {
	var took []time.Duration
	for _, x := range "abcdefgh" {
		p, err := b.invite(ctx, "p"+string(x))
		if err != nil {
			return err
		}
		q, err := b.invite(ctx, "q"+string(x))
		if err != nil {
			return err
		}
		out, err := p.Prove(ctx, "request", "asked", "--on", "db1", "--for", "30m", "--no-wait")
		if err != nil {
			return err
		}
		type first struct {
			at  time.Time
			err error
		}
		works := make(chan first, 1)
		go func() {
			t, err := b.at(ctx, "until runuser -u "+p.Name+" -- sudo -n true 2>/dev/null; do :; done")
			works <- first{t, err}
		}()
		begun := time.Now()
		said, err := q.Prove(ctx, "approve", requestID.FindString(out))
		if err != nil {
			return err
		}
		b.done = append(b.done, grantID.FindString(said))
		w := <-works
		if w.err != nil {
			return w.err
		}
		took = append(took, w.at.Sub(begun))
	}
	show("curfew approve begins -> sudo works on the host", took)
	return nil
}

// storm runs 1000 programs in a labelled session and in one without a label,
// in turns.
func (b *bench) storm(ctx context.Context) error {
	const script = `a=${EPOCHREALTIME/./}; for i in {1..1000}; do /bin/true; done; echo us $((${EPOCHREALTIME/./} - a))`
	p := b.fleet.People["pa"]
	var labelled, plain []time.Duration
	for range 12 {
		out, _, err := p.Run(ctx, "", "ssh", "db1", "--", "bash -c '"+script+"'")
		if err != nil {
			return err
		}
		labelled = append(labelled, micros(out)...)
		if out, err = b.host.Sh(ctx, "runuser -u pa -- bash -c '"+script+"'"); err != nil {
			return err
		}
		plain = append(plain, micros(out)...)
	}
	l, n := show("1000 x fork+exec of /bin/true, labelled and recorded", labelled), show("the same, without a label", plain)
	fmt.Printf("%-64s %.3f\n", "recorded over not recorded, medians", float64(l)/float64(n))
	return nil
}

var us = regexp.MustCompile(`us ([0-9]+)`)

func micros(out string) []time.Duration {
	var all []time.Duration
	for _, m := range us.FindAllStringSubmatch(out, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil {
			all = append(all, time.Duration(n)*time.Microsecond)
		}
	}
	return all
}

// sudo measures `sudo true` with our PAM lines and without, in turns.
func (b *bench) sudo(ctx context.Context) error {
	out, err := b.host.Sh(ctx, `cp /etc/pam.d/sudo /root/with; grep -v curfew /etc/pam.d/sudo > /root/without
for i in {1..200}; do for k in with without; do
cp /root/$k /etc/pam.d/sudo.new && mv /etc/pam.d/sudo.new /etc/pam.d/sudo
runuser -u pa -- bash -c "a=\${EPOCHREALTIME/./}; sudo -n true; echo $k us \$((\${EPOCHREALTIME/./} - a))"
done; done; cp /root/with /etc/pam.d/sudo`)
	if err != nil {
		return err
	}
	var with, without strings.Builder
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "without") {
			without.WriteString(line)
		} else {
			with.WriteString(line)
		}
	}
	w, o := show("sudo true, with pam_curfew", micros(with.String())), show("sudo true, without", micros(without.String()))
	fmt.Printf("%-64s %.3f\n", "with over without, medians", float64(w)/float64(o))
	return nil
}

// sleepers has a person leave twenty processes behind.
func (b *bench) sleepers(ctx context.Context, p *lab.Person) error {
	_, _, err := p.Run(ctx, "", "ssh", "db1", "--", "for i in {1..20}; do setsid sleep 9999 >/dev/null 2>&1 & done")
	return err
}

// revoke measures from the start of `curfew revoke` until twenty processes of
// the person are dead.
func (b *bench) revoke(ctx context.Context) error {
	var took []time.Duration
	for i, x := range "abcdefgh" {
		p := b.fleet.People["p"+string(x)]
		if err := b.sleepers(ctx, p); err != nil {
			return err
		}
		begun := time.Now()
		if _, _, err := b.fleet.People["cleo"].Run(ctx, "", "revoke", b.done[i]); err != nil {
			return err
		}
		dead, err := b.at(ctx, "while pgrep -x sleep >/dev/null; do :; done")
		if err != nil {
			return err
		}
		took = append(took, dead.Sub(begun))
	}
	show("curfew revoke begins -> the last of 20 processes dead", took)
	return nil
}

// end measures from a grant's end until twenty processes of its person are
// dead.
func (b *bench) end(ctx context.Context) error {
	var late []time.Duration
	for _, x := range "abcdefgh" {
		p, err := b.invite(ctx, "r"+string(x))
		if err != nil {
			return err
		}
		out, err := p.Prove(ctx, "request", "free", "--on", "db1", "--for", "6s", "--no-wait", "-o", "json")
		if err != nil {
			return err
		}
		var r struct {
			NotAfter time.Time `json:"not_after"`
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			return err
		}
		err = lab.Until(ctx, "the account", func() error {
			_, err := b.host.Sh(ctx, "test -e /run/curfew/managed/"+p.Name)
			return err
		})
		if err != nil {
			return err
		}
		if err := b.sleepers(ctx, p); err != nil {
			return err
		}
		dead, err := b.at(ctx, "while pgrep -x sleep >/dev/null; do :; done")
		if err != nil {
			return err
		}
		late = append(late, dead.Sub(r.NotAfter))
	}
	show("a grant's end -> the last of 20 processes dead", late)
	return nil
}

// losses tells how many events the kernel made and lost in all of this.
func (b *bench) losses(ctx context.Context) error {
	out, err := b.host.Sh(ctx, "sleep 3; curfew-agent status -o json")
	if err != nil {
		return err
	}
	var s struct {
		Sent uint64 `json:"events_sent"`
		Lost uint64 `json:"events_lost"`
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return err
	}
	fmt.Printf("%-64s %d told, %d lost\n", "events of labelled processes", s.Sent, s.Lost)
	if s.Sent == 0 {
		return errors.New("nothing was recorded: the figures above mean nothing")
	}
	return nil
}
