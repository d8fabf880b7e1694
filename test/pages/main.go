// Pages starts a control plane with some history, to look at its pages. The
// control plane is the real one; its hosts are played, and its people are
// whoever opens the links that it prints.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := show(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pages:", err)
		os.Exit(1)
	}
}

// show plays until it is told to stop.
func show(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "curfew-pages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is in a folder for such
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // nobody reads it after this
	fmt.Fprintln(os.Stderr, "A control plane is being filled: a minute.")
	t, err := settle(ctx, dir, "127.0.0.1:7446", log)
	if err != nil {
		return err
	}
	all, err := t.play(ctx)
	if err == nil {
		err = t.tell(ctx, all)
	}
	if ctx.Err() != nil { // it was told to stop
		err = nil
	}
	if left := t.leave(); err == nil {
		err = left
	}
	return err
}

// tell prints links, and new ones whenever Enter is pressed.
func (t *town) tell(ctx context.Context, all []*person) error {
	pin, err := t.pin(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\nThe pages are at %s until you press Ctrl-C. The certificate is of their own CA: a browser that trusts it,\nso that passkeys work, is\n\n  chromium --user-data-dir=%s --ignore-certificate-errors-spki-list=%s LINK\n",
		t.origin, filepath.Join(t.dir, "browser"), pin)
	lines := make(chan struct{})
	t.work.Go(func() error { return enters(ctx, os.Stdin, lines) })
	for {
		fmt.Printf("\nEach link signs one browser in, once, within two minutes. Press Enter for new ones.\n\n")
		for _, p := range all {
			link, err := p.link(ctx)
			if err != nil {
				return err
			}
			code, from := p.next()
			fmt.Printf("%-5s %s\n      her next code: %s, from %s on, once; the secret of her codes: %s\n", p.name, link, code, from.UTC().Format(time.TimeOnly), p.secret)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lines:
		}
	}
}

// enters tells of each line, as long as somebody types.
func enters(ctx context.Context, from io.Reader, lines chan<- struct{}) error {
	in := make(chan struct{})
	go func() { // it ends with the program, or with what it reads
		for s := bufio.NewScanner(from); s.Scan(); {
			select {
			case in <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-in:
		}
		select {
		case lines <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
	}
}
