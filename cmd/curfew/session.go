package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"rsc.io/qr"

	"curfew.internal/dsse"
	"curfew.internal/wire/api"
	"curfew.internal/wire/invite"
)

// session is what this computer remembers, in session.json.
type session struct {
	URL     string    `json:"url"`
	CA      []byte    `json:"ca"` // SHA-256 of the CA certificate
	Fleet   string    `json:"fleet"`
	Person  string    `json:"person"`
	ID      string    `json:"session"`
	Expires time.Time `json:"expires"`
	SSO     bool      `json:"sso,omitempty"` // it was opened by way of a browser
}

func (p *program) dir() (string, error) {
	if p.Home != "" {
		return p.Home, nil
	}
	base, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no home folder (%w): set $CURFEW_HOME", err)
	}
	return filepath.Join(base, "curfew"), nil
}

func (p *program) loadSession() (session, error) {
	dir, err := p.dir()
	if err != nil {
		return session{}, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "session.json")) //nolint:gosec // the folder is the person's own
	if errors.Is(err, os.ErrNotExist) {
		return session{}, errSignIn
	}
	if err != nil {
		return session{}, err
	}
	var s session
	if err := json.Unmarshal(b, &s); err != nil {
		return session{}, fmt.Errorf("read %s: %w: remove it and sign in again", filepath.Join(dir, "session.json"), err)
	}
	return s, nil
}

func (p *program) saveSession(s session) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return p.save("session.json", b)
}

func (p *program) save(name string, b []byte) error {
	dir, err := p.dir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, name), b, 0o600)
}

// deviceKey is this computer's key. It is made once and never leaves.
func (p *program) deviceKey() (ed25519.PrivateKey, error) {
	dir, err := p.dir()
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "device.key")
	seed, err := os.ReadFile(name) //nolint:gosec // as above
	if errors.Is(err, os.ErrNotExist) {
		seed = make([]byte, ed25519.SeedSize)
		_, _ = rand.Read(seed) // never fails, crypto/rand
		err = p.save("device.key", seed)
	}
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is damaged: remove it and enrol again with a new code", name)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

type loginCmd struct {
	Code  string `arg:"" optional:"" help:"The code that an admin gave you (curfew-invite-…), or that stands on the page to sign in (curfew-fleet-…); - reads it from standard input. Leave it out to sign in again."`
	SSO   *bool  `name:"sso" negatable:"" help:"Sign in at your fleet's provider, in a browser; as the last time, if it is left out."`
	Paste bool   `help:"With --sso, for a computer without a browser: open the address on another one, and paste here what it shows."`
}

// Run enrols this computer, or opens a new session on it.
func (c loginCmd) Run(ctx context.Context, p *program) error {
	if strings.HasPrefix(c.Code, invite.Fleet) {
		f, err := invite.Parse(invite.Fleet, c.Code)
		if err != nil {
			return err
		}
		return p.byBrowser(ctx, session{URL: f.URL, CA: f.CA, Fleet: f.Fleet}, c.Paste)
	}
	if c.Code != "" {
		return p.enrol(ctx, c.Code)
	}
	s, err := p.loadSession()
	if err != nil {
		return err
	}
	if c.Paste || c.SSO == nil && s.SSO || c.SSO != nil && *c.SSO {
		return p.byBrowser(ctx, s, c.Paste)
	}
	return p.byCode(ctx, s)
}

// byCode signs in with this computer's key and a code of the second factor.
func (p *program) byCode(ctx context.Context, s session) error {
	s.SSO = false
	client, err := p.open(s)
	if err != nil {
		return err
	}
	key, err := p.deviceKey()
	if err != nil {
		return err
	}
	code, err := p.factor()
	if err != nil {
		return err
	}
	at := p.clock.Now().Wall.Unix()
	words := s.Fleet + "\x00" + s.Person + "\x00" + strconv.FormatInt(at, 10)
	public, _ := key.Public().(ed25519.PublicKey)
	r, err := client.Login(ctx, &api.LoginRequest{
		Person: s.Person, DeviceKey: public, At: at, Code: code,
		Signature: ed25519.Sign(key, dsse.PAE("application/vnd.curfew.login.v1", []byte(words))),
	})
	if err != nil {
		return err
	}
	return p.signedIn(s, r)
}

func (p *program) enrol(ctx context.Context, text string) error {
	if text == "-" {
		var err error
		if text, err = p.factor(); err != nil {
			return err
		}
	}
	inv, err := invite.Parse(invite.Person, text)
	if err != nil {
		return err
	}
	s := session{URL: inv.URL, CA: inv.CA, Fleet: inv.Fleet}
	client, err := p.open(s)
	if err != nil {
		return err
	}
	key, err := p.deviceKey()
	if err != nil {
		return err
	}
	public, _ := key.Public().(ed25519.PublicKey)
	e, err := client.Enroll(ctx, &api.EnrollRequest{Secret: inv.Secret, DeviceKey: public})
	if err != nil {
		return err
	}
	if err := p.showFactor(e); err != nil {
		return err
	}
	code, err := p.factor()
	if err != nil {
		return err
	}
	name, _ := os.Hostname()
	r, err := client.ConfirmEnroll(ctx, &api.ConfirmEnrollRequest{Secret: inv.Secret, DeviceKey: public, Code: code, DeviceName: name})
	if err != nil {
		return err
	}
	return p.signedIn(s, r)
}

// showFactor shows the new second factor: a picture for a phone, and the URI.
func (p *program) showFactor(e *api.EnrollReply) error {
	picture, err := qr.Encode(e.OtpauthUri, qr.L)
	if err != nil {
		return err
	}
	u, err := url.Parse(e.OtpauthUri)
	if err != nil {
		return fmt.Errorf("second factor: %w", err)
	}
	if _, err = fmt.Fprintf(p.err, "Hello %s. Add this second factor to the authenticator on your phone:\n\n%s\nor type in the secret %s\n\n",
		e.Person, blocks(picture), u.Query().Get("secret")); err != nil {
		return err
	}
	if p.Output == "json" {
		return nil
	}
	_, err = fmt.Fprintln(p.out, e.OtpauthUri)
	return err
}

// blocks draws a QR code with two rows of modules to a line.
func blocks(c *qr.Code) string {
	var b []rune
	for y := -2; y < c.Size+2; y += 2 {
		for x := -2; x < c.Size+2; x++ {
			b = append(b, [...]rune{'█', '▄', '▀', ' '}[bit(c.Black(x, y))<<1|bit(c.Black(x, y+1))])
		}
		b = append(b, '\n')
	}
	return string(b)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (p *program) signedIn(s session, r *api.SessionReply) error {
	s.ID, s.Person, s.Expires = r.Session, r.Person, r.Expires.AsTime()
	if r.Fleet != s.Fleet {
		return fmt.Errorf("the server speaks for fleet %q, not for %q", clean(r.Fleet), s.Fleet)
	}
	if err := p.saveSession(s); err != nil {
		return err
	}
	return p.print(r, func() error {
		_, err := fmt.Fprintf(p.out, "Signed in to %s as %s until %s.\n", s.Fleet, s.Person, stamp(s.Expires))
		return err
	})
}

type logoutCmd struct{}

// Run ends the session on the server, and forgets it here whatever it says.
func (logoutCmd) Run(ctx context.Context, p *program) error {
	s, err := p.loadSession()
	if err != nil {
		return err
	}
	client, err := p.client()
	if err != nil {
		return err
	}
	_, err = client.Logout(ctx, &api.LogoutRequest{})
	s.ID = ""
	return errors.Join(err, p.saveSession(s))
}

type pagesCmd struct{}

// Help says what the link is good for.
func (pagesCmd) Help() string {
	return `Whoever opens the link within two minutes is signed in as you, once, for two
hours. You can make a passkey in that browser then (click your name), and need
no link again.`
}

// Run prints a link.
func (pagesCmd) Run(ctx context.Context, p *program) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	code, err := p.factor()
	if err != nil {
		return err
	}
	r, err := client.OpenPages(ctx, &api.OpenPagesRequest{Code: code})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		_, err := fmt.Fprintln(p.out, r.Link)
		return err
	})
}

type whoamiCmd struct{}

// Run prints who is signed in.
func (whoamiCmd) Run(ctx context.Context, p *program) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	r, err := client.Whoami(ctx, &api.WhoamiRequest{})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		told := ""
		if r.Person.Email != "" {
			told = ", told at " + line(r.Person.Email)
		}
		_, err := fmt.Fprintf(p.out, "%s (%s) of %s, until %s%s\n", r.Person.Name, clean(r.Person.FullName), r.Fleet, stamp(r.SessionExpires.AsTime()), told)
		return err
	})
}
