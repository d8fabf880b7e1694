package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

type watchCmd struct {
	ID string `arg:"" help:"A recording, a session, or a grant."`
}

// Run shows a terminal as it is written to; its watcher may end it.
func (w watchCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	t, err := going(ctx, c, w.ID)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.err, "--- %s\n--- q: look away; k: end the session\n", recording(t))
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	if fd := int(p.in.Fd()); term.IsTerminal(fd) {
		was, err := term.MakeRaw(fd)
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(fd, was) }() // it is what it was, or gone
	}
	keys := &keyboard{client: c, terminal: t, err: p.err, leave: leave}
	go keys.read(ctx, p.in) // ends with this program
	s := &show{out: p.out, err: p.err, window: p.window, after: func(time.Duration) <-chan time.Time { return nil }}
	err = parts(ctx, c, &api.ReplayTerminalRequest{Host: t.Host, Id: t.Id, Follow: true}, s.segment)
	s.reset()
	if s.end != "" {
		fmt.Fprintf(p.err, "--- it ended: %s\r\n", line(s.end))
	}
	if errors.Is(context.Cause(ctx), errLookedAway) {
		return nil
	}
	return err
}

// going finds the terminal that goes on: of several the one that began last.
func going(ctx context.Context, c apiconnect.CurfewClient, id string) (*api.Terminal, error) {
	found, err := c.ListTerminals(ctx, &api.ListTerminalsRequest{Id: id, Limit: 200})
	if err != nil {
		return nil, err
	}
	for _, t := range found.Terminals {
		if t.Ended == nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("no terminal of %s goes on that you may see: `curfew terminals` lists those that there are", line(id))
}

var errLookedAway = errors.New("looked away")

// A keyboard is a watcher's.
type keyboard struct {
	client   apiconnect.CurfewClient
	terminal *api.Terminal
	err      io.Writer
	leave    context.CancelCauseFunc
	sure     bool // the next key may end the session
}

func (k *keyboard) read(ctx context.Context, in *os.File) {
	b := make([]byte, 1)
	for ctx.Err() == nil {
		if n, err := in.Read(b); n == 0 || err != nil {
			return // nobody types; whoever looks goes on looking
		}
		k.key(ctx, b[0])
	}
}

func (k *keyboard) key(ctx context.Context, c byte) {
	const interrupt = 3
	sure := k.sure
	k.sure = false
	switch {
	case c == 'q' || c == interrupt:
		k.leave(errLookedAway)
	case c == 'k':
		k.sure = true
		fmt.Fprintf(k.err, "\r\n--- end the session of %s on %s? y: yes\r\n", line(k.terminal.Person), line(k.terminal.Host))
	case c == 'y' && sure:
		if err := kill(ctx, k.client, k.terminal, ""); err != nil {
			fmt.Fprintf(k.err, "\r\n--- not ended: %s\r\n", message(err))
			return
		}
		fmt.Fprint(k.err, "\r\n--- its host was told to end it\r\n")
	}
}

type killCmd struct {
	ID  string `arg:"" help:"A recording, a session, or a grant: of several terminals, the one that began last."`
	Why string `placeholder:"TEXT" help:"Why, for the record."`
}

// Run has a host end a session.
func (k killCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	t, err := going(ctx, c, k.ID)
	if err != nil {
		return err
	}
	if err := kill(ctx, c, t, k.Why); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "%s was told to end the session of %s; her grant stands: `curfew revoke %s` ends that too\n", line(t.Host), line(t.Person), line(t.Grant))
	return err
}

func kill(ctx context.Context, c apiconnect.CurfewClient, t *api.Terminal, why string) error {
	_, err := c.EndHostSession(ctx, &api.EndHostSessionRequest{Host: t.Host, Id: t.Id, Why: why})
	return err
}
