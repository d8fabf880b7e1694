// Package passkey is an authenticator in software, for tests: it makes
// passkeys and answers with them as a browser would.
//
// What a browser refuses, it does when it is told to: it lies about origins,
// leaves out the verification of its user and sets counters back.
package passkey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
)

// A Key is one passkey.
type Key struct {
	Origin     string // that the browser says it is on
	Party      string // relying party that the key is for; empty: the one that asks
	Unverified bool   // its user was not verified
	Counter    uint32

	id, handle []byte
	private    *ecdsa.PrivateKey
}

// New is a passkey that was not made yet.
func New(origin string) *Key { return &Key{Origin: origin} }

// Text is bytes as WebAuthn's JSON has them.
func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

type options struct {
	Challenge string `json:"challenge"`
	RP        struct {
		ID string `json:"id"`
	} `json:"rp"`
	RPID string `json:"rpId"`
	User struct {
		ID string `json:"id"`
	} `json:"user"`
}

func (k *Key) clientData(kind, challenge string) []byte {
	b, _ := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": k.Origin, "crossOrigin": false}) // always marshals
	return b
}

// authenticatorData is WebAuthn's, section 6.1.
func (k *Key) authenticatorData(party string, more []byte) []byte {
	if k.Party != "" {
		party = k.Party
	}
	sum := sha256.Sum256([]byte(party))
	flags := byte(0x01) // present
	if !k.Unverified {
		flags |= 0x04
	}
	if more != nil {
		flags |= 0x40
	}
	b := append(sum[:], flags)
	b = binary.BigEndian.AppendUint32(b, k.Counter)
	return append(b, more...)
}

// Make makes the key, and returns the browser's answer.
func (k *Key) Make(asked []byte) ([]byte, error) {
	var o options
	if err := json.Unmarshal(asked, &o); err != nil {
		return nil, fmt.Errorf("options: %w", err)
	}
	var err error
	if err = k.generate(); err != nil {
		return nil, err
	}
	if k.handle, err = base64.RawURLEncoding.DecodeString(o.User.ID); err != nil {
		return nil, err
	}
	point, err := k.private.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	public, err := webauthncbor.Marshal(webauthncose.EC2PublicKeyData{
		PublicKeyData: webauthncose.PublicKeyData{KeyType: int64(webauthncose.EllipticKey), Algorithm: int64(webauthncose.AlgES256)},
		Curve:         int64(webauthncose.P256), XCoord: point[1:33], YCoord: point[33:],
	})
	if err != nil {
		return nil, err
	}
	more := make([]byte, 16, 128) // no model
	more = binary.BigEndian.AppendUint16(more, uint16(len(k.id)))
	more = append(append(more, k.id...), public...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": k.authenticatorData(o.RP.ID, more)})
	if err != nil {
		return nil, err
	}
	return k.answer(map[string]any{"clientDataJSON": text(k.clientData("webauthn.create", o.Challenge)), "attestationObject": text(object), "transports": []string{"internal"}})
}

// Answer signs a challenge, and returns the browser's answer.
func (k *Key) Answer(asked []byte) ([]byte, error) {
	var o options
	if err := json.Unmarshal(asked, &o); err != nil {
		return nil, fmt.Errorf("options: %w", err)
	}
	p, err := k.sign(o.RPID, o.Challenge)
	if err != nil {
		return nil, err
	}
	return k.answer(map[string]any{
		"clientDataJSON": text(p.Client), "authenticatorData": text(p.Authenticator), "signature": text(p.Signature), "userHandle": text(k.handle),
	})
}

// Parts are what an answer is made of.
type Parts struct{ ID, Authenticator, Client, Signature []byte }

// Made is a passkey that no browser made: it is known to who asks for it alone.
func Made(origin string) (*Key, error) {
	k := New(origin)
	return k, k.generate()
}

// Public is the public half, as a SubjectPublicKeyInfo in DER.
func (k *Key) Public() ([]byte, error) { return x509.MarshalPKIXPublicKey(&k.private.PublicKey) }

// ID is the credential's.
func (k *Key) ID() []byte { return k.id }

// Sign signs a challenge, and returns the parts of the answer.
func (k *Key) Sign(party string, challenge []byte) (Parts, error) {
	return k.sign(party, text(challenge))
}

func (k *Key) sign(party, challenge string) (Parts, error) {
	k.Counter++
	p := Parts{ID: k.id, Client: k.clientData("webauthn.get", challenge), Authenticator: k.authenticatorData(party, nil)}
	hash := sha256.Sum256(p.Client)
	sum := sha256.Sum256(append(append([]byte{}, p.Authenticator...), hash[:]...))
	var err error
	p.Signature, err = ecdsa.SignASN1(rand.Reader, k.private, sum[:])
	return p, err
}

func (k *Key) generate() error {
	k.id = make([]byte, 16)
	_, _ = rand.Read(k.id) // never fails, crypto/rand
	var err error
	k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return err
}

func (k *Key) answer(response map[string]any) ([]byte, error) {
	return json.Marshal(map[string]any{
		"id": text(k.id), "rawId": text(k.id), "type": "public-key", "authenticatorAttachment": "platform", "clientExtensionResults": map[string]any{}, "response": response,
	})
}
