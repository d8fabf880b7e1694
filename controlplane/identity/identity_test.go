package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
)

type fakeClock struct{ now time.Time }

func (c *fakeClock) Now() clock.Reading                   { return clock.Reading{Wall: c.now} }
func (c *fakeClock) After(time.Duration) <-chan time.Time { return nil }

// memory is a store for one test.
type memory struct {
	invites  map[[32]byte]roster.Invite
	factors  map[string]roster.TOTP
	devices  map[string]roster.Device
	sessions map[string]roster.Session
	passkeys map[string]roster.Passkey
	nonces   map[string]bool
	accounts map[string]string // subject -> person
	disabled map[string]bool
	arrival  roster.Arrival // the last
}

func (m *memory) UseNonce(_ context.Context, session, nonce string, _, _ time.Time) error {
	if m.nonces[session+nonce] {
		return roster.ErrUsed
	}
	m.nonces[session+nonce] = true
	return nil
}

func (m *memory) Factors(_ context.Context, p string) (roster.Factors, error) {
	var f roster.Factors
	_, f.TOTP = m.factors[p]
	for _, k := range m.passkeys {
		if k.Person == p {
			f.Passkeys = append(f.Passkeys, k)
		}
	}
	return f, nil
}

func (m *memory) Passkey(_ context.Context, id []byte) (roster.Passkey, error) {
	k, ok := m.passkeys[string(id)]
	if !ok {
		return k, roster.ErrUnknown
	}
	return k, nil
}

func (m *memory) AddPasskey(_ context.Context, k roster.Passkey) error {
	if _, ok := m.passkeys[string(k.ID)]; ok {
		return roster.ErrExists
	}
	m.passkeys[string(k.ID)] = k
	return nil
}

func (m *memory) UpdatePasskey(_ context.Context, id []byte, f func(roster.Passkey) (roster.Passkey, error)) error {
	k, ok := m.passkeys[string(id)]
	if !ok {
		return roster.ErrUnknown
	}
	k, err := f(k)
	m.passkeys[string(id)] = k
	return err
}

func (m *memory) PutInvite(_ context.Context, i roster.Invite, _ roster.Act) error {
	m.invites[i.Hash] = i
	return nil
}

func (m *memory) UpdateInvite(_ context.Context, h [32]byte, f func(roster.Invite) (roster.Invite, error)) error {
	i, ok := m.invites[h]
	if !ok {
		return roster.ErrUnknown
	}
	i, err := f(i)
	m.invites[h] = i
	return err
}

func (m *memory) UseInvite(_ context.Context, e roster.Enrolment, _ time.Time) error {
	if _, ok := m.invites[e.Invite]; !ok {
		return roster.ErrUsed
	}
	delete(m.invites, e.Invite)
	m.sessions[e.Session.ID] = e.Session
	if e.Passkey != nil {
		m.passkeys[string(e.Passkey.ID)] = *e.Passkey
		return nil
	}
	m.factors[e.Session.Person] = e.Factor
	m.devices[string(e.Session.Device)] = roster.Device{Key: e.Session.Device, Person: e.Session.Person}
	return nil
}

func (m *memory) UpdateFactor(_ context.Context, p string, f func(roster.TOTP) (roster.TOTP, error)) error {
	t, ok := m.factors[p]
	if !ok {
		return roster.ErrUnknown
	}
	t, err := f(t)
	m.factors[p] = t
	return err
}

func (m *memory) Device(_ context.Context, key []byte) (roster.Device, error) {
	d, ok := m.devices[string(key)]
	if !ok {
		return d, roster.ErrUnknown
	}
	return d, nil
}

func (m *memory) AddSession(_ context.Context, s roster.Session, _ time.Time) error {
	m.sessions[s.ID] = s
	return nil
}

func (m *memory) Session(_ context.Context, id string, at time.Time) (roster.Session, roster.Person, error) {
	s, ok := m.sessions[id]
	if !ok || !at.Before(s.Expires) {
		return s, roster.Person{}, roster.ErrUnknown
	}
	return s, roster.Person{Name: s.Person}, nil
}

type bench struct {
	*Desk
	clock  *fakeClock
	store  *memory
	key    ed25519.PrivateKey
	secret string // of ana's factor, base32
}

func newBench(t *testing.T) *bench {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secrets.key")
	if err := MakeBoxKey(file); err != nil {
		t.Fatal(err)
	}
	box, err := LoadBox(file)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{
		clock: &fakeClock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
		store: &memory{
			invites:  map[[32]byte]roster.Invite{},
			factors:  map[string]roster.TOTP{},
			devices:  map[string]roster.Device{},
			sessions: map[string]roster.Session{},
			passkeys: map[string]roster.Passkey{},
			nonces:   map[string]bool{},
			accounts: map[string]string{},
			disabled: map[string]bool{},
		},
		key: ed25519.NewKeyFromSeed(make([]byte, 32)),
	}
	b.Desk = &Desk{Store: b.store, Clock: b.clock, Fleet: "lab", Box: box}
	return b
}

func (b *bench) public() ed25519.PublicKey { return b.key.Public().(ed25519.PublicKey) }

func (b *bench) code(t *testing.T) string {
	t.Helper()
	c, err := totp.GenerateCode(b.secret, b.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (b *bench) enrol(t *testing.T) {
	t.Helper()
	invite, _, err := b.Invite(t.Context(), "ana", "root")
	if err != nil {
		t.Fatal(err)
	}
	_, uri, err := b.Enroll(t.Context(), invite, b.public())
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	b.secret = u.Query().Get("secret")
	if _, err := b.ConfirmEnroll(t.Context(), roster.Confirmation{Secret: invite, Device: b.public(), Code: b.code(t), DeviceName: "laptop"}); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) login(t *testing.T, alter func(*roster.Login)) error {
	t.Helper()
	l := roster.Login{Person: "ana", Device: b.public(), At: b.clock.now.Unix(), Code: b.code(t)}
	l.Signature = ed25519.Sign(b.key, dsse.PAE(LoginType, loginBytes("lab", l)))
	alter(&l)
	_, err := b.Login(t.Context(), l)
	return err
}

func TestEnrol(t *testing.T) {
	b := newBench(t)
	invite, _, _ := b.Invite(t.Context(), "ana", "root")
	other := make(ed25519.PublicKey, 32)
	if _, _, err := b.Enroll(t.Context(), "guess", b.public()); !errors.Is(err, ErrInvite) {
		t.Errorf("guessed code: %v", err)
	}
	if _, err := b.ConfirmEnroll(t.Context(), roster.Confirmation{Secret: invite, Device: b.public(), Code: "000000", DeviceName: ""}); !errors.Is(err, ErrInvite) {
		t.Errorf("confirmed before a factor was shown: %v", err)
	}
	_, uri, err := b.Enroll(t.Context(), invite, b.public())
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(uri)
	b.secret = u.Query().Get("secret")
	if raw, err := base32.StdEncoding.DecodeString(b.secret); err != nil || len(raw) != 20 {
		t.Errorf("secret of %d bytes, %v", len(raw), err)
	}
	if _, err := b.ConfirmEnroll(t.Context(), roster.Confirmation{Secret: invite, Device: b.public(), Code: "12345", DeviceName: ""}); !errors.Is(err, ErrCode) {
		t.Errorf("wrong code: %v", err)
	}
	if _, err := b.ConfirmEnroll(t.Context(), roster.Confirmation{Secret: invite, Device: other, Code: b.code(t), DeviceName: ""}); !errors.Is(err, ErrInvite) {
		t.Errorf("another device: %v", err)
	}
	if _, err := b.ConfirmEnroll(t.Context(), roster.Confirmation{Secret: invite, Device: b.public(), Code: b.code(t), DeviceName: "a\x1b[2Jb"}); err == nil {
		t.Error("device name with an escape sequence was taken")
	}
	if _, err := b.ConfirmEnroll(t.Context(), roster.Confirmation{Secret: invite, Device: b.public(), Code: b.code(t), DeviceName: "laptop"}); err != nil {
		t.Errorf("right code: %v", err)
	}
	if _, _, err := b.Enroll(t.Context(), invite, b.public()); !errors.Is(err, ErrInvite) {
		t.Errorf("code again: %v", err)
	}
	if got := b.store.factors["ana"].Secret; len(got) == 20 {
		t.Error("the secret is stored as it is")
	}
}

func TestInviteExpires(t *testing.T) {
	b := newBench(t)
	invite, _, _ := b.Invite(t.Context(), "ana", "root")
	b.clock.now = b.clock.now.Add(InviteLife)
	if _, _, err := b.Enroll(t.Context(), invite, b.public()); !errors.Is(err, ErrInvite) {
		t.Errorf("got %v", err)
	}
	if _, ok := b.store.invites[sha256.Sum256([]byte(invite))]; !ok {
		t.Error("the invite is not kept under the hash of its secret")
	}
}

func TestLogin(t *testing.T) {
	eve := ed25519.NewKeyFromSeed(append(make([]byte, 31), 1))
	for _, c := range []struct {
		name  string
		alter func(*roster.Login)
		want  error
	}{
		{"as it should be", func(*roster.Login) {}, nil},
		{"wrong code", func(l *roster.Login) { l.Code = "abcdef" }, ErrCode},
		{"signature of zeros", func(l *roster.Login) { l.Signature = make([]byte, 64) }, ErrLogin},
		{"no key", func(l *roster.Login) { l.Device = nil }, ErrLogin},
		{"for somebody else", func(l *roster.Login) { l.Person = "ben" }, ErrLogin},
		{"signed for somebody else", func(l *roster.Login) {
			l.Person = "ben"
			l.Signature = ed25519.Sign(ed25519.NewKeyFromSeed(make([]byte, 32)), dsse.PAE(LoginType, loginBytes("lab", *l)))
		}, ErrLogin},
		{"a device that nobody has", func(l *roster.Login) {
			l.Device = eve.Public().(ed25519.PublicKey)
			l.Signature = ed25519.Sign(eve, dsse.PAE(LoginType, loginBytes("lab", *l)))
		}, ErrLogin},
		{"an old one", func(l *roster.Login) {
			l.At -= 61
			l.Signature = ed25519.Sign(ed25519.NewKeyFromSeed(make([]byte, 32)), dsse.PAE(LoginType, loginBytes("lab", *l)))
		}, ErrSkew},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.enrol(t)
			b.clock.now = b.clock.now.Add(2 * time.Minute)
			if err := b.login(t, c.alter); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestCodeCountsOnce(t *testing.T) {
	b := newBench(t)
	b.enrol(t)
	if err := b.SpendCode(t.Context(), "ana", b.code(t)); !errors.Is(err, ErrCode) {
		t.Errorf("the code of the enrolment again: %v", err)
	}
	b.clock.now = b.clock.now.Add(30 * time.Second)
	code := b.code(t)
	if err := b.SpendCode(t.Context(), "ana", code); err != nil {
		t.Errorf("the next code: %v", err)
	}
	if err := b.SpendCode(t.Context(), "ana", code); !errors.Is(err, ErrCode) {
		t.Errorf("the next code again: %v", err)
	}
	if err := b.SpendCode(t.Context(), "nobody", code); !errors.Is(err, ErrCode) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestCodeOfTheNeighbourStep(t *testing.T) {
	for _, c := range []struct {
		ahead time.Duration
		want  error
	}{{-60 * time.Second, ErrCode}, {-30 * time.Second, nil}, {0, nil}, {30 * time.Second, nil}, {60 * time.Second, ErrCode}} {
		b := newBench(t)
		b.enrol(t)
		now := b.clock.now.Add(10 * time.Minute)
		b.clock.now = now.Add(c.ahead)
		code := b.code(t)
		b.clock.now = now
		if err := b.SpendCode(t.Context(), "ana", code); !errors.Is(err, c.want) {
			t.Errorf("%v ahead: %v, want %v", c.ahead, err, c.want)
		}
	}
}

func waits(err error) bool {
	r := (*roster.Refusal)(nil)
	return errors.As(err, &r) && r.Kind == roster.TooMuch
}

func TestGuessingWaits(t *testing.T) {
	b := newBench(t)
	b.enrol(t)
	b.clock.now = b.clock.now.Add(time.Hour)
	for range freeTry {
		if err := b.SpendCode(t.Context(), "ana", "x"); !errors.Is(err, ErrCode) {
			t.Fatal(err)
		}
	}
	if err := b.SpendCode(t.Context(), "ana", b.code(t)); !waits(err) {
		t.Errorf("the right code, too soon: %v", err)
	}
	b.clock.now = b.clock.now.Add(firstPut)
	if err := b.SpendCode(t.Context(), "ana", b.code(t)); err != nil {
		t.Errorf("the right code after the wait: %v", err)
	}
	if n := b.store.factors["ana"].Failures; n != 0 {
		t.Errorf("%d failures after a right code", n)
	}
	for range 100 {
		b.clock.now = b.clock.now.Add(mostPut)
		if err := b.SpendCode(t.Context(), "ana", "x"); !errors.Is(err, ErrCode) {
			t.Fatalf("nobody waits longer than %v: %v", mostPut, err)
		}
	}
}

func TestBoxIsOnePersons(t *testing.T) {
	b := newBench(t)
	sealed := b.Box.Seal("ana", []byte("secret"))
	if _, err := b.Box.Open("ben", sealed); err == nil {
		t.Error("ana's secret opens as ben's")
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadBox(short); err == nil {
		t.Error("a short key was taken")
	}
}
