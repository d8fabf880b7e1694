package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"curfew.internal/test/lab"
)

const (
	keys    = 300 // that are typed into each terminal
	replays = 20
)

// keys measures what a recorded terminal adds to the echo of a key, and how soon
// its replay begins. Sam and ted type in turns, each into a login through sshd;
// their roles differ in that ted's terminals are not recorded.
func (b *bench) keys(ctx context.Context) error {
	if _, err := b.ted.Prove(ctx, "request", "unseen", "--on", "db1", "--for", "1h", "--no-wait"); err != nil {
		return err
	}
	if err := b.account(ctx, b.ted); err != nil {
		return err
	}
	var windows [2]*lab.Window
	for i, p := range []*lab.Person{b.sam, b.ted} {
		w, err := typist(ctx, p)
		if err != nil {
			return err
		}
		defer w.Close()
		windows[i] = w
	}
	var took [2][]time.Duration
	for n := range keys {
		for k := range windows {
			i := (n + k) % len(windows)
			d, err := echoed(ctx, windows[i])
			if err != nil {
				return err
			}
			took[i] = append(took[i], d)
		}
	}
	with, without := show("a key -> its echo, terminal recorded", took[0]), show("the same, terminal not recorded", took[1])
	over("recorded over not recorded, medians", with, without)
	for _, w := range windows {
		if err := w.Type("\r\x04seq 200000; exit\r"); err != nil {
			return err
		}
	}
	for _, w := range windows {
		if err := w.End(ctx); err != nil {
			return err
		}
	}
	return b.replayed(ctx)
}

// typist logs a person in, and has the terminal itself echo what is typed.
func typist(ctx context.Context, p *lab.Person) (*lab.Window, error) {
	w, err := p.Window(ctx, 80, 24, "ssh", "db1")
	if err != nil {
		return nil, err
	}
	if err := w.Type("echo ready-$((1+1)); cat >/dev/null\r"); err != nil {
		return nil, errors.Join(err, w.End(ctx))
	}
	_, err = w.When(ctx, 0, "ready-2")
	return w, err
}

// echoed types a key, and tells how long its echo took.
func echoed(ctx context.Context, w *lab.Window) (time.Duration, error) {
	first, begun := len(w.Shown()), time.Now()
	if err := w.Type("x"); err != nil {
		return 0, err
	}
	at, err := w.When(ctx, first, "x")
	return at.Sub(begun), err
}

// replayed measures from the start of `curfew replay` to the first that it shows
// of what sam's terminal showed.
func (b *bench) replayed(ctx context.Context) error {
	var listed []string
	err := b.within(ctx, "sam's recording", time.Minute, func() error {
		out, _, err := b.sam.Run(ctx, "", "terminals", "--person", "sam")
		if listed = strings.Fields(out); err == nil && !strings.Contains(out, "the shell ended") {
			err = errors.New(out)
		}
		return err
	})
	if err != nil {
		return err
	}
	var took []time.Duration
	for range replays {
		begun := time.Now()
		w, err := b.sam.Window(ctx, 80, 24, "replay", listed[0], "--speed", "1000")
		if err != nil {
			return err
		}
		at, err := w.When(ctx, 0, "")
		if err == nil {
			err = w.End(ctx)
		}
		w.Close()
		if err != nil {
			return err
		}
		if shown := w.Shown(); !strings.Contains(shown, "200000") {
			return fmt.Errorf("the replay ends before its end: it shows %d bytes", len(shown))
		}
		took = append(took, at.Sub(begun))
	}
	show("`curfew replay` begins -> first of 1.5 MB is shown", took)
	return nil
}
