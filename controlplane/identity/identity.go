// Package identity knows who is calling: it enrols people, signs them in and
// checks their second factors.
//
// It stores nothing itself, and it gives no right to anything: what a person
// may do is policy.
package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/grant"
)

// How long what is given out lasts.
const (
	InviteLife  = 24 * time.Hour
	SessionLife = 12 * time.Hour
	loginSkew   = time.Minute
)

// LoginType is what a login's signature is on.
const LoginType = "application/vnd.curfew.login.v1"

// Reasons for which somebody is not let in. Their texts are for that person,
// and say the same for a name that does not exist as for one that does.
var (
	ErrInvite = roster.Refuse(roster.Unproven, "this code was used already, or has expired, or is not of this fleet: ask an admin for a new one")
	ErrLogin  = roster.Refuse(roster.Unproven, "this device is not signed up for that person: ask an admin for a code")
	ErrSkew   = roster.Refuse(roster.Unproven, "the time of the login is over a minute away from the server's: set this machine's clock")
	ErrOver   = roster.Refuse(roster.Unproven, "the session is over: sign in again with `curfew login`")
	ErrDevice = roster.Refuse(roster.Conflict, "the device's key is not an Ed25519 key, or was enrolled before: remove it and try again")
)

// A Store keeps people's factors, devices and sessions.
type Store interface {
	UpdateFactor(ctx context.Context, person string, f func(roster.TOTP) (roster.TOTP, error)) error
	PutInvite(ctx context.Context, i roster.Invite, a roster.Act) error
	UpdateInvite(ctx context.Context, hash [32]byte, f func(roster.Invite) (roster.Invite, error)) error
	UseInvite(ctx context.Context, e roster.Enrolment, at time.Time) error
	Device(ctx context.Context, key []byte) (roster.Device, error)
	AddSession(ctx context.Context, s roster.Session, at time.Time) error
	Session(ctx context.Context, id string, at time.Time) (roster.Session, roster.Person, error)
	UseNonce(ctx context.Context, session, nonce string, until, at time.Time) error
	Accounts
	Keys
}

// Accounts keeps what people are to the provider.
type Accounts interface {
	Account(ctx context.Context, issuer, subject string) (roster.Account, error)
	Arrive(ctx context.Context, v roster.Arrival, at time.Time) error
	Person(ctx context.Context, name string) (roster.Person, error)
}

// Keys keeps people's passkeys.
type Keys interface {
	Factors(ctx context.Context, person string) (roster.Factors, error)
	Passkey(ctx context.Context, id []byte) (roster.Passkey, error)
	AddPasskey(ctx context.Context, k roster.Passkey) error
	UpdatePasskey(ctx context.Context, id []byte, f func(roster.Passkey) (roster.Passkey, error)) error
}

// A Desk lets people in.
type Desk struct {
	Store Store
	Clock clock.Clock
	Fleet string
	Box   *Box
	// Passkeys is the relying party of the pages; nil without pages.
	Passkeys *Passkeys
	// Provider is where people sign in besides; nil if they do so here alone.
	Provider *Provider
	// Known reports whether the policy names a group of the provider's.
	Known func(group string) bool

	mu    sync.Mutex                  // guards what follows
	tries map[[2]string]*rate.Limiter // by person and place: codes from elsewhere than her devices
}

// Invite makes a code's secret, which lets the person enrol a device and a
// second factor in place of those that she has.
func (d *Desk) Invite(ctx context.Context, person, by string) (secret string, expires time.Time, err error) {
	return d.invite(ctx, roster.Invite{Person: person}, by)
}

// InviteBeside makes a code's secret for somebody who has just proved
// herself: it lets her enrol one device more beside what she has.
func (d *Desk) InviteBeside(ctx context.Context, person string) (secret string, expires time.Time, err error) {
	return d.invite(ctx, roster.Invite{Person: person, Adds: true}, person)
}

func (d *Desk) invite(ctx context.Context, i roster.Invite, by string) (secret string, expires time.Time, err error) {
	secret = rand.Text()
	now := d.Clock.Now().Wall
	i.Hash, i.Expires = sha256.Sum256([]byte(secret)), now.Add(InviteLife).Truncate(time.Second)
	return secret, i.Expires, d.Store.PutInvite(ctx, i, roster.Act{By: by, At: now})
}

// Enroll shows the holder of a code her new second factor. It can be asked
// for again: each time the factor is new, until one is confirmed.
func (d *Desk) Enroll(ctx context.Context, secret string, device ed25519.PublicKey) (person, uri string, err error) {
	if len(device) != ed25519.PublicKeySize {
		return "", "", ErrDevice
	}
	raw := make([]byte, 20) // RFC 4226, section 4: 160 bits are recommended
	_, _ = rand.Read(raw)   // never fails, crypto/rand
	err = d.Store.UpdateInvite(ctx, sha256.Sum256([]byte(secret)), func(i roster.Invite) (roster.Invite, error) {
		if !d.Clock.Now().Wall.Before(i.Expires) {
			return i, ErrInvite
		}
		// The count of wrong guesses goes on: a new secret is not a new try.
		person, i.Device, i.Pending.Secret = i.Person, device, d.Box.Seal(i.Person, raw)
		return i, nil
	})
	if errors.Is(err, roster.ErrUnknown) {
		err = ErrInvite
	}
	if err != nil {
		return "", "", err
	}
	return person, d.uri(person, raw), nil
}

func (d *Desk) uri(person string, secret []byte) string {
	q := url.Values{}
	q.Set("secret", base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret))
	q.Set("issuer", "curfew "+d.Fleet)
	label := url.PathEscape("curfew " + d.Fleet + ":" + person)
	return "otpauth://totp/" + label + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}

// ConfirmEnroll uses the code up and opens a session.
func (d *Desk) ConfirmEnroll(ctx context.Context, c roster.Confirmation) (roster.Session, error) {
	if err := grant.CheckText("device name", c.DeviceName, 100); err != nil {
		return roster.Session{}, roster.Refuse(roster.Invalid, "%v", err)
	}
	now := d.Clock.Now().Wall
	e := roster.Enrolment{Invite: sha256.Sum256([]byte(c.Secret)), DeviceName: c.DeviceName}
	err := d.Store.UpdateInvite(ctx, e.Invite, func(i roster.Invite) (roster.Invite, error) {
		if !now.Before(i.Expires) || len(i.Pending.Secret) == 0 || len(c.Device) != ed25519.PublicKeySize || !bytes.Equal(i.Device, c.Device) {
			return i, ErrInvite
		}
		var err error
		i.Pending, err = d.check(i.Person, i.Pending, c.Code, now)
		e.Factor, e.Session = i.Pending, newSession(i.Person, i.Device, now)
		return i, err
	})
	if err == nil {
		err = d.Store.UseInvite(ctx, e, now)
	}
	switch {
	case errors.Is(err, roster.ErrUnknown), errors.Is(err, roster.ErrUsed):
		err = ErrInvite
	case errors.Is(err, roster.ErrExists):
		err = ErrDevice
	}
	if err != nil {
		return roster.Session{}, err
	}
	return e.Session, nil
}

// loginBytes is what the device signs, in DSSE's encoding for [LoginType].
func loginBytes(fleet string, l roster.Login) []byte {
	return []byte(fleet + "\x00" + l.Person + "\x00" + strconv.FormatInt(l.At, 10))
}

// Login opens a session. The code is looked at last, so that nobody without
// the device can spend the person's tries.
func (d *Desk) Login(ctx context.Context, l roster.Login) (roster.Session, error) {
	now := d.Clock.Now().Wall
	if len(l.Device) != ed25519.PublicKeySize || !ed25519.Verify(l.Device, dsse.PAE(LoginType, loginBytes(d.Fleet, l)), l.Signature) {
		return roster.Session{}, ErrLogin
	}
	if ago := now.Sub(time.Unix(l.At, 0)); ago > loginSkew || ago < -loginSkew {
		return roster.Session{}, ErrSkew
	}
	known, err := d.Store.Device(ctx, l.Device)
	if errors.Is(err, roster.ErrUnknown) || err == nil && known.Person != l.Person {
		return roster.Session{}, ErrLogin
	}
	if err != nil {
		return roster.Session{}, err
	}
	if err := d.SpendCode(ctx, l.Person, l.Code); err != nil {
		return roster.Session{}, err
	}
	s := newSession(l.Person, l.Device, now)
	if err := d.Store.AddSession(ctx, s, now); err != nil {
		return roster.Session{}, fmt.Errorf("open session: %w", err)
	}
	return s, nil
}

// Session returns the session of the id, if it stands, and whose it is.
func (d *Desk) Session(ctx context.Context, id string) (roster.Session, roster.Person, error) {
	s, p, err := d.Store.Session(ctx, id, d.Clock.Now().Wall)
	if errors.Is(err, roster.ErrUnknown) || errors.Is(err, roster.ErrDisabled) {
		err = ErrOver
	}
	return s, p, err
}

func newSession(person string, device ed25519.PublicKey, now time.Time) roster.Session {
	return roster.Session{
		ID: "s-" + strings.ToLower(rand.Text()), Person: person, Device: device, Expires: now.Add(SessionLife).Truncate(time.Second),
		Proved: now,
	}
}
