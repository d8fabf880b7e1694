package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// BrowserLife is how long a browser is signed in: a touch of the passkey signs
// it in again. LinkLife is how long a link from the command line can be used.
const (
	BrowserLife = 2 * time.Hour
	LinkLife    = 2 * time.Minute
)

// ErrLink is the refusal of a link from the command line.
var ErrLink = roster.Refuse(roster.Unproven, "this link was used already, or is over %v old: make a new one with `curfew pages`", LinkLife)

// Browser returns the session whose secret a browser holds, if it stands.
func (d *Desk) Browser(ctx context.Context, secret string) (roster.Session, roster.Person, error) {
	return d.Session(ctx, sessionOf(secret))
}

// sessionOf is the id of the session whose secret a browser holds. The secret
// itself is kept nowhere.
func sessionOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "w-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
}

// newBrowser is a session of a browser, and the secret that goes into its
// cookie.
func (d *Desk) newBrowser(person, browser string) (secret string, s roster.Session) {
	now := d.Clock.Now().Wall
	if grant.CheckText("browser", browser, 100) != nil {
		browser = "a browser"
	}
	secret = rand.Text() + rand.Text()
	return secret, roster.Session{
		ID: sessionOf(secret), Person: person, Browser: true, Name: browser, Begun: now,
		Expires: now.Add(BrowserLife).Truncate(time.Second), Proved: now,
	}
}

// SignIn lets in the browser whose passkey answered.
func (d *Desk) SignIn(ctx context.Context, answer []byte, browser string) (secret string, s roster.Session, err error) {
	k, _, err := d.answered(ctx, answer, forSignIn)
	if err != nil {
		return "", roster.Session{Person: k.Person}, err // whose passkey it was, for the record
	}
	return d.letIn(ctx, k.Person, browser)
}

func (d *Desk) letIn(ctx context.Context, person, browser string) (string, roster.Session, error) {
	secret, s := d.newBrowser(person, browser)
	err := d.Store.AddSession(ctx, s, s.Begun)
	if errors.Is(err, roster.ErrDisabled) {
		return "", s, ErrOver
	}
	if err != nil {
		return "", s, fmt.Errorf("open session: %w", err)
	}
	return secret, s, nil
}

// Link makes what signs one browser in as the session's person. She has just
// proved herself on that session.
func (d *Desk) Link(s roster.Session) (roster.Link, error) {
	if d.Passkeys == nil {
		return roster.Link{}, ErrNoPages
	}
	t := ticket{For: forLink, Person: s.Person, About: []byte(s.ID), Nonce: nonce()}
	expires := d.Clock.Now().Wall.Add(LinkLife).Truncate(time.Second)
	t.Expires = expires.Unix()
	return roster.Link{URL: d.Passkeys.origin + "/link#" + d.seal(t), Expires: expires}, nil
}

// FollowLink lets in the browser that followed a link. The session that made
// it has to stand still.
func (d *Desk) FollowLink(ctx context.Context, token, browser string) (secret string, s roster.Session, err error) {
	t, err := d.redeem(ctx, token, forLink)
	if errors.Is(err, ErrLate) {
		err = ErrLink
	}
	if err != nil {
		return "", s, err
	}
	if _, p, err := d.Session(ctx, string(t.About)); err != nil || p.Name != t.Person {
		return "", s, errors.Join(ErrLink, err)
	}
	return d.letIn(ctx, t.Person, browser)
}

// AskEnrol asks a new passkey for a key, for the holder of a code.
func (d *Desk) AskEnrol(ctx context.Context, secret string) (person string, c roster.Ceremony, err error) {
	hash := sha256.Sum256([]byte(secret))
	err = d.Store.UpdateInvite(ctx, hash, func(i roster.Invite) (roster.Invite, error) {
		if !d.Clock.Now().Wall.Before(i.Expires) {
			return i, ErrInvite
		}
		person = i.Person
		return i, nil
	})
	if errors.Is(err, roster.ErrUnknown) {
		err = ErrInvite
	}
	if err == nil {
		c, err = d.askNew(ctx, ticket{For: forInvite, Person: person, About: hash[:]})
	}
	return person, c, err
}

// AskAnother asks for one passkey more. Its person has just proved herself.
func (d *Desk) AskAnother(ctx context.Context, person string) (roster.Ceremony, error) {
	return d.askNew(ctx, ticket{For: forAdding, Person: person})
}

func (d *Desk) askNew(ctx context.Context, t ticket) (roster.Ceremony, error) {
	if d.Passkeys == nil {
		return roster.Ceremony{}, ErrNoPages
	}
	t.Nonce, t.Expires = nonce(), d.Clock.Now().Wall.Add(ceremonyLife).Unix()
	options, session, err := d.Passkeys.party.BeginRegistration(d.user(t.Person))
	if err != nil {
		return roster.Ceremony{}, fmt.Errorf("ask for a passkey: %w", err)
	}
	f, err := d.Store.Factors(ctx, t.Person)
	if err != nil {
		return roster.Ceremony{}, err
	}
	if t.For == forAdding {
		for _, k := range f.Passkeys {
			options.Response.CredentialExcludeList = append(options.Response.CredentialExcludeList,
				protocol.CredentialDescriptor{Type: protocol.PublicKeyCredentialType, CredentialID: k.ID})
		}
	}
	t.Session = *session
	b, err := json.Marshal(options.Response)
	return roster.Ceremony{Options: b, Token: d.seal(t)}, err
}

// EnrolPasskey uses the code up and lets the browser in.
func (d *Desk) EnrolPasskey(ctx context.Context, secret string, answer []byte, name, browser string) (string, roster.Session, error) {
	k, t, err := d.made(ctx, answer, forInvite, name)
	hash := sha256.Sum256([]byte(secret))
	if err == nil && !bytes.Equal(t.About, hash[:]) {
		err = ErrInvite
	}
	if err != nil {
		return "", roster.Session{}, err
	}
	cookie, s := d.newBrowser(k.Person, browser)
	err = d.Store.UseInvite(ctx, roster.Enrolment{Invite: hash, Passkey: &k, Session: s}, k.AddedAt)
	switch {
	case errors.Is(err, roster.ErrUsed):
		err = ErrInvite
	case errors.Is(err, roster.ErrExists):
		err = ErrTwice
	}
	if err != nil {
		return "", roster.Session{}, err
	}
	return cookie, s, nil
}

// AddPasskey keeps the passkey that AskAnother asked the person for.
func (d *Desk) AddPasskey(ctx context.Context, person string, answer []byte, name string) error {
	k, _, err := d.made(ctx, answer, forAdding, name)
	if err == nil && k.Person != person {
		err = ErrPasskey
	}
	if err == nil {
		err = d.Store.AddPasskey(ctx, k)
	}
	if errors.Is(err, roster.ErrExists) {
		err = ErrTwice
	}
	return err
}

// made checks what a new passkey answered.
func (d *Desk) made(ctx context.Context, answer []byte, use, name string) (roster.Passkey, ticket, error) {
	no := func(err error) (roster.Passkey, ticket, error) { return roster.Passkey{}, ticket{}, err }
	if d.Passkeys == nil {
		return no(ErrNoPages)
	}
	if err := grant.CheckText("name of the passkey", name, 100); err != nil {
		return no(roster.Refuse(roster.Invalid, "%v", err))
	}
	if name == "" {
		name = "passkey"
	}
	var a roster.Answer
	if json.Unmarshal(answer, &a) != nil {
		return no(ErrPasskey)
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(a.Answer)
	if err != nil {
		return no(ErrPasskey)
	}
	t, err := d.redeem(ctx, a.Token, use)
	if err != nil {
		return no(err)
	}
	c, err := d.Passkeys.party.CreateCredential(d.user(t.Person), t.Session, parsed)
	if err != nil {
		return no(ErrPasskey)
	}
	k := roster.Passkey{ID: c.ID, Person: t.Person, Name: name, AddedAt: d.Clock.Now().Wall}
	k.Body, err = d.sealCredential(k, *c)
	return k, t, err
}
