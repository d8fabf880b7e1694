package grant

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/dsse"
	"curfew.internal/test/passkey"
)

const (
	party  = "curfew.example"
	origin = "https://curfew.example"
)

// folk are people with their passkeys, and the roster that names them.
type folk struct {
	t      *testing.T
	keys   map[string]*passkey.Key
	roster Roster
}

// newFolk are ana, who asks, and ben and cy, who approve.
func newFolk(t *testing.T) *folk {
	t.Helper()
	f := &folk{t: t, keys: map[string]*passkey.Key{}}
	f.roster = Roster{
		Fleet: "example", Version: 1, Expires: noon.Add(90 * 24 * time.Hour), Threshold: 2, Owners: owners("o1", "o2", "o3"),
		Party: party, Origins: []string{origin}, Approvals: 1,
	}
	for _, name := range []string{"ana", "ben", "cy"} {
		k, err := passkey.Made(origin)
		if err != nil {
			t.Fatal(err)
		}
		public, err := k.Public()
		if err != nil {
			t.Fatal(err)
		}
		f.keys[name] = k
		f.roster.Members = append(f.roster.Members, Member{Name: name, Approves: name != "ana", Keys: []Passkey{{ID: k.ID(), Public: public}}})
	}
	return f
}

// owners are public keys in the order that a roster has them.
func owners(seeds ...string) []ed25519.PublicKey {
	var all []ed25519.PublicKey
	for _, s := range seeds {
		all = append(all, public(key(s)))
	}
	slices.SortFunc(all, func(a, b ed25519.PublicKey) int { return bytes.Compare(a, b) })
	return all
}

func (f *folk) word(name string, challenge []byte) Assertion {
	f.t.Helper()
	p, err := f.keys[name].Sign(party, challenge)
	if err != nil {
		f.t.Fatal(err)
	}
	return Assertion{Key: p.ID, Authenticator: p.Authenticator, Client: p.Client, Signature: p.Signature}
}

// asks is what ana asks for: root on two hosts, for two hours.
func asks() Grant {
	g := example()
	g.Role = Role{Name: "root", RunAs: []string{"root"}, AnyCommand: true, Signed: true}
	g.Approvals = nil
	g.Words = &Words{Hosts: g.Hosts, Length: 2 * time.Hour, Needed: 1, Shown: make([]byte, 32)}
	return g
}

// signs has ana sign for what g asks.
func (f *folk) signs(g Grant) Grant {
	f.t.Helper()
	g.Digest = g.asked().Digest()
	g.Words.Asked = f.word("ana", g.Digest)
	return g
}

// says has somebody sign a yes to it.
func (f *folk) says(g Grant, name string, y Yes) Grant {
	f.t.Helper()
	y.Ask, y.Person = g.Digest, name
	if y.At.IsZero() {
		y.At = noon
	}
	w := *g.Words
	w.Approvals = append(slices.Clone(w.Approvals), Approved{Hosts: y.Hosts, Length: y.Length, Word: f.word(name, y.Digest())})
	g.Words = &w
	g.Approvals = append(slices.Clone(g.Approvals), Evidence{Person: name, Factor: "passkey", At: y.At})
	return g
}

// good is a grant that ana asked for and ben approved, with their keys.
func (f *folk) good() Grant {
	f.t.Helper()
	return f.says(f.signs(asks()), "ben", Yes{})
}

// on is what db1 says of the grant, as the control plane sends it: the grant
// key is in the wrong hands, and signs whatever it is told to.
func (f *folk) on(g Grant, at time.Time, roster *Roster) error {
	f.t.Helper()
	r := Reader{Fleet: "example", Host: "db1", Roster: roster, Ring: Keyring{Fleet: "example", Version: 1, Keys: []Key{{public(key("grant")), noon.AddDate(-1, 0, 0), noon.AddDate(2, 0, 0)}}}}
	s := Set{Fleet: "example", Host: "db1", Revision: 7, IssuedAt: noon, Grants: [][]byte{dsse.Sign(Type, g.Bytes(), key("grant")).Bytes()}}
	o, err := r.Open(dsse.Sign(SetType, s.Bytes(), key("grant")).Bytes(), at)
	if err != nil {
		f.t.Fatal(err)
	}
	if len(o.Grants)+len(o.Refused) != 1 {
		f.t.Fatalf("%+v", o)
	}
	return errors.Join(o.Refused...)
}

func TestSignedGrantIsTaken(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(*folk) Grant
	}{
		{"asked for and approved", (*folk).good},
		{"approved for less, and given for that", func(f *folk) Grant {
			g := f.says(f.signs(asks()), "ben", Yes{Hosts: []string{"db1"}, Length: time.Hour})
			g.Hosts, g.NotAfter = []string{"db1"}, noon.Add(time.Hour)
			return g
		}},
		{"given for less than was signed", func(f *folk) Grant {
			g := f.good()
			g.NotAfter = noon.Add(time.Minute)
			return g
		}},
		{"approved by two, and begun within five minutes of the last", func(f *folk) Grant {
			g := f.says(f.says(f.signs(asks()), "cy", Yes{At: noon.Add(-time.Hour)}), "ben", Yes{At: noon.Add(-5 * time.Minute)})
			return g
		}},
		{"asked for ahead, and begun then", func(f *folk) Grant {
			g := asks()
			g.Words.Start = noon.Add(9 * time.Hour)
			g = f.says(f.signs(g), "ben", Yes{})
			g.NotBefore, g.NotAfter = noon.Add(9*time.Hour), noon.Add(11*time.Hour)
			return g
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFolk(t)
			if err := f.on(c.make(f), noon, &f.roster); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whoever has the grant key can send what he likes. Without what people signed
// for this very thing, no host takes it.
func TestStolenGrantKeyGivesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(*folk) Grant
		want error
	}{
		{"without any signature, and without the mark", func(*folk) Grant {
			g := asks()
			g.Role.Signed, g.Words = false, nil
			return g
		}, ErrUnsigned},
		{"the mark taken off what was signed", func(f *folk) Grant {
			g := f.good()
			g.Role.Signed, g.Words = false, nil
			return g
		}, ErrUnsigned},
		{"the same commands under another role's name", func(*folk) Grant {
			g := asks()
			g.Role.Signed, g.Words, g.Role.Name = false, nil, "harmless"
			return g
		}, ErrUnsigned},
		{"one command as root in a role of one's own making", func(*folk) Grant {
			g := asks()
			g.Words, g.Role = nil, Role{Name: "look", RunAs: []string{"nobody", "root"}, Commands: []Command{{Path: "/bin/sh"}}}
			return g
		}, ErrUnsigned},
		{"lengthened", func(f *folk) Grant {
			g := f.good()
			g.NotAfter = g.NotAfter.Add(time.Second)
			return g
		}, ErrWider},
		{"lengthened, and what was asked for changed to fit", func(f *folk) Grant {
			g := f.good()
			w := *g.Words
			w.Length, g.Words, g.NotAfter = 3*time.Hour, &w, g.NotAfter.Add(time.Hour)
			return g
		}, ErrOtherAsked},
		{"and the digest too", func(f *folk) Grant {
			g := f.good()
			w := *g.Words
			w.Length, g.Words, g.NotAfter = 3*time.Hour, &w, g.NotAfter.Add(time.Hour)
			g.Digest = g.asked().Digest()
			return g
		}, ErrAssertion},
		{"longer than the approver said", func(f *folk) Grant {
			return f.says(f.signs(asks()), "ben", Yes{Length: time.Hour})
		}, ErrWider},
		{"the approver's less left out", func(f *folk) Grant {
			g := f.says(f.signs(asks()), "ben", Yes{Length: time.Hour})
			g.Words.Approvals[0].Length = 0
			return g
		}, ErrAssertion},
		{"on a host that the approver left out", func(f *folk) Grant {
			return f.says(f.signs(asks()), "ben", Yes{Hosts: []string{"db1"}})
		}, ErrWider},
		{"on a host that was not asked for", func(f *folk) Grant {
			g := f.good()
			g.Hosts = []string{"db1", "db2", "web1"}
			return g
		}, ErrWider},
		{"for another person", func(f *folk) Grant {
			g := f.good()
			g.Person.Name, g.Asked.Person = "cy", "cy"
			return g
		}, ErrOtherAsked},
		{"for another uid", func(f *folk) Grant {
			g := f.good()
			g.Person.UID++
			return g
		}, ErrOtherAsked},
		{"for another role", func(f *folk) Grant {
			g := f.good()
			g.Role.RunAs = []string{"postgres", "root"}
			return g
		}, ErrOtherAsked},
		{"with another reason", func(f *folk) Grant {
			g := f.good()
			g.Reason = "none of your business"
			return g
		}, ErrOtherAsked},
		{"without its lease", func(f *folk) Grant {
			g := f.good()
			g.Lease = 0
			return g
		}, ErrOtherAsked},
		{"again, after its end", func(f *folk) Grant {
			g := f.good()
			g.NotBefore, g.NotAfter = noon.Add(3*time.Hour), noon.Add(5*time.Hour)
			return g
		}, ErrWider},
		{"again, after its end, with a later yes written in", func(f *folk) Grant {
			g := f.good()
			g.NotBefore, g.NotAfter, g.Approvals[0].At = noon.Add(3*time.Hour), noon.Add(5*time.Hour), noon.Add(3*time.Hour)
			return g
		}, ErrAssertion},
		{"begun before it was approved", func(f *folk) Grant {
			g := f.good()
			g.NotBefore, g.NotAfter = noon.Add(-time.Hour), noon.Add(time.Hour)
			return g
		}, ErrWider},
		{"asked for ahead, and begun at once", func(f *folk) Grant {
			g := asks()
			g.Words.Start = noon.Add(9 * time.Hour)
			return f.says(f.signs(g), "ben", Yes{})
		}, ErrWider},
		{"without an approval", func(f *folk) Grant { return f.signs(asks()) }, ErrFewApproved},
		{"with one of the two approvals that were asked for", func(f *folk) Grant {
			g := asks()
			g.Words.Needed = 2
			return f.says(f.signs(g), "ben", Yes{})
		}, ErrFewApproved},
		{"approved by somebody who may not", func(f *folk) Grant {
			f.roster.Members[1].Approves = false
			return f.good()
		}, ErrNoApprover},
		{"approved by somebody whom the roster does not name", func(f *folk) Grant {
			g := f.good()
			f.roster.Members = f.roster.Members[:1]
			return g
		}, ErrNoApprover},
		{"asked for by somebody whom the roster does not name", func(f *folk) Grant {
			g := f.good()
			f.roster.Members = f.roster.Members[1:]
			return g
		}, ErrNoMember},
		{"the yes to another request", func(f *folk) Grant {
			other := asks()
			other.Request = "r-qrstuvwxyzabcdef"
			old, g := f.says(f.signs(other), "ben", Yes{}), f.signs(asks())
			g.Approvals, g.Words.Approvals = old.Approvals, old.Words.Approvals
			return g
		}, ErrAssertion},
		{"the approver's yes passed off as another's", func(f *folk) Grant {
			g := f.good()
			g.Approvals[0].Person = "cy"
			return g
		}, ErrAssertion},
		{"what signs in passed off as a yes", func(f *folk) Grant {
			g := f.good()
			g.Words.Approvals[0].Word = f.word("ben", bytes.Repeat([]byte{7}, 32))
			return g
		}, ErrAssertion},
		{"what was asked for passed off as a yes", func(f *folk) Grant {
			g := f.good()
			g.Words.Approvals[0].Word = f.word("ben", g.Digest)
			return g
		}, ErrAssertion},
		{"with keys that the control plane made itself", func(f *folk) Grant {
			return newFolk(f.t).good()
		}, ErrAssertion},
		{"on a page of another origin", func(f *folk) Grant {
			f.keys["ben"].Origin = "https://curfew.evil"
			return f.good()
		}, ErrAssertion},
		{"for another relying party", func(f *folk) Grant {
			f.keys["ben"].Party = "evil"
			return f.good()
		}, ErrAssertion},
		{"without verifying the user", func(f *folk) Grant {
			f.keys["ben"].Unverified = true
			return f.good()
		}, ErrAssertion},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFolk(t)
			if err := f.on(c.make(f), noon, &f.roster); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestWithoutARosterThatHolds(t *testing.T) {
	f := newFolk(t)
	g := f.good()
	plain := example()
	for _, c := range []struct {
		name   string
		g      Grant
		roster *Roster
		at     time.Time
		want   error
	}{
		{"no roster", g, nil, noon, ErrNoRoster},
		{"no roster, and a role that asks for none", plain, nil, noon, nil},
		{"a roster that cannot be read", g, &Roster{All: true}, noon, ErrBadRoster},
		{"a roster that cannot be read, and a role that asks for none", plain, &Roster{All: true}, noon, ErrBadRoster},
		{"up to its end", g, &f.roster, f.roster.Expires.Add(-1), nil},
		{"and not at its end", g, &f.roster, f.roster.Expires, ErrRosterOver},
		{"an expired roster still demands", plain, &f.roster, f.roster.Expires, ErrRosterOver},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := f.on(c.g, c.at, c.roster); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// Each kind of key that passkeys have.
func TestKindsOfPasskeys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(party))
	data := append(sum[:], userPresent|userVerified, 0, 0, 0, 1)
	client := fmt.Appendf(nil, `{"type":"webauthn.get","challenge":%q,"origin":%q,"crossOrigin":false}`, base64.RawURLEncoding.EncodeToString([]byte("it")), origin)
	hash := sha256.Sum256(client)
	signed := slices.Concat(data, hash[:])
	digest := sha256.Sum256(signed)
	byRSA, err := rsa.SignPKCS1v15(rand.Reader, rs, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	by384, err := ecdsa.SignASN1(rand.Reader, p384, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		public any
		sig    []byte
		good   bool
	}{
		{"Ed25519", ed.Public(), ed25519.Sign(ed, signed), true},
		{"RSA", &rs.PublicKey, byRSA, true},
		{"P-384, which is none of the three", &p384.PublicKey, by384, false},
		{"a signature by the other", ed.Public(), byRSA, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			der, err := x509.MarshalPKIXPublicKey(c.public)
			if err != nil {
				t.Fatal(err)
			}
			s := Roster{Party: party, Origins: []string{origin}}
			m := Member{Name: "ana", Keys: []Passkey{{ID: []byte("k"), Public: der}}}
			err = s.check(m, Assertion{Key: []byte("k"), Authenticator: data, Client: client, Signature: c.sig}, []byte("it"))
			if (err == nil) != c.good {
				t.Error(err)
			}
		})
	}
}

// A grant that was signed reads back as it was written, and no byte of it can
// be changed without the host refusing it.
func TestNoChangedByteOfASignedGrant(t *testing.T) {
	f := newFolk(t)
	whole := f.good().Bytes()
	g, err := Parse(whole)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f.good().Role, g.Role, exact...); diff != "" {
		t.Error(diff)
	}
	// What nobody signs: the grant's own id, the full name, and the words for
	// the factors. They give nothing.
	free := func(g Grant) Grant {
		g.ID, g.Person.FullName, g.Asked.Factor = "", "", ""
		g.Approvals = slices.Clone(g.Approvals)
		g.Approvals[0].Factor = ""
		return g
	}
	r := Reader{Fleet: "example", Host: "db1", Roster: &f.roster}
	for i := range whole {
		for _, bit := range []byte{1, 0x80} {
			bad := bytes.Clone(whole)
			bad[i] ^= bit
			got, err := Parse(bad)
			if err != nil || r.CheckSigned(got, noon) != nil {
				continue
			}
			less := got.NotAfter.Before(g.NotAfter) && got.NotBefore.Equal(g.NotBefore)
			if less {
				got.NotAfter = g.NotAfter
			}
			if later := got.NotBefore.Sub(g.NotBefore); later > 0 && later <= AnswerWithin {
				got.NotBefore = g.NotBefore // it only loses time
			}
			if diff := cmp.Diff(free(g), free(got), exact...); diff != "" {
				t.Fatalf("byte %d changed by %#x was taken: %s", i, bit, diff)
			}
		}
	}
}

// Whatever stands where a passkey's word should, nothing counts but hers.
func FuzzAssertion(f *testing.F) {
	k, err := passkey.Made(origin)
	if err != nil {
		f.Fatal(err)
	}
	der, err := k.Public()
	if err != nil {
		f.Fatal(err)
	}
	p, err := k.Sign(party, []byte("another thing"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Authenticator, p.Client, p.Signature)
	s := Roster{Party: party, Origins: []string{origin}}
	m := Member{Name: "ana", Keys: []Passkey{{ID: k.ID(), Public: der}}}
	f.Fuzz(func(t *testing.T, data, client, signature []byte) {
		if s.check(m, Assertion{Key: k.ID(), Authenticator: data, Client: client, Signature: signature}, []byte("it")) == nil {
			t.Errorf("%x %q %x counts for what she did not sign", data, client, signature)
		}
	})
}
