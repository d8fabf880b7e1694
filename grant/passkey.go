package grant

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"curfew.internal/canon"
)

// maxPart bounds each part of an assertion, in bytes.
const maxPart = 4096

// ErrAssertion is the class of reasons for which a passkey's word does not
// count.
var ErrAssertion = errors.New("a passkey's signature does not count")

// An Assertion is a passkey's word, as the browser handed it on
// (https://www.w3.org/TR/webauthn-3/#sctn-verifying-assertion). Every part is
// carried verbatim.
type Assertion struct {
	Key           []byte // id of the credential
	Authenticator []byte // authenticatorData
	Client        []byte // clientDataJSON
	Signature     []byte
}

// Authenticator data, by the specification: the hash of the relying party, a
// byte of flags, a counter of four bytes, and, where its flag says so, extensions.
const (
	flagsAt        = sha256.Size
	leastData      = flagsAt + 1 + 4
	userPresent    = 0x01
	userVerified   = 0x04
	holdsKey       = 0x40
	holdsExtension = 0x80
)

// check reports whether the assertion is by a key of the member's, on a page of
// ours, for the challenge, with its user present and verified. The counter says
// nothing here: a host does not see every use of a key.
func (s Roster) check(m Member, a Assertion, challenge []byte) error {
	i := slices.IndexFunc(m.Keys, func(k Passkey) bool { return bytes.Equal(k.ID, a.Key) })
	if i < 0 {
		return fmt.Errorf("%s: %w: the roster does not name this passkey as hers", m.Name, ErrAssertion)
	}
	err := s.checkClient(a.Client, challenge)
	if err == nil {
		err = s.checkAuthenticator(a.Authenticator)
	}
	if err == nil {
		err = m.Keys[i].verify(a)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", m.Name, ErrAssertion, err)
	}
	return nil
}

func (s Roster) checkClient(text, challenge []byte) error {
	var c struct {
		Type        string `json:"type"`
		Challenge   string `json:"challenge"`
		Origin      string `json:"origin"`
		CrossOrigin bool   `json:"crossOrigin"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return errors.New("what the browser says is no JSON")
	}
	got, err := base64.RawURLEncoding.Strict().DecodeString(c.Challenge)
	switch {
	case c.Type != "webauthn.get":
		return fmt.Errorf("it is for %s", quote(c.Type))
	case err != nil || !bytes.Equal(got, challenge):
		return errors.New("it is for something else")
	case !slices.Contains(s.Origins, c.Origin) || c.CrossOrigin:
		return fmt.Errorf("it was given on a page of %s", quote(c.Origin))
	}
	return nil
}

func (s Roster) checkAuthenticator(data []byte) error {
	party := sha256.Sum256([]byte(s.Party))
	if len(data) < leastData || !bytes.Equal(data[:flagsAt], party[:]) {
		return errors.New("it is for another relying party")
	}
	flags := data[flagsAt]
	switch {
	case flags&userPresent == 0 || flags&userVerified == 0:
		return errors.New("its user was not verified")
	case flags&holdsKey != 0 || (flags&holdsExtension == 0) != (len(data) == leastData):
		return errors.New("its data is of another form")
	}
	return nil
}

// verify checks the signature alone.
func (k Passkey) verify(a Assertion) error {
	public, err := publicKey(k.Public)
	if err != nil {
		return err
	}
	client := sha256.Sum256(a.Client)
	signed := slices.Concat(a.Authenticator, client[:])
	sum := sha256.Sum256(signed)
	good := false
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(key, sum[:], a.Signature)
	case ed25519.PublicKey:
		good = ed25519.Verify(key, signed, a.Signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], a.Signature) == nil
	}
	if !good {
		return errors.New("it is false")
	}
	return nil
}

// publicKey reads a key of one of the three kinds that passkeys have: ES256,
// EdDSA and RS256.
func publicKey(der []byte) (any, error) {
	public, err := x509.ParsePKIXPublicKey(der)
	if err == nil {
		// One spelling only, so that one key is not taken for two.
		var again []byte
		if again, err = x509.MarshalPKIXPublicKey(public); err == nil {
			err = canon.Same(der, again)
		}
	}
	if err != nil {
		return nil, errors.New("its public key cannot be read")
	}
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return key, nil
		}
	case ed25519.PublicKey:
		return key, nil
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n >= 2048 && n <= 4096 {
			return key, nil
		}
	}
	return nil, errors.New("its public key is none of P-256, Ed25519 and RSA of 2048 to 4096 bits")
}

// ReadPasskey checks a passkey's public half, and takes it for a roster.
func ReadPasskey(id, der []byte) (Passkey, error) {
	_, err := publicKey(der)
	return Passkey{ID: id, Public: der}, err
}

// Bytes is the assertion's canonical form.
func (a Assertion) Bytes() []byte {
	var w canon.Writer
	w.Blob(1, a.Key)
	w.Blob(2, a.Authenticator)
	w.Blob(3, a.Client)
	w.Blob(4, a.Signature)
	return w.Bytes()
}

func (a *Assertion) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Blob(&a.Key)
	case 2:
		return f.Blob(&a.Authenticator)
	case 3:
		return f.Blob(&a.Client)
	case 4:
		return f.Blob(&a.Signature)
	}
	return f.Unknown()
}

// ParseAssertion reads one.
func ParseAssertion(b []byte) (Assertion, error) {
	var a Assertion
	err := canon.Read(b, a.field)
	if err == nil {
		err = canon.Same(b, a.Bytes())
	}
	if err == nil {
		err = a.bounded()
	}
	return a, err
}

func (a Assertion) bounded() error {
	for _, part := range [][]byte{a.Key, a.Authenticator, a.Client, a.Signature} {
		if len(part) < 1 || len(part) > maxPart {
			return fmt.Errorf("a part of a passkey's signature has %d bytes, not 1 to %d", len(part), maxPart)
		}
	}
	return nil
}
