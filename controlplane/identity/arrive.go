package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/grant"
)

// How long a person may take at the provider, and a command line to take what
// a browser brought it.
const (
	awayLife    = 10 * time.Minute
	landingLife = 2 * time.Minute
)

// LineType is what a command line's signature is on when it takes its session.
const LineType = "application/vnd.curfew.signin.v1"

// Reasons for which somebody for whom the provider vouches is not let in.
var (
	ErrStranger = roster.Refuse(roster.Unproven, "the provider knows you, and this fleet does not: ask an admin to add you under the name that you have there, then enrol with her code")
	ErrBare     = roster.Refuse(roster.Unproven, "you have enrolled nothing here yet: ask an admin for a code, enrol with it, then sign in at the provider once more")
	ErrBound    = roster.Refuse(roster.Unproven, "you are another account at the provider to us: if that is gone, ask an admin for a new code and enrol with it first")
	ErrAway     = roster.Refuse(roster.Unproven, "that took too long, or was done before, or began in another browser: sign in again")
	ErrLine     = roster.Refuse(roster.Unproven, "this sign-in is not for this command line, or took too long: run `curfew login` again")
)

// What a pass is for.
const (
	forLine   = "line"   // a browser, to sign a command line in
	forAway   = "away"   // the browser's own, while it is at the provider
	forIn     = "in"     // the browser, when the provider vouched
	forDevice = "device" // the command line
)

// A pass is what the server has to know again at the next step of a sign-in
// at the provider. It travels sealed, so that nobody who only asks costs a row.
type pass struct {
	For     string       `json:"for"`
	Nonce   []byte       `json:"nonce"`
	Expires int64        `json:"expires"`
	Line    *roster.Line `json:"line,omitempty"`
	To      string       `json:"to,omitempty"`
	Errand  errand       `json:"errand,omitzero"`
	Subject string       `json:"subject,omitempty"`
	Person  string       `json:"person,omitempty"`
	Groups  []string     `json:"groups"` // that it says she is in; null: it was not asked
	Manager string       `json:"manager,omitempty"`
	Bound   bool         `json:"bound,omitempty"`  // the account was hers before
	Proved  int64        `json:"proved,omitempty"` // when she proved that it is
}

const passOwner = "a pass"

// issue makes the pass for the next step.
func (d *Desk) issue(p pass, use string, life time.Duration) string {
	p.For, p.Nonce, p.Expires = use, nonce(), d.Clock.Now().Wall.Add(life).Unix()
	return d.sealFor(passOwner, p)
}

// show opens a pass and leaves it as good as it was.
func (d *Desk) show(token, use string) (pass, error) {
	var p pass
	if !d.openFor(passOwner, token, &p) || p.For != use || !d.Clock.Now().Wall.Before(time.Unix(p.Expires, 0)) {
		return pass{}, ErrAway
	}
	return p, nil
}

// spend opens a pass and uses it up.
func (d *Desk) spend(ctx context.Context, token, use string) (pass, error) {
	p, err := d.show(token, use)
	if err == nil {
		err = d.once(ctx, passOwner, p.Nonce, p.Expires)
	}
	if errors.Is(err, ErrLate) {
		err = ErrAway
	}
	return p, err
}

// check is what a command line and the page show, so that a person sees that
// the page is about her own.
func check(device []byte) string {
	sum := sha256.Sum256(device)
	s := base32.StdEncoding.EncodeToString(sum[:5])
	return s[:4] + "-" + s[4:]
}

// BeginLine says where a browser signs the command line in, and what the page
// will show.
func (d *Desk) BeginLine(l roster.Line) (at, shown string, err error) {
	if d.Provider == nil {
		return "", "", ErrNoProvider
	}
	if len(l.Device) != ed25519.PublicKeySize {
		return "", "", ErrDevice
	}
	if err := errors.Join(grant.CheckText("device name", l.Name, 100), grant.CheckText("state", l.State, 100)); err != nil {
		return "", "", roster.Refuse(roster.Invalid, "%v", err)
	}
	q := url.Values{"line": {d.issue(pass{Line: &l}, forLine, awayLife)}}
	return strings.TrimSuffix(d.Provider.redirect, "/back") + "/away?" + q.Encode(), check(l.Device), nil
}

// GoAway sends a browser to the provider: for itself, or for a command line.
// The cookie is what it has to bring back.
func (d *Desk) GoAway(ctx context.Context, to, line string) (at, cookie string, err error) {
	if d.Provider == nil {
		return "", "", ErrNoProvider
	}
	p := pass{To: to, Errand: errand{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier()}}
	if line != "" {
		from, err := d.show(line, forLine)
		if err != nil {
			return "", "", err
		}
		p.Line = from.Line
	}
	at, err = d.Provider.away(ctx, p.Errand)
	if err != nil {
		return "", "", errors.Join(ErrProvider, err)
	}
	return at, d.issue(p, forAway, awayLife), nil
}

// Arrive takes a browser that comes from the provider. If she whom it vouches
// for has had the account before, she is let in; if not, she has to prove that
// it is hers.
func (d *Desk) Arrive(ctx context.Context, cookie string, r roster.Returned) (roster.Arrived, error) {
	if d.Provider == nil {
		return roster.Arrived{}, ErrNoProvider
	}
	p, err := d.spend(ctx, cookie, forAway)
	if err != nil {
		return roster.Arrived{}, err
	}
	w, err := d.Provider.back(ctx, p.Errand, r)
	if err != nil {
		return roster.Arrived{}, errors.Join(ErrProvider, err)
	}
	p.Errand, p.Subject, p.Person, p.Groups, p.Manager = errand{}, w.Subject, w.Person, d.ours(w.Groups), w.Manager
	a, err := d.Store.Account(ctx, d.Provider.Issuer, w.Subject)
	switch {
	case err == nil:
		p.Bound, p.Person = true, a.Person
	case !errors.Is(err, roster.ErrUnknown):
		return roster.Arrived{}, err
	case p.Person == "":
		return roster.Arrived{}, ErrStranger
	}
	return d.arrived(ctx, p)
}

// ours are those of the groups that the policy names: the others are nothing
// to us.
func (d *Desk) ours(groups []string) []string {
	return slices.DeleteFunc(groups, func(g string) bool { return !d.Known(g) })
}

// arrived says how far somebody has come. What she is called at the provider
// is no proof that she is the person of that name: whoever gave it to her may
// have given it to two.
func (d *Desk) arrived(ctx context.Context, p pass) (roster.Arrived, error) {
	who, err := d.Store.Person(ctx, p.Person)
	if errors.Is(err, roster.ErrUnknown) || err == nil && who.Disabled {
		err = ErrStranger
	}
	if err != nil {
		return roster.Arrived{Person: p.Person}, err // who it was to be, for the record
	}
	a := roster.Arrived{Person: p.Person, To: p.To, Bound: p.Bound || p.Proved != 0}
	if p.Line != nil {
		a.Line, a.Name, a.Check = true, p.Line.Name, check(p.Line.Device)
	}
	if !a.Bound {
		if a.Factors, err = d.Store.Factors(ctx, p.Person); err == nil && len(a.Passkeys) == 0 && !a.TOTP {
			err = ErrBare
		}
	}
	if err != nil {
		return roster.Arrived{Person: p.Person}, err
	}
	a.Pass = d.issue(p, forIn, awayLife)
	return a, nil
}

// AskArrived asks a passkey of the person's for the proof that the account is
// hers.
func (d *Desk) AskArrived(ctx context.Context, token string) (roster.Ceremony, error) {
	p, err := d.show(token, forIn)
	if err != nil {
		return roster.Ceremony{}, err
	}
	return d.AskPasskey(ctx, p.Person, aboutArrival(p))
}

// aboutArrival is what a passkey signs for an account: that one, and nobody
// else's.
func aboutArrival(p pass) []byte {
	sum := sha256.Sum256([]byte("account\x00" + strconv.Itoa(len(p.Subject)) + "\x00" + p.Subject + "\x00" + string(p.Nonce)))
	return sum[:]
}

// ProveArrived lets a factor of the person's prove that the account is hers.
// Whoever has an account that is called like her can try, and wrong codes of
// his do not keep her from using hers.
// If it does not, she may try again with what comes beside the refusal.
func (d *Desk) ProveArrived(ctx context.Context, token, code string, assertion []byte) (roster.Arrived, error) {
	p, err := d.show(token, forIn)
	if err != nil {
		return roster.Arrived{}, err
	}
	if len(assertion) > 0 {
		err = d.ProvePasskey(ctx, p.Person, assertion, aboutArrival(p))
	} else {
		err = d.spendFor(ctx, p.Subject, p.Person, code)
	}
	if err != nil {
		again, errAgain := d.arrived(ctx, p)
		return again, errors.Join(err, errAgain)
	}
	if _, err := d.spend(ctx, token, forIn); err != nil {
		return roster.Arrived{}, err
	}
	p.Proved = d.Clock.Now().Wall.Unix()
	return d.arrived(ctx, p)
}

// EnterBrowser lets the browser in.
func (d *Desk) EnterBrowser(ctx context.Context, token, browser string) (secret string, s roster.Session, err error) {
	p, err := d.spend(ctx, token, forIn)
	if err == nil && p.Line != nil {
		err = ErrAway
	}
	if err != nil {
		return "", s, err
	}
	secret, s = d.newBrowser(p.Person, browser)
	s, err = d.enter(ctx, p, s, "")
	return secret, s, err
}

// Land sends the browser on to the command line, with what that needs.
func (d *Desk) Land(ctx context.Context, token string) (roster.Landing, error) {
	p, err := d.spend(ctx, token, forIn)
	if err == nil && (p.Line == nil || !p.Bound && p.Proved == 0) {
		err = ErrAway
	}
	if err != nil {
		return roster.Landing{}, err
	}
	l := roster.Landing{Pass: d.issue(p, forDevice, landingLife), Expires: d.Clock.Now().Wall.Add(landingLife)}
	if p.Line.Port != 0 {
		q := url.Values{"pass": {l.Pass}, "state": {p.Line.State}}
		l.URL = "http://127.0.0.1:" + strconv.Itoa(int(p.Line.Port)) + "/?" + q.Encode()
	}
	return l, nil
}

// FinishLine opens the session of a command line, whose own key has to ask
// for it.
func (d *Desk) FinishLine(ctx context.Context, l roster.LineLogin) (roster.Session, error) {
	now := d.Clock.Now().Wall
	signed := []byte(d.Fleet + "\x00" + l.Pass + "\x00" + strconv.FormatInt(l.At, 10))
	if len(l.Device) != ed25519.PublicKeySize || !ed25519.Verify(l.Device, dsse.PAE(LineType, signed), l.Signature) {
		return roster.Session{}, ErrLine
	}
	if ago := now.Sub(time.Unix(l.At, 0)); ago > loginSkew || ago < -loginSkew {
		return roster.Session{}, ErrSkew
	}
	p, err := d.show(l.Pass, forDevice)
	if err != nil || p.Line == nil || string(p.Line.Device) != string(l.Device) {
		return roster.Session{}, ErrLine
	}
	if p, err = d.spend(ctx, l.Pass, forDevice); err != nil {
		return roster.Session{}, ErrLine
	}
	return d.enter(ctx, p, newSession(p.Person, l.Device, now), p.Line.Name)
}

// enter opens the session. The provider's word is no factor of ours: until
// the person has used one on it, the session lets her look.
func (d *Desk) enter(ctx context.Context, p pass, s roster.Session, device string) (roster.Session, error) {
	s.Proved = time.Time{}
	if p.Proved != 0 {
		s.Proved = time.Unix(p.Proved, 0)
	}
	if !p.Bound && p.Proved == 0 {
		return roster.Session{}, ErrAway
	}
	err := d.Store.Arrive(ctx, roster.Arrival{
		Account: roster.Account{Issuer: d.Provider.Issuer, Subject: p.Subject, Person: p.Person},
		Bind:    !p.Bound, Groups: p.Groups, Manager: p.Manager, Session: s, DeviceName: device,
	}, d.Clock.Now().Wall)
	switch {
	case errors.Is(err, roster.ErrDisabled), errors.Is(err, roster.ErrUnknown):
		return roster.Session{}, ErrStranger
	case errors.Is(err, roster.ErrExists):
		return roster.Session{}, ErrBound
	case errors.Is(err, roster.ErrUsed):
		return roster.Session{}, ErrDevice
	case err != nil:
		return roster.Session{}, fmt.Errorf("open session: %w", err)
	}
	return s, nil
}
