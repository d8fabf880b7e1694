package dsse

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"testing"
)

func key(seed string) ed25519.PrivateKey {
	s := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(s[:])
}

func known(keys ...ed25519.PrivateKey) func(string) ed25519.PublicKey {
	return func(id string) ed25519.PublicKey {
		for _, k := range keys {
			if p := k.Public().(ed25519.PublicKey); KeyID(p) == id {
				return p
			}
		}
		return nil
	}
}

// The vector of the DSSE specification, protocol.md.
func TestPAE(t *testing.T) {
	got := PAE("http://example.com/HelloWorld", []byte("hello world"))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestVerify(t *testing.T) {
	a, b, c := key("a"), key("b"), key("c")
	twice := Sign("x", []byte("hello"), a)
	twice.Signatures = append(twice.Signatures, twice.Signatures[0])
	over := Sign("x", []byte("other"), a)
	over.Payload = []byte("hello")
	renamed := Sign("x", []byte("hello"), b)
	renamed.Signatures[0].KeyID = KeyID(a.Public().(ed25519.PublicKey))
	for _, tc := range []struct {
		name string
		e    Envelope
		need int
		want error
	}{
		{"one of one", Sign("x", []byte("hello"), a), 1, nil},
		{"two of two", Sign("x", []byte("hello"), a, b), 2, nil},
		{"an unknown key beside a known one is passed over", Sign("x", []byte("hello"), c, a), 1, nil},
		{"one key twice counts once", twice, 2, ErrSignatures},
		{"an unknown key alone", Sign("x", []byte("hello"), c), 1, ErrSignatures},
		{"a signature over other bytes", over, 1, ErrSignatures},
		{"a signature under another key's name", renamed, 1, ErrSignatures},
		{"another type", Sign("y", []byte("hello"), a), 1, ErrType},
		{"none needed is a mistake, not a pass", Sign("x", []byte("hello")), 0, ErrSignatures},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Verify(tc.e.Bytes(), "x", tc.need, known(a, b))
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Fatalf("err = %v, want %v", err, tc.want)
			}
			if err == nil && string(got) != "hello" {
				t.Errorf("payload %q", got)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Sign("x", []byte("hello"), key("a")).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err == nil && !bytes.Equal(b, e.Bytes()) {
			t.Errorf("%x is read as %+v, which is written otherwise", b, e)
		}
	})
}
