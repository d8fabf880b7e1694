package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"curfew.internal/canon"
	"curfew.internal/controlplane/roster"
)

// PasskeyFactor is the name of this factor in evidence.
const PasskeyFactor = "passkey"

// ceremonyLife is how long a person may take with her passkey.
const ceremonyLife = 5 * time.Minute

// Reasons for which a passkey's answer does not count.
var (
	ErrNoPages   = roster.Refuse(roster.Conflict, "this server has no pages: passkeys need `web` in its configuration")
	ErrNoPasskey = roster.Refuse(roster.Conflict, "you have no passkey yet: use a code of your second factor")
	ErrPasskey   = roster.Refuse(roster.Denied, "this passkey was not accepted: try again, or use another one")
	ErrLate      = roster.Refuse(roster.Denied, "that took too long, or was done before: try again")
	ErrLocked    = roster.Refuse(roster.Denied, "this passkey is locked, because somebody may have a copy of it: use another factor, or ask an admin for a code")
	ErrTwice     = roster.Refuse(roster.Conflict, "this passkey is enrolled already")
)

// Passkeys is the relying party of one origin: it makes challenges for
// passkeys and checks their answers. Every one has to verify its user.
type Passkeys struct {
	origin string
	party  *webauthn.WebAuthn
}

// NewPasskeys is the relying party of the fleet's pages.
func NewPasskeys(fleet, origin string) (*Passkeys, error) {
	u, err := url.Parse(origin)
	if err != nil {
		return nil, err
	}
	no := false
	party, err := webauthn.New(&webauthn.Config{
		RPID: u.Hostname(), RPDisplayName: "Curfew " + fleet, RPOrigins: []string{origin},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			RequireResidentKey: &no, ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("passkeys for %s: %w", origin, err)
	}
	return &Passkeys{origin, party}, nil
}

// What a passkey is asked for.
const (
	forSignIn = "sign in"
	forProof  = "prove"
	forInvite = "enrol"
	forAdding = "add"
	forLink   = "link"
	forGrant  = "grant"
)

// A ticket is what the server has to know again when the answer comes. It
// travels sealed with the browser, so that nobody who only asks costs a row.
type ticket struct {
	For     string               `json:"for"`
	Person  string               `json:"person,omitempty"`
	About   []byte               `json:"about,omitempty"`
	Nonce   []byte               `json:"nonce"`
	Expires int64                `json:"expires"`
	Session webauthn.SessionData `json:"session,omitzero"`

	// Challenge is what hosts will look for, who know nothing of the rest.
	Challenge []byte `json:"challenge,omitempty"`
}

// ticketOwner is what tickets are sealed for: no person has a space in her name.
const ticketOwner = "a ticket"

func (d *Desk) seal(t ticket) string { return d.sealFor(ticketOwner, t) }

// sealFor makes a token of a plain value, that opens for the owner alone.
func (d *Desk) sealFor(owner string, v any) string {
	b, _ := json.Marshal(v) // plain values always marshal
	return protocol.URLEncodedBase64(d.Box.Seal(owner, b)).String()
}

// openFor opens such a token.
func (d *Desk) openFor(owner, token string, v any) bool {
	b, err := d.Box.Open(owner, decoded(token))
	return err == nil && json.Unmarshal(b, v) == nil
}

func nonce() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails, crypto/rand
	return b
}

// redeem opens a ticket that was made for the use, has not expired and was
// not redeemed before.
func (d *Desk) redeem(ctx context.Context, token, use string) (ticket, error) {
	var t ticket
	if !d.openFor(ticketOwner, token, &t) || t.For != use {
		return ticket{}, ErrLate
	}
	return t, d.once(ctx, ticketOwner, t.Nonce, t.Expires)
}

// once lets a token pass that has not expired and did not pass before.
func (d *Desk) once(ctx context.Context, owner string, nonce []byte, until int64) error {
	now, expires := d.Clock.Now().Wall, time.Unix(until, 0)
	if !now.Before(expires) {
		return ErrLate
	}
	err := d.Store.UseNonce(ctx, owner, protocol.URLEncodedBase64(nonce).String(), expires, now)
	if errors.Is(err, roster.ErrUsed) {
		err = ErrLate
	}
	return err
}

// user is a person as the library sees her.
type user struct {
	fleet, name string
	keys        []webauthn.Credential
}

// WebAuthnID is the same for all of a person's passkeys, and does not tell her
// name.
func (u user) WebAuthnID() []byte {
	sum := sha256.Sum256([]byte("curfew person\x00" + u.fleet + "\x00" + u.name))
	return sum[:]
}

func (u user) WebAuthnName() string                       { return u.name }
func (u user) WebAuthnDisplayName() string                { return u.name }
func (u user) WebAuthnCredentials() []webauthn.Credential { return u.keys }

func (d *Desk) user(name string, keys ...webauthn.Credential) user {
	return user{fleet: d.Fleet, name: name, keys: keys}
}

// owner says for whom a credential is sealed: no other passkey, and nobody
// else's, can be put in its place in the database.
func owner(k roster.Passkey) string { return fmt.Sprintf("passkey %s %x", k.Person, k.ID) }

func (d *Desk) openCredential(k roster.Passkey) (webauthn.Credential, error) {
	var c webauthn.Credential
	b, err := d.Box.Open(owner(k), k.Body)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(b, &c)
}

func (d *Desk) sealCredential(k roster.Passkey, c webauthn.Credential) ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return d.Box.Seal(owner(k), b), nil
}

// challenge is what the passkey signs: it holds what the person is asked to
// prove herself for, so that the answer is worth nothing for anything else.
func challenge(t ticket) []byte {
	if t.For == forGrant {
		return t.Challenge
	}
	var w canon.Writer
	w.Text(1, t.For)
	w.Text(2, t.Person)
	w.Blob(3, t.About)
	w.Blob(4, t.Nonce)
	sum := sha256.Sum256(w.Bytes())
	return sum[:]
}

// AskPasskey asks a passkey of the person's for a proof that is good for this
// and nothing else.
func (d *Desk) AskPasskey(ctx context.Context, person string, about []byte) (roster.Ceremony, error) {
	return d.askOwn(ctx, ticket{For: forProof, Person: person, About: about})
}

// askOwn asks one of the passkeys of the ticket's person.
func (d *Desk) askOwn(ctx context.Context, t ticket) (roster.Ceremony, error) {
	if d.Passkeys == nil {
		return roster.Ceremony{}, ErrNoPages
	}
	f, err := d.Store.Factors(ctx, t.Person)
	if err != nil {
		return roster.Ceremony{}, err
	}
	var allowed []protocol.CredentialDescriptor
	for _, k := range f.Passkeys {
		if !k.Locked {
			allowed = append(allowed, protocol.CredentialDescriptor{Type: protocol.PublicKeyCredentialType, CredentialID: k.ID})
		}
	}
	if len(allowed) == 0 {
		return roster.Ceremony{}, ErrNoPasskey
	}
	return d.ask(t, allowed)
}

// AskSignIn asks any passkey of this fleet's who it is.
func (d *Desk) AskSignIn() (roster.Ceremony, error) {
	if d.Passkeys == nil {
		return roster.Ceremony{}, ErrNoPages
	}
	return d.ask(ticket{For: forSignIn}, nil)
}

func (d *Desk) ask(t ticket, allowed []protocol.CredentialDescriptor) (roster.Ceremony, error) {
	t.Nonce, t.Expires = nonce(), d.Clock.Now().Wall.Add(ceremonyLife).Unix()
	options, session, err := d.Passkeys.party.BeginDiscoverableLogin(webauthn.WithChallenge(challenge(t)))
	if err != nil {
		return roster.Ceremony{}, fmt.Errorf("ask passkey: %w", err)
	}
	t.Session = *session
	if t.Person != "" {
		// Whose passkey it has to be; such an answer need not say it itself.
		t.Session.UserID = d.user(t.Person).WebAuthnID()
	}
	options.Response.AllowedCredentials = allowed
	b, err := json.Marshal(options.Response)
	return roster.Ceremony{Options: b, Token: d.seal(t)}, err
}

// ProvePasskey lets the person's own passkey prove her for what it was asked
// about.
func (d *Desk) ProvePasskey(ctx context.Context, person string, answer, about []byte) error {
	k, t, err := d.answered(ctx, answer, forProof)
	if err != nil {
		return err
	}
	if k.Person != person || t.Person != person || !bytes.Equal(t.About, about) {
		return ErrPasskey
	}
	return nil
}

// answered checks a passkey's answer and returns whose it is. The counter is
// looked at last, where nobody comes in between.
func (d *Desk) answered(ctx context.Context, answer []byte, use string) (roster.Passkey, ticket, error) {
	no := func(err error) (roster.Passkey, ticket, error) { return roster.Passkey{}, ticket{}, err }
	if d.Passkeys == nil {
		return no(ErrNoPages)
	}
	var a roster.Answer
	if json.Unmarshal(answer, &a) != nil {
		return no(ErrPasskey)
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(a.Answer)
	if err != nil {
		return no(ErrPasskey)
	}
	t, err := d.redeem(ctx, a.Token, use)
	if err != nil {
		return no(err)
	}
	if !bytes.Equal(challenge(t), decoded(t.Session.Challenge)) {
		return no(ErrPasskey)
	}
	k, err := d.Store.Passkey(ctx, parsed.RawID)
	if errors.Is(err, roster.ErrUnknown) {
		err = ErrPasskey
	}
	if err != nil {
		return no(err)
	}
	err = d.Store.UpdatePasskey(ctx, k.ID, func(now roster.Passkey) (roster.Passkey, error) { return d.verify(now, t, parsed) })
	if errors.Is(err, roster.ErrUnknown) {
		err = ErrPasskey
	}
	return k, t, err
}

func decoded(s string) []byte {
	var b protocol.URLEncodedBase64
	if b.UnmarshalJSON([]byte(`"`+s+`"`)) != nil {
		return nil
	}
	return b
}

// verify returns the passkey as it is after its answer.
func (d *Desk) verify(k roster.Passkey, t ticket, parsed *protocol.ParsedCredentialAssertionData) (roster.Passkey, error) {
	c, err := d.openCredential(k)
	if err != nil {
		return k, err
	}
	u, party := d.user(k.Person, c), d.Passkeys.party
	var after *webauthn.Credential
	if t.Person == "" {
		after, err = party.ValidateDiscoverableLogin(func(_, _ []byte) (webauthn.User, error) { return u, nil }, t.Session, parsed)
	} else {
		after, err = party.ValidateLogin(u, t.Session, parsed)
	}
	now := d.Clock.Now().Wall
	switch {
	case err != nil:
		k.RefusedAt = now
		return k, ErrPasskey
	case k.Locked:
		k.RefusedAt = now
		return k, ErrLocked
	case after.Authenticator.CloneWarning:
		k.Locked, k.UsedAt, k.RefusedAt = true, now, now
		return k, ErrLocked
	}
	k.UsedAt = now
	k.Body, err = d.sealCredential(k, *after)
	return k, err
}
