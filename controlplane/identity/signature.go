package identity

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// AskSignature asks a passkey of the person's to sign a digest that hosts will
// look for. The statement is what the digest is of; the answer brings it back.
func (d *Desk) AskSignature(ctx context.Context, person string, statement, digest []byte) (roster.Ceremony, error) {
	return d.askOwn(ctx, ticket{For: forGrant, Person: person, About: statement, Challenge: digest})
}

// SignPasskey takes the signature that the person's own passkey was asked for,
// and returns it as hosts read it, with the statement that it is on.
func (d *Desk) SignPasskey(ctx context.Context, person string, answer []byte) (statement, word []byte, err error) {
	k, t, err := d.answered(ctx, answer, forGrant)
	if err != nil {
		return nil, nil, err
	}
	if k.Person != person || t.Person != person {
		return nil, nil, ErrPasskey
	}
	var a roster.Answer
	if json.Unmarshal(answer, &a) != nil {
		return nil, nil, ErrPasskey
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(a.Answer)
	if err != nil {
		return nil, nil, ErrPasskey
	}
	r := parsed.Raw.AssertionResponse
	return t.About, grant.Assertion{
		Key: parsed.RawID, Authenticator: r.AuthenticatorData, Client: r.ClientDataJSON, Signature: r.Signature,
	}.Bytes(), nil
}

// Publics returns the public halves of a person's passkeys, as a roster names
// them. A passkey whose kind hosts do not take is left out.
func (d *Desk) Publics(ctx context.Context, person string) ([]grant.Passkey, error) {
	f, err := d.Store.Factors(ctx, person)
	if err != nil {
		return nil, err
	}
	var all []grant.Passkey
	for _, k := range f.Passkeys {
		if k.Locked {
			continue
		}
		c, err := d.openCredential(k)
		if err != nil {
			return nil, fmt.Errorf("passkey %q of %s: %w", k.Name, person, err)
		}
		der, ok := public(c.PublicKey)
		if p, err := grant.ReadPasskey(k.ID, der); ok && err == nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// public is a COSE key as a SubjectPublicKeyInfo, if it is of one of the kinds
// that hosts check.
func public(cose []byte) ([]byte, bool) {
	parsed, err := webauthncose.ParsePublicKey(cose)
	if k, ok := parsed.(webauthncose.RSAPublicKeyData); err != nil || ok && k.Algorithm != int64(webauthncose.AlgRS256) {
		return nil, false
	}
	block, _ := pem.Decode([]byte(webauthncose.DisplayPublicKey(cose)))
	if block == nil {
		return nil, false
	}
	return block.Bytes, true
}
