package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// Console logs root in at the guest's second serial port by her password,
// where getty asks who is there, types a command, and waits for what it shows.
func (g *Guest) Console(ctx context.Context, password, command, shows string) error {
	tty, err := new(net.Dialer).DialContext(ctx, "unix", g.path("tty"))
	if err != nil {
		return fmt.Errorf("console of %s: %w", g.Name, err)
	}
	defer func() { _ = tty.Close() }() // whoever sits there next finds it asking
	t := terminal{tty: tty}
	for _, s := range []struct{ wait, say string }{{"login: ", "root"}, {"Password: ", password}, {"# ", command}, {shows, "exit"}} {
		if err := t.until(ctx, s.wait); err != nil {
			return fmt.Errorf("console of %s: %w", g.Name, err)
		}
		if _, err := io.WriteString(tty, s.say+"\r"); err != nil {
			return fmt.Errorf("console of %s: %w", g.Name, err)
		}
	}
	return nil
}

// A terminal is read up to what is waited for.
type terminal struct {
	tty  net.Conn
	seen string
}

// until reads up to a text. While nothing comes, it presses Enter before
// anybody has logged in: what was asked before we came is asked again then.
func (t *terminal) until(ctx context.Context, text string) error {
	part := make([]byte, 4096)
	for {
		if _, after, ok := strings.Cut(t.seen, text); ok {
			t.seen = after
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no %q came: %w: %q", text, ctx.Err(), t.seen)
		}
		if err := t.tty.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		n, err := t.tty.Read(part)
		t.seen += string(part[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
			if text == "login: " {
				_, err = io.WriteString(t.tty, "\r")
			}
		}
		if err != nil {
			return fmt.Errorf("no %q came: %w: %q", text, err, t.seen)
		}
	}
}
