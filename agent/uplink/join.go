package uplink

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"curfew.internal/clock"
	"curfew.internal/wire/invite"
	"curfew.internal/wire/uplink"
)

// ErrPin means that who answered is not the control plane of the code.
var ErrPin = errors.New("the server is not the one that the code was made by")

// A Newcomer is a host that wants to join.
type Newcomer struct {
	Name        string
	Labels      map[string]string // wished for
	Addresses   []string
	SSHHostKeys []string
}

// Join uses the code to make the host a part of the fleet. The secret in the
// code is sent to nobody but the server that the code pins.
func Join(ctx context.Context, c clock.Clock, code invite.Code, n Newcomer) (Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Identity{}, fmt.Errorf("make host key: %w", err)
	}
	receiptPublic, receipt, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Identity{}, fmt.Errorf("make receipt key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return Identity{}, fmt.Errorf("make certificate request: %w", err)
	}
	server, err := Server(code.URL)
	if err != nil {
		return Identity{}, err
	}
	conn, err := open(server, pinned(code.CA, c))
	if err != nil {
		return Identity{}, fmt.Errorf("join: %w", err)
	}
	reply, err := uplink.NewUplinkClient(conn).Enrol(ctx, &uplink.EnrolRequest{
		Secret: code.Secret, Name: n.Name, Csr: csr, ReceiptKey: receiptPublic,
		Labels: n.Labels, Addresses: n.Addresses, SshHostKeys: n.SSHHostKeys,
	})
	_ = conn.Close() // what there is to say of it, err says
	if err != nil {
		return Identity{}, refused(err)
	}
	id := Identity{
		Fleet: code.Fleet, Name: n.Name, Key: key, Certificate: reply.GetCertificate(), CA: reply.GetCa(),
		Roots: code.Roots, ReceiptKey: receipt, SSHCA: reply.GetSshCa(),
	}
	if sum := sha256.Sum256(id.CA); !bytes.Equal(sum[:], code.CA) || reply.GetFleet() != code.Fleet {
		return Identity{}, fmt.Errorf("join: %w", ErrPin)
	}
	if err := id.check(); err != nil {
		return Identity{}, fmt.Errorf("join: %w", err)
	}
	return id, nil
}

// refused is why the host could not join, in the control plane's words.
func refused(err error) error {
	s, ok := status.FromError(err)
	if ok && s.Code() == codes.Unavailable && bytes.Contains([]byte(s.Message()), []byte(ErrPin.Error())) {
		return fmt.Errorf("join: %w", ErrPin) // gRPC carries no error across a handshake but as text
	}
	return fmt.Errorf("join: %s", explain(err))
}

// Server is the HOST:PORT of a code's URL.
func Server(from string) (string, error) {
	u, err := url.Parse(from)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return "", errors.New("the control plane's address is not of the form https://HOST:PORT")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// pinned takes the server's chain and goes on only if it ends in the CA whose
// digest the code holds.
func pinned(pin []byte, c clock.Clock) *tls.Config {
	t := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The usual check needs a CA that we have yet to learn; the one below
		// stands in its place, and the handshake fails if it does.
		InsecureSkipVerify: true, //nolint:gosec // see above
	}
	t.VerifyConnection = func(s tls.ConnectionState) error {
		for _, ca := range s.PeerCertificates {
			if sum := sha256.Sum256(ca.Raw); !bytes.Equal(sum[:], pin) {
				continue
			}
			roots := x509.NewCertPool()
			roots.AddCert(ca)
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots: roots, DNSName: s.ServerName, CurrentTime: c.Now().Wall,
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			})
			return err
		}
		return ErrPin
	}
	return t
}

// check says whether the certificate is this host's. Whether it counts yet is
// not asked of this host's clock, which may be wrong while the token is spent.
func (id Identity) check() error {
	leaf, err := x509.ParseCertificate(id.Certificate)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	ca, err := x509.ParseCertificate(id.CA)
	if err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	roots, both := x509.NewCertPool(), leaf.NotBefore
	roots.AddCert(ca)
	if ca.NotBefore.After(both) {
		both = ca.NotBefore // the control plane's clock was set back since it made its CA
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: both, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if k, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !k.Equal(id.Key.Public()) {
		return errors.New("certificate is for another key")
	}
	if want := "spiffe://" + id.Fleet + "/host/" + id.Name; len(leaf.URIs) != 1 || leaf.URIs[0].String() != want {
		return fmt.Errorf("certificate is not for %s", want)
	}
	return nil
}
