package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

type terminalsCmd struct {
	ID     string `placeholder:"ID" help:"Of one grant, request or session."`
	Person string `placeholder:"NAME" help:"Of one person."`
	Host   string `placeholder:"NAME" help:"On one host."`
	Since  when   `placeholder:"TIME" help:"Begun not before: 2027-01-31T14:00:00Z, or 30m, 2h, 7d for so long ago."`
	Until  when   `placeholder:"TIME" help:"Begun before."`
	Limit  uint32 `default:"50" help:"How many are listed, or looked through, at most; up to 200."`

	Text []string `arg:"" optional:"" help:"Only those that show this text, in one line and whatever its case; with the lines."`
}

// Run lists recordings, or searches in them.
func (t terminalsCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	now := p.clock.Now().Wall
	q := &api.ListTerminalsRequest{
		Id: t.ID, Person: t.Person, Host: t.Host, Words: strings.Join(t.Text, " "), Since: t.Since.before(now), Until: t.Until.before(now), Limit: t.Limit,
	}
	r, err := lookThrough(ctx, c, q)
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		for _, one := range r.Terminals {
			if _, err := fmt.Fprintln(p.out, recording(one)); err != nil {
				return err
			}
			for _, l := range one.Lines {
				if _, err := fmt.Fprintf(p.out, "    %8s  %s\n", l.At.AsDuration().Round(time.Second), line(l.Text)); err != nil {
					return err
				}
			}
		}
		switch {
		case len(r.Terminals) == 0 && !r.More:
			fmt.Fprintln(p.err, "No recording that you may see is like that.")
		case r.More:
			fmt.Fprintln(p.err, "There are older ones: raise --limit, or narrow it down with --until.")
		}
		return nil
	})
}

// lookThrough asks until there is no more to look through.
func lookThrough(ctx context.Context, c apiconnect.CurfewClient, q *api.ListTerminalsRequest) (*api.ListTerminalsReply, error) {
	var found []*api.Terminal
	for {
		r, err := c.ListTerminals(ctx, q)
		if err != nil {
			return nil, err
		}
		found = append(found, r.Terminals...)
		if r.Until == nil {
			r.Terminals = found
			return r, nil
		}
		q.Until = r.Until
	}
}

// recording is one recording on a line.
func recording(t *api.Terminal) string {
	state := "goes on"
	if t.Ended != nil {
		state = "ended: " + t.Why
	}
	if t.Deleted {
		state += "; deleted, as the retention of its role says"
	}
	if t.Lost > 0 {
		state += fmt.Sprintf("; %d BYTES ARE MISSING", t.Lost)
	}
	return fmt.Sprintf("%s  %-6s %-20s %-10s %s for %v, %d bytes; %s", line(t.Id), line(t.Host), line(t.Grant), line(t.Person),
		at(t.Started), t.Seen.AsTime().Sub(t.Started.AsTime()).Round(time.Second), t.Bytes, line(state))
}
