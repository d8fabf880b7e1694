package sign

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// ErrUserKey is the class of refusals of a person's SSH key.
var ErrUserKey = roster.Refuse(roster.Invalid, "this SSH key is not taken: use ed25519 (ssh-keygen -t ed25519), ecdsa, or rsa of 3072 bits and more")

// minRSA is NIST SP 800-57's size for use beyond 2030.
const minRSA = 3072

// sshSkew is how far before now a certificate is good, for hosts whose clocks
// are behind.
const sshSkew = 30 * time.Second

// SSHCA is the public half of the SSH certificate key, in authorized_keys
// format.
func (a *Authority) SSHCA() string { return string(ssh.MarshalAuthorizedKey(a.ssh.PublicKey())) }

// SignUser signs the key, in authorized_keys format, for the grant's person
// until the grant's end. A host takes it only while the grant stands there:
// the grant's id is the principal.
func (a *Authority) SignUser(userKey string, g grant.Grant, now time.Time) (string, error) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(userKey))
	if err != nil || len(options) > 0 || len(rest) > 0 {
		return "", ErrUserKey
	}
	if err := checkUserKey(key); err != nil {
		return "", err
	}
	var serial [8]byte
	_, _ = rand.Read(serial[:]) // never fails, crypto/rand
	c := &ssh.Certificate{
		Key:             key,
		Serial:          binary.BigEndian.Uint64(serial[:]),
		CertType:        ssh.UserCert,
		ValidPrincipals: []string{g.ID},
		ValidAfter:      uint64(now.Add(-sshSkew).Unix()), //nolint:gosec // after 1970
		ValidBefore:     uint64(g.NotAfter.Unix()),        //nolint:gosec // after 1970
		// Her agent and her screen stay on her side.
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": ""}},
	}
	// Ports too: who has a shell can forward them without sshd. But a login that
	// forwards ports alone has no terminal.
	if !g.Role.Strict {
		c.Extensions["permit-port-forwarding"] = ""
	}
	c.KeyId = fmt.Sprintf("%s/%s/%d", g.Person.Name, g.ID, c.Serial)
	if err := c.SignCert(rand.Reader, a.ssh); err != nil {
		return "", fmt.Errorf("sign ssh certificate: %w", err)
	}
	return string(ssh.MarshalAuthorizedKey(c)), nil
}

func checkUserKey(key ssh.PublicKey) error {
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return nil
	case ssh.KeyAlgoRSA:
		c, ok := key.(ssh.CryptoPublicKey)
		if !ok {
			return ErrUserKey
		}
		if r, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() >= minRSA {
			return nil
		}
	}
	return ErrUserKey
}
