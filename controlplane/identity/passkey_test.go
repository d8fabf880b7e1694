package identity

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/test/passkey"
)

const origin = "https://curfew.example"

// withPasskey is a bench at which ana has a passkey.
func withPasskey(t *testing.T) (*bench, *passkey.Key) {
	t.Helper()
	b := newBench(t)
	var err error
	if b.Passkeys, err = NewPasskeys("lab", origin); err != nil {
		t.Fatal(err)
	}
	k := passkey.New(origin)
	if _, err := b.enrolPasskey(t, "ana", k); err != nil {
		t.Fatal(err)
	}
	return b, k
}

func (b *bench) enrolPasskey(t *testing.T, name string, k *passkey.Key) (string, error) {
	t.Helper()
	secret, _, err := b.Invite(t.Context(), name, "root")
	if err != nil {
		t.Fatal(err)
	}
	person, c, err := b.AskEnrol(t.Context(), secret)
	if err != nil || person != name {
		t.Fatal(person, err)
	}
	made, err := k.Make(c.Options)
	cookie, _, err2 := b.EnrolPasskey(t.Context(), secret, brought(t, c, made, err), "phone", "a browser")
	return cookie, err2
}

// brought is what a browser sends of an answer.
func brought(t *testing.T, c roster.Ceremony, answer []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(roster.Answer{Token: c.Token, Answer: answer})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// proof is ana's passkey's answer for something.
func (b *bench) proof(t *testing.T, k *passkey.Key, about string) []byte {
	t.Helper()
	c, err := b.AskPasskey(t.Context(), "ana", []byte(about))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := k.Answer(c.Options)
	return brought(t, c, answer, err)
}

// try is one go at proving ana.
type try struct {
	*testing.T
	b *bench
	k *passkey.Key
}

func (t try) proof(about string) []byte { return t.b.proof(t.T, t.k, about) }

func TestPasskeyProves(t *testing.T) {
	for _, c := range []struct {
		name  string
		alter func(try) (answer []byte, person, about string)
		want  error
	}{
		{"as it should be", func(t try) ([]byte, string, string) {
			return t.proof("r1"), "ana", "r1"
		}, nil},
		{"for something else", func(t try) ([]byte, string, string) {
			return t.proof("r1"), "ana", "r2"
		}, ErrPasskey},
		{"for somebody else", func(t try) ([]byte, string, string) {
			return t.proof("r1"), "ben", "r1"
		}, ErrPasskey},
		{"on a page of another origin", func(t try) ([]byte, string, string) {
			t.k.Origin = "https://curfew.example.evil"
			return t.proof("r1"), "ana", "r1"
		}, ErrPasskey},
		{"on the right name, without TLS", func(t try) ([]byte, string, string) {
			t.k.Origin = "http://curfew.example"
			return t.proof("r1"), "ana", "r1"
		}, ErrPasskey},
		{"on another port", func(t try) ([]byte, string, string) {
			t.k.Origin = origin + ":8443"
			return t.proof("r1"), "ana", "r1"
		}, ErrPasskey},
		{"for another relying party", func(t try) ([]byte, string, string) {
			t.k.Party = "example"
			return t.proof("r1"), "ana", "r1"
		}, ErrPasskey},
		{"without verifying its user", func(t try) ([]byte, string, string) {
			t.k.Unverified = true
			return t.proof("r1"), "ana", "r1"
		}, ErrPasskey},
		{"by ben's passkey", func(t try) ([]byte, string, string) {
			other := passkey.New(origin)
			if _, err := t.b.enrolPasskey(t.T, "ben", other); err != nil {
				t.Fatal(err)
			}
			return t.b.proof(t.T, other, "r1"), "ana", "r1"
		}, ErrPasskey},
		{"after five minutes", func(t try) ([]byte, string, string) {
			a := t.proof("r1")
			t.b.clock.now = t.b.clock.now.Add(ceremonyLife)
			return a, "ana", "r1"
		}, ErrLate},
		{"with the ticket of another challenge", func(t try) ([]byte, string, string) {
			var one, two roster.Answer
			_, _ = json.Unmarshal(t.proof("r1"), &one), json.Unmarshal(t.proof("r2"), &two)
			two.Answer = one.Answer
			a, _ := json.Marshal(two)
			return a, "ana", "r2"
		}, ErrPasskey},
		{"with what signs in", func(t try) ([]byte, string, string) {
			c, err := t.b.AskSignIn()
			if err != nil {
				t.Fatal(err)
			}
			answer, err := t.k.Answer(c.Options)
			return brought(t.T, c, answer, err), "ana", ""
		}, ErrLate},
		{"with a forged ticket", func(t try) ([]byte, string, string) {
			a := string(t.proof("r1"))
			return []byte(strings.Replace(a, `"token":"`, `"token":"A`, 1)), "ana", "r1"
		}, ErrLate},
		{"with no answer", func(try) ([]byte, string, string) { return nil, "ana", "r1" }, ErrPasskey},
		{"with an empty answer", func(try) ([]byte, string, string) {
			return []byte(`{"token":"","answer":{}}`), "ana", "r1"
		}, ErrPasskey},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, k := withPasskey(t)
			answer, person, about := c.alter(try{t, b, k})
			if err := b.ProvePasskey(t.Context(), person, answer, []byte(about)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestPasskeyAnswersOnce(t *testing.T) {
	b, k := withPasskey(t)
	a := b.proof(t, k, "r1")
	if err := b.ProvePasskey(t.Context(), "ana", a, []byte("r1")); err != nil {
		t.Fatal(err)
	}
	if err := b.ProvePasskey(t.Context(), "ana", a, []byte("r1")); !errors.Is(err, ErrLate) {
		t.Errorf("again: %v", err)
	}
}

func TestCopiedPasskeyIsLocked(t *testing.T) {
	b, k := withPasskey(t)
	k.Counter = 7
	if err := b.ProvePasskey(t.Context(), "ana", b.proof(t, k, "r1"), []byte("r1")); err != nil {
		t.Fatal(err)
	}
	k.Counter = 3 // the copy has seen less
	if err := b.ProvePasskey(t.Context(), "ana", b.proof(t, k, "r2"), []byte("r2")); !errors.Is(err, ErrLocked) {
		t.Errorf("a copy: %v", err)
	}
	if _, err := b.AskPasskey(t.Context(), "ana", []byte("r3")); !errors.Is(err, ErrNoPasskey) {
		t.Errorf("the original, after that: %v", err)
	}
	k.Counter = 20
	c, err := b.AskSignIn()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := k.Answer(c.Options)
	if _, _, err := b.SignIn(t.Context(), brought(t, c, answer, err), "x"); !errors.Is(err, ErrLocked) {
		t.Errorf("it signs in: %v", err)
	}
}

func TestBrowserSession(t *testing.T) {
	b, k := withPasskey(t)
	c, err := b.AskSignIn()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := k.Answer(c.Options)
	secret, s, err := b.SignIn(t.Context(), brought(t, c, answer, err), "Firefox on Linux")
	if err != nil || s.Person != "ana" || !s.Browser || s.Name != "Firefox on Linux" {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, p, err := b.Browser(t.Context(), secret); err != nil || p.Name != "ana" {
		t.Errorf("%v, %v", p, err)
	}
	if _, _, err := b.Browser(t.Context(), s.ID); !errors.Is(err, ErrOver) {
		t.Errorf("the session's id, which lists show, signs in: %v", err)
	}
	b.clock.now = b.clock.now.Add(BrowserLife)
	if _, _, err := b.Browser(t.Context(), secret); !errors.Is(err, ErrOver) {
		t.Errorf("it lasts: %v", err)
	}
}

func TestOneMorePasskey(t *testing.T) {
	b, k := withPasskey(t)
	more := passkey.New(origin)
	c, err := b.AskAnother(t.Context(), "ana")
	if err != nil {
		t.Fatal(err)
	}
	made, err := more.Make(c.Options)
	answer := brought(t, c, made, err)
	if err := b.AddPasskey(t.Context(), "ben", answer, "stolen"); !errors.Is(err, ErrPasskey) {
		t.Errorf("ben adds ana's: %v", err)
	}
	if err := b.AddPasskey(t.Context(), "ana", answer, "key"); !errors.Is(err, ErrLate) {
		t.Errorf("what ben tried counts no more: %v", err)
	}
	c, err = b.AskAnother(t.Context(), "ana")
	if err != nil {
		t.Fatal(err)
	}
	made, err = more.Make(c.Options)
	if err := b.AddPasskey(t.Context(), "ana", brought(t, c, made, err), "key"); err != nil {
		t.Fatal(err)
	}
	for _, one := range []*passkey.Key{k, more} {
		if err := b.ProvePasskey(t.Context(), "ana", b.proof(t, one, "r1"), []byte("r1")); err != nil {
			t.Errorf("one of both: %v", err)
		}
	}
}

func TestEnrolWithPasskeyOnce(t *testing.T) {
	b, _ := withPasskey(t)
	secret, _, _ := b.Invite(t.Context(), "ana", "root")
	_, c, err := b.AskEnrol(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	k := passkey.New("https://evil.example")
	made, err := k.Make(c.Options)
	if _, _, err := b.EnrolPasskey(t.Context(), secret, brought(t, c, made, err), "x", "x"); !errors.Is(err, ErrPasskey) {
		t.Errorf("made on another site: %v", err)
	}
	other, _, _ := b.Invite(t.Context(), "ben", "root")
	_, c, err = b.AskEnrol(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	k.Origin = origin
	made, err = k.Make(c.Options)
	if _, _, err := b.EnrolPasskey(t.Context(), secret, brought(t, c, made, err), "x", "x"); !errors.Is(err, ErrInvite) {
		t.Errorf("ben's ceremony with ana's code: %v", err)
	}
	if _, _, err := b.AskEnrol(t.Context(), "guess"); !errors.Is(err, ErrInvite) {
		t.Errorf("a guessed code: %v", err)
	}
	b.clock.now = b.clock.now.Add(InviteLife)
	if _, _, err := b.AskEnrol(t.Context(), secret); !errors.Is(err, ErrInvite) {
		t.Errorf("an old code: %v", err)
	}
}

func TestLinkSignsInOnce(t *testing.T) {
	b, _ := withPasskey(t)
	b.enrol(t)
	var s roster.Session
	for _, one := range b.store.sessions {
		if len(one.Device) > 0 {
			s = one
		}
	}
	link := func() string {
		l, err := b.Link(s)
		if err != nil {
			t.Fatal(err)
		}
		_, token, ok := strings.Cut(l.URL, origin+"/link#")
		if !ok {
			t.Fatal(l.URL)
		}
		return token
	}
	one, late, orphan := link(), link(), link()
	if _, v, err := b.FollowLink(t.Context(), one, "x"); err != nil || v.Person != "ana" {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, _, err := b.FollowLink(t.Context(), one, "x"); !errors.Is(err, ErrLink) {
		t.Errorf("again: %v", err)
	}
	delete(b.store.sessions, s.ID)
	if _, _, err := b.FollowLink(t.Context(), orphan, "x"); !errors.Is(err, ErrLink) {
		t.Errorf("of a session that is over: %v", err)
	}
	b.store.sessions[s.ID] = s
	b.clock.now = b.clock.now.Add(LinkLife + time.Second)
	if _, _, err := b.FollowLink(t.Context(), late, "x"); !errors.Is(err, ErrLink) {
		t.Errorf("late: %v", err)
	}
}

func FuzzPasskeyAnswer(f *testing.F) {
	f.Add([]byte(`{"token":"x","answer":{"id":"AA","rawId":"AA","type":"public-key","response":{}}}`))
	f.Add([]byte(`{"token":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, _ := withPasskey(t)
		if err := w.ProvePasskey(t.Context(), "ana", b, nil); err == nil {
			t.Errorf("%q proves ana", b)
		}
	})
}
