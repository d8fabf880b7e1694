package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"curfew.internal/clock"
	"curfew.internal/wire/terminal"
)

// A Desk is where the agent says who logs in. Nobody but root may ask.
type Desk struct {
	Path   string
	Answer func(ctx context.Context, q terminal.Question) terminal.Answer
	Up     func() // if set, is called once it can be asked
	Clock  clock.Clock
	Log    *slog.Logger
}

// askIn bounds a question, and answerIn what the agent thinks: as its door, it
// may have to write to a busy disk first.
const (
	askIn    = 2 * time.Second
	answerIn = 6 * time.Second
)

// Serve answers until ctx is done.
func (d *Desk) Serve(ctx context.Context) error {
	l, err := listen(d.Path, 0o600)
	if err != nil {
		return err
	}
	if d.Up != nil {
		d.Up()
	}
	var calls sync.WaitGroup
	defer calls.Wait()
	defer func() { _ = l.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("answer the recorder: %w", err)
		case err != nil:
			select {
			case <-ctx.Done():
			case <-d.Clock.After(10 * time.Millisecond):
			}
			continue
		}
		calls.Go(func() {
			if err := d.attend(ctx, c); err != nil {
				d.Log.WarnContext(ctx, "recorder not answered", "err", err)
			}
		})
	}
}

func (d *Desk) attend(ctx context.Context, c *net.UnixConn) error {
	defer func() { _ = c.Close() }() // nothing is buffered here
	if who, err := peer(c); err != nil || who.Uid != 0 {
		return fmt.Errorf("caller has uid %d, not 0: %w", who.Uid, err)
	}
	if err := c.SetDeadline(d.Clock.Now().Wall.Add(askIn)); err != nil {
		return err
	}
	var q terminal.Question
	if f, err := Receive(c, &q); err != nil || f != nil {
		return fmt.Errorf("no question: %w", err)
	}
	a := d.Answer(ctx, q)
	if err := c.SetDeadline(d.Clock.Now().Wall.Add(askIn)); err != nil {
		return err
	}
	return Send(c, a)
}

// patience is how long a login waits for an agent that is being started anew.
const patience = 4 * time.Second

// Ask asks the agent.
func Ask(ctx context.Context, desk string, q terminal.Question, k clock.Clock) (terminal.Answer, error) {
	var a terminal.Answer
	c, err := Dial(ctx, desk, patience, k)
	if err != nil {
		return a, fmt.Errorf("the agent does not answer: %w", err)
	}
	defer func() { _ = c.Close() }() // nothing is buffered here
	if err := c.SetDeadline(k.Now().Wall.Add(answerIn)); err != nil {
		return a, err
	}
	if err := Send(c, q); err != nil {
		return a, err
	}
	_, err = Receive(c, &a)
	return a, err
}
