package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// The door's words and sizes, as docs/protocol/door.md has them: a caller
// that shares no code with the agent.
const (
	allowed, stranger       = "ALLW", "STRG"
	questionSize, replySize = 492, 264
)

// reversed is how a magic of the document lies in a message: little endian.
func reversed(magic string) string {
	b := []byte(magic)
	slices.Reverse(b)
	return string(b)
}

// sudoScript calls sudo in turns: the same program twice, one of them by a
// PAM service that lacks our lines. Which goes first changes each time.
const sudoScript = `#!/bin/bash
one() { local a=${EPOCHREALTIME/./}; sudo -n "$2" || exit 1; echo $1 $((${EPOCHREALTIME/./} - a)); }
for i in {1..125}; do
	one with /usr/bin/true; one without /usr/local/lib/true
	one without /usr/local/lib/true; one with /usr/bin/true
done
`

// sudo measures `sudo true` with our PAM lines and without, in one login of
// sam's.
func (b *bench) sudo(ctx context.Context) error {
	out, _, err := b.sam.Run(ctx, "", "ssh", "db1", "--", "bench-sudo")
	if err != nil {
		return err
	}
	// That both kinds were what they say: PAM logs a session by its service.
	asked, err := b.host.Sh(ctx, "journalctl --no-pager -g 'sudo-without:session.*opened' | grep -c without; journalctl --no-pager -g 'sudo:session.*opened' | grep -c 'sudo:'")
	if err != nil {
		return err
	}
	var without, with int
	if _, err := fmt.Sscan(asked, &without, &with); err != nil || without < 250 || with < 250 {
		return fmt.Errorf("sudo ran %d times without our lines and %d times with them: %w", without, with, errors.Join(err, errors.New("not 250 of each")))
	}
	t := stamps(out)
	over("with over without, medians", show("`sudo true` with pam_curfew", t["with"]), show("`sudo true` without", t["without"]))
	return nil
}

// door measures what the agent takes to decide an account phase.
func (b *bench) door(ctx context.Context) error {
	out, err := b.host.Sh(ctx, "bench knock sam; bench knock local")
	if err != nil {
		return err
	}
	t := stamps(out)
	show("PAM decision at the door: account with a grant", t["sam"])
	show("PAM decision at the door: account not ours", t["local"])
	return nil
}

// knock asks the door, as the PAM module does for sudo's account phase: it
// connects, asks, and has its answer when the agent hung up.
func knock(ctx context.Context, name string) error {
	want := reversed(allowed)
	if name == "local" {
		want = reversed(stranger)
	}
	q := make([]byte, questionSize)
	copy(q, "CQ01")
	q[4] = 1 // account phase
	copy(q[12:], "sudo")
	copy(q[44:], "root")
	copy(q[108:], name)
	for range 1000 {
		begun := time.Now()
		verdict, err := ask(ctx, q)
		took := time.Since(begun)
		if err != nil {
			return err
		}
		if verdict != want {
			return fmt.Errorf("the door says %q of %s", verdict, name)
		}
		fmt.Println(name, took.Microseconds())
	}
	return nil
}

func ask(ctx context.Context, question []byte) (verdict string, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", "/run/curfew/door.sock")
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write(question); err != nil {
		return "", err
	}
	b := make([]byte, 2*replySize)
	n, err := c.Read(b)
	if err != nil {
		return "", err
	}
	if n != replySize || string(b[:4]) != "CR01" {
		return "", fmt.Errorf("%d bytes are no answer: %q", n, b[:n])
	}
	verdict = string(b[4:8])
	if n, err := c.Read(b); n != 0 || err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%d bytes after the answer: %w", n, err)
	}
	return verdict, nil
}
