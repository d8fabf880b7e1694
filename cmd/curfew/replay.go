package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/term"

	"curfew.internal/cast"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

type replayCmd struct {
	ID    string        `arg:"" help:"A recording, a session, or a grant: \"curfew terminals\" lists them."`
	Speed float64       `default:"1" help:"How fast: 2 is twice as fast."`
	Idle  time.Duration `name:"idle-limit" default:"2s" help:"The longest pause that is kept."`
	Cast  string        `placeholder:"FILE" help:"Write it to a file for asciinema (asciicast v2), as it is: what shows it has to be safe from it."`

	Bundle string `type:"existingfile" placeholder:"FILE" help:"Play it out of what \"curfew audit export --recordings\" wrote, once that is verified. Nobody is asked."`
	Key    string `placeholder:"KEY" help:"With --bundle: the log's key (curfew/FLEET+…), or a file that holds it; that which this computer knows, if it is left out."`
}

// Run plays recordings, the oldest first.
func (r replayCmd) Run(ctx context.Context, p *program) error {
	if r.Speed <= 0 || r.Idle < 0 {
		return errors.New("write a speed above 0, and no negative pause")
	}
	if r.Bundle != "" {
		return r.offline(ctx, p)
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	found, err := c.ListTerminals(ctx, &api.ListTerminalsRequest{Id: r.ID, Limit: 200})
	if err != nil {
		return err
	}
	all := found.Terminals
	slices.Reverse(all)
	switch {
	case len(all) == 0:
		return fmt.Errorf("no recording of %s is there that you may see", line(r.ID))
	case r.Cast != "" && len(all) > 1:
		return fmt.Errorf("%d recordings are of %s: name one of those that `curfew terminals --id %[2]s` lists", len(all), line(r.ID))
	case r.Cast != "":
		return written(r.Cast, func(f func(context.Context, part) error) error {
			return parts(ctx, c, &api.ReplayTerminalRequest{Host: all[0].Host, Id: all[0].Id}, f)
		})
	}
	for _, t := range all {
		if len(all) > 1 {
			fmt.Fprintf(p.err, "--- %s\n", recording(t))
			if t.Deleted {
				continue
			}
		}
		err := r.play(p, func(f func(context.Context, part) error) error {
			return parts(ctx, c, &api.ReplayTerminalRequest{Host: t.Host, Id: t.Id}, f)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// play shows a recording, whose segments each calls it with.
func (r replayCmd) play(p *program, each func(func(context.Context, part) error) error) error {
	s := &show{out: p.out, err: p.err, window: p.window, speed: r.Speed, idle: r.Idle, after: p.clock.After}
	err := each(s.segment)
	s.reset()
	if err == nil && s.end != "" {
		fmt.Fprintf(p.err, "--- it ended: %s\n", line(s.end))
	}
	return err
}

// A part is a segment of a recording that is what its host signed.
type part struct {
	ledger.Segment
	data []byte
}

var errRecording = errors.New("ALERT: the recording is not what its host signed")

// parts calls f for each segment of a recording, once it is checked.
func parts(ctx context.Context, c apiconnect.CurfewClient, q *api.ReplayTerminalRequest, f func(context.Context, part) error) error {
	stream, err := c.ReplayTerminal(ctx, q)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // what failed, Err says
	thread := ledger.Thread{Host: q.Host, Terminal: q.Id}
	for stream.Receive() {
		m := stream.Msg()
		s, err := thread.Next(m.Statement, ed25519.PublicKey(m.HostKey), m.Data)
		if err != nil {
			return fmt.Errorf("%w: %w", errRecording, err)
		}
		if err := f(ctx, part{s, m.Data}); err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil && !errors.Is(err, io.EOF) && connect.CodeOf(err) != connect.CodeCanceled {
		return err
	}
	return ctx.Err()
}

// A show plays a recording at a terminal: as text, colours and moves of the
// cursor, and nothing that the terminal would do more with.
type show struct {
	out, err io.Writer
	window   func() (width, height int)
	speed    float64 // 0: as fast as can be
	idle     time.Duration
	after    func(time.Duration) <-chan time.Time

	safe cast.Filter
	at   time.Duration
	end  string
	told bool // that it is larger than the window
}

// window is the size of the terminal that is written to; zero: it is none.
func (p *program) window() (width, height int) {
	if f, ok := p.out.(*os.File); ok {
		width, height, _ = term.GetSize(int(f.Fd())) // zero, if it fails
	}
	return width, height
}

// fits says so, once, if a window of the size may show what this one does not:
// what goes beyond its edge, where lines do not wrap, is seen by nobody.
func (s *show) fits(width, height int) {
	w, h := s.window()
	if s.told || w == 0 || width <= w && height <= h {
		return
	}
	s.told = true
	fmt.Fprintf(s.err, "--- it was shown in %d columns and %d rows: in this window, of %d and %d, not all of it may be seen\r\n", width, height, w, h)
}

func (s *show) segment(ctx context.Context, p part) error {
	if p.End != "" {
		s.end = p.End
		return nil
	}
	h, events, err := cast.Read(bytes.NewReader(p.data))
	if err != nil {
		return fmt.Errorf("segment %d: %w", p.Number, err)
	}
	s.fits(h.Width, h.Height)
	for _, e := range events {
		if err := s.event(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (s *show) event(ctx context.Context, e cast.Event) error {
	pause := min(e.At-s.at, s.idle)
	s.at = e.At
	if s.speed > 0 && pause > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.after(time.Duration(float64(pause) / s.speed)):
		}
	}
	text := ""
	switch e.Kind {
	case cast.Output:
		text = s.safe.Safe(e.Data)
	case cast.Resize:
		var width, height int
		if _, err := fmt.Sscanf(e.Data, "%dx%d", &width, &height); err == nil {
			s.fits(width, height)
		}
	case cast.Marker:
		text = "\r\n\x1b[7m[" + line(e.Data) + "]\x1b[0m\r\n"
	}
	_, err := io.WriteString(s.out, text)
	return err
}

// reset leaves the terminal as one is used to it.
func (s *show) reset() {
	_, _ = io.WriteString(s.out, "\x1b[r\x1b[?1049l\x1b[0m\x1b[?7h\x1b[?25h\r\n") // nobody is left to tell
}

// written writes a recording as one file: the first header, and all events.
func written(name string, each func(func(context.Context, part) error) error) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600) //nolint:gosec // the person names the file
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	first := true
	return each(func(_ context.Context, p part) error {
		data := p.data
		if i := bytes.IndexByte(data, '\n'); !first && i >= 0 {
			data = data[i+1:]
		}
		first = false
		_, err := f.Write(data)
		return err
	})
}
