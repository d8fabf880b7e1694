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
	if k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if k.handle, err = base64.RawURLEncoding.DecodeString(o.User.ID); err != nil {
		return nil, err
	}
	k.id = make([]byte, 16)
	_, _ = rand.Read(k.id) // never fails, crypto/rand
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
	k.Counter++
	client, data := k.clientData("webauthn.get", o.Challenge), k.authenticatorData(o.RPID, nil)
	hash := sha256.Sum256(client)
	sum := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, sum[:])
	if err != nil {
		return nil, err
	}
	return k.answer(map[string]any{
		"clientDataJSON": text(client), "authenticatorData": text(data), "signature": text(signature), "userHandle": text(k.handle),
	})
}

func (k *Key) answer(response map[string]any) ([]byte, error) {
	return json.Marshal(map[string]any{
		"id": text(k.id), "rawId": text(k.id), "type": "public-key", "authenticatorAttachment": "platform", "clientExtensionResults": map[string]any{}, "response": response,
	})
}
