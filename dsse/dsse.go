// Package dsse signs bytes and checks signatures on them, in one envelope.
//
// It follows DSSE (https://github.com/secure-systems-lab/dsse, protocol v1)
// with Ed25519 (RFC 8032): what is signed is the pre-authentication encoding
// of the payload's type and its bytes, so that a signature on one kind of
// message never counts for another. Payloads are carried verbatim and never
// parsed here. It knows no key of its own and trusts none.
package dsse

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"curfew.internal/canon"
)

// MaxSize bounds an envelope, in bytes.
const MaxSize = 1 << 20

// maxSignatures bounds the work that a hostile envelope can ask for.
const maxSignatures = 32

// Reasons for which an envelope is refused.
var (
	ErrTooLarge   = errors.New("envelope over 1 MiB")
	ErrType       = errors.New("envelope holds another kind of message")
	ErrSignatures = errors.New("not enough valid signatures")
)

// A Signature is one key's word on a payload.
type Signature struct {
	KeyID string
	Bytes []byte
}

// An Envelope is a payload, what it is, and who vouches for it.
type Envelope struct {
	Type       string
	Payload    []byte
	Signatures []Signature
}

// KeyID names a public key: the first 16 bytes of its SHA-256, in hex.
func KeyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:16])
}

// PAE is DSSE's pre-authentication encoding: the bytes that are signed.
func PAE(typ string, payload []byte) []byte {
	var b bytes.Buffer
	b.WriteString("DSSEv1 ")
	b.WriteString(strconv.Itoa(len(typ)))
	b.WriteByte(' ')
	b.WriteString(typ)
	b.WriteByte(' ')
	b.WriteString(strconv.Itoa(len(payload)))
	b.WriteByte(' ')
	b.Write(payload)
	return b.Bytes()
}

// Sign returns the payload in an envelope signed by each of the keys.
func Sign(typ string, payload []byte, keys ...ed25519.PrivateKey) Envelope {
	e := Envelope{Type: typ, Payload: payload}
	for _, k := range keys {
		public, _ := k.Public().(ed25519.PublicKey)
		e.Signatures = append(e.Signatures, Signature{KeyID(public), ed25519.Sign(k, PAE(typ, payload))})
	}
	return e
}

// Bytes is the envelope's canonical form.
func (e Envelope) Bytes() []byte {
	var w canon.Writer
	w.Text(1, e.Type)
	w.Blob(2, e.Payload)
	for _, s := range e.Signatures {
		var sw canon.Writer
		sw.Text(1, s.KeyID)
		sw.Blob(2, s.Bytes)
		w.Item(3, sw.Bytes())
	}
	return w.Bytes()
}

// Parse reads an envelope. It checks its form and none of its signatures.
func Parse(b []byte) (Envelope, error) {
	if len(b) > MaxSize {
		return Envelope{}, ErrTooLarge
	}
	var e Envelope
	err := canon.Read(b, func(f canon.Field) error {
		switch f.Num {
		case 1:
			return f.Text(&e.Type)
		case 2:
			return f.Blob(&e.Payload)
		case 3:
			s, err := readSignature(f)
			e.Signatures = append(e.Signatures, s)
			return err
		}
		return f.Unknown()
	})
	if err == nil {
		err = canon.Same(b, e.Bytes())
	}
	if err != nil {
		return Envelope{}, fmt.Errorf("envelope: %w", err)
	}
	return e, nil
}

func readSignature(f canon.Field) (Signature, error) {
	var s Signature
	err := f.Message(func(f canon.Field) error {
		switch f.Num {
		case 1:
			return f.Text(&s.KeyID)
		case 2:
			return f.Blob(&s.Bytes)
		}
		return f.Unknown()
	})
	return s, err
}

// Verify parses b and returns its payload if it is of type typ and at least
// need different keys signed it. Key returns the public key with an id, or
// nil; it is the caller's say in who counts. A signature by an unknown key is
// passed over; a false one by a known key refuses the envelope.
func Verify(b []byte, typ string, need int, key func(id string) ed25519.PublicKey) ([]byte, error) {
	e, err := Parse(b)
	if err != nil {
		return nil, err
	}
	if e.Type != typ {
		return nil, fmt.Errorf("%q in place of %q: %w", e.Type, typ, ErrType)
	}
	if len(e.Signatures) > maxSignatures {
		return nil, fmt.Errorf("%d signatures: %w", len(e.Signatures), ErrSignatures)
	}
	signed := PAE(e.Type, e.Payload)
	by := map[string]bool{}
	for _, s := range e.Signatures {
		public := key(s.KeyID)
		if len(public) != ed25519.PublicKeySize || KeyID(public) != s.KeyID {
			continue
		}
		if !ed25519.Verify(public, signed, s.Bytes) {
			return nil, fmt.Errorf("key %s: signature is false: %w", s.KeyID, ErrSignatures)
		}
		by[s.KeyID] = true
	}
	if need < 1 || len(by) < need {
		return nil, fmt.Errorf("%d of %d: %w", len(by), need, ErrSignatures)
	}
	return e.Payload, nil
}
