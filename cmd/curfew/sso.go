package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"curfew.internal/dsse"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

// browserWithin is how long a person may take in the browser.
const browserWithin = 10 * time.Minute

// byBrowser signs in at the fleet's provider: a browser is sent there, and
// what it comes back with opens a session for this computer's key alone.
func (p *program) byBrowser(ctx context.Context, s session, paste bool) error {
	ctx, cancel := context.WithTimeout(ctx, browserWithin)
	defer cancel()
	client, err := p.open(s)
	if err != nil {
		return err
	}
	key, err := p.deviceKey()
	if err != nil {
		return err
	}
	public, _ := key.Public().(ed25519.PublicKey)
	name, _ := os.Hostname()
	begin := &api.BeginSignInRequest{DeviceKey: public, DeviceName: name, State: rand.Text()}
	pass, err := p.fetchPass(ctx, client, begin, paste)
	if err != nil {
		return err
	}
	at := p.clock.Now().Wall.Unix()
	words := s.Fleet + "\x00" + pass + "\x00" + strconv.FormatInt(at, 10)
	r, err := client.FinishSignIn(ctx, &api.FinishSignInRequest{
		Pass: pass, DeviceKey: public, At: at,
		Signature: ed25519.Sign(key, dsse.PAE("application/vnd.curfew.signin.v1", []byte(words))),
	})
	if err != nil {
		return err
	}
	s.SSO = true
	return p.signedIn(s, r)
}

// fetchPass sends the person's browser away, and waits for what it brings.
func (p *program) fetchPass(ctx context.Context, c apiconnect.CurfewClient, begin *api.BeginSignInRequest, paste bool) (string, error) {
	if paste {
		return p.pastedPass(ctx, c, begin)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for the browser: %w: try `curfew login --sso --paste`", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	begin.Port = uint32(port) //nolint:gosec // a port
	b, err := c.BeginSignIn(ctx, begin)
	if err != nil {
		return "", errors.Join(err, l.Close())
	}
	if err := p.sayWhere(b); err != nil {
		return "", errors.Join(err, l.Close())
	}
	if !openBrowser(ctx, b.Url) {
		if _, err := fmt.Fprintln(p.err, "No browser could be opened here. If there is none on this computer, start again with: curfew login --sso --paste"); err != nil {
			return "", errors.Join(err, l.Close())
		}
	}
	return brought(ctx, l, begin.State)
}

// pastedPass has the person bring it herself.
func (p *program) pastedPass(ctx context.Context, c apiconnect.CurfewClient, begin *api.BeginSignInRequest) (string, error) {
	b, err := c.BeginSignIn(ctx, begin)
	if err != nil {
		return "", err
	}
	if err := p.sayWhere(b); err != nil {
		return "", err
	}
	return p.line("Paste what it shows in the end: ", "what the page shows is needed")
}

func (p *program) sayWhere(b *api.BeginSignInReply) error {
	_, err := fmt.Fprintf(p.err, "Sign in with a browser, here:\n\n%s\n\nIt has to show %s before you say yes.\n", clean(b.Url), clean(b.Check))
	return err
}

// openBrowser tries to, and leaves the browser to itself. The person has the
// address, if it does not come to it.
func openBrowser(ctx context.Context, url string) (opened bool) {
	program := os.Getenv("BROWSER")
	if program == "" {
		program = "xdg-open"
	}
	browser := exec.CommandContext(context.WithoutCancel(ctx), program, url) //nolint:gosec // the person's own choice
	if browser.Start() != nil {
		return false
	}
	_ = browser.Process.Release()
	return true
}

// brought waits for a browser that brings a pass, and the word that it was
// sent with: a page that others opened does not know it.
func brought(ctx context.Context, l net.Listener, state string) (string, error) {
	got := make(chan string, 1)
	h := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.Host != l.Addr().String() || r.URL.Path != "/" || q.Get("state") != state || q.Get("pass") == "" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, "You can close this page: the rest is at your command line.") // the browser left
		select {
		case got <- q.Get("pass"):
		default: // the first counts
		}
	})}
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	var pass string
	var err error
	select {
	case pass = <-got:
	case <-ctx.Done():
		err = fmt.Errorf("no browser came: %w: if there is none here, try `curfew login --sso --paste`", ctx.Err())
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = h.Shutdown(stop) // what does not end in time is closed
	_ = h.Close()
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return pass, err
}
