package fleet

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"curfew.internal/clock"
	"curfew.internal/grant"
)

const (
	caLife     = 10 * 365 * 24 * time.Hour
	serverLife = 30 * 24 * time.Hour
	hostLife   = 24 * time.Hour
	// skew is how far a host's clock may be behind at enrolment.
	skew = 10 * time.Minute

	caKeyFile, caFile = "ca.key", "ca.crt"
)

// A CA vouches for the servers and the hosts of one fleet.
type CA struct {
	Fleet       string
	Certificate *x509.Certificate
	Clock       clock.Clock

	key *ecdsa.PrivateKey
}

// OpenCA loads the fleet's CA from the folder, or makes one there.
func OpenCA(dir, fleet string, c clock.Clock) (*CA, error) {
	if err := grant.CheckFleet(fleet); err != nil {
		return nil, err
	}
	ca, err := loadCA(dir)
	if errors.Is(err, os.ErrNotExist) {
		err = makeCA(dir, fleet, c.Now().Wall)
		if err == nil {
			ca, err = loadCA(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("fleet CA: %w", err)
	}
	if of := ca.Certificate.Subject.Organization; len(of) != 1 || of[0] != fleet {
		return nil, fmt.Errorf("fleet CA in %s is of another fleet, %q", dir, of)
	}
	ca.Fleet, ca.Clock = fleet, c
	return ca, nil
}

func makeCA(dir, fleet string, now time.Time) error {
	// The folder holds keys of other rooms too; who made it set its mode.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := template(now, caLife)
	t.Subject = pkix.Name{CommonName: "Curfew CA of " + fleet, Organization: []string{fleet}}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The key is last: a certificate without a key is made anew, a key that
	// is there is never written over.
	if err := writeFile(filepath.Join(dir, caFile), "CERTIFICATE", der, os.O_TRUNC); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, caKeyFile), "PRIVATE KEY", private, os.O_EXCL)
}

func writeFile(name, kind string, der []byte, how int) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|how, 0o600) //nolint:gosec // the operator names the folder
	if err != nil {
		return err
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	return errors.Join(err, f.Sync(), f.Close())
}

func loadCA(dir string) (*CA, error) {
	key, err := readPEM(filepath.Join(dir, caKeyFile), "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", caKeyFile, err)
	}
	k, ok := private.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T in place of an ECDSA key", caKeyFile, private)
	}
	der, err := readPEM(filepath.Join(dir, caFile), "CERTIFICATE")
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is there, but %s is not: restore it, the hosts trust it alone", caKeyFile, caFile)
	}
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", caFile, err)
	}
	if !k.PublicKey.Equal(c.PublicKey) {
		return nil, fmt.Errorf("%s and %s do not belong together", caKeyFile, caFile)
	}
	return &CA{Certificate: c, key: k}, nil
}

func readPEM(name, kind string) ([]byte, error) {
	b, err := os.ReadFile(name) //nolint:gosec // the operator names the folder
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s holds no %s in PEM", filepath.Base(name), strings.ToLower(kind))
	}
	return block.Bytes, nil
}

// Hash is what a code pins the CA by.
func (ca *CA) Hash() []byte {
	sum := sha256.Sum256(ca.Certificate.Raw)
	return sum[:]
}

func template(now time.Time, life time.Duration) *x509.Certificate {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails, crypto/rand
	serial[0] &= 0x7f
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		NotBefore:    now.Add(-skew), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// hostCertificate vouches for a host of the fleet for a day. It holds one
// name, and which of the host's enrolments it is from; what else was asked
// for does not count.
func (ca *CA) hostCertificate(public any, name, identity string) ([]byte, error) {
	t := template(ca.Clock.Now().Wall, hostLife)
	t.Subject = pkix.Name{CommonName: name, SerialNumber: identity}
	t.URIs = []*url.URL{hostURI(ca.Fleet, name)}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return x509.CreateCertificate(rand.Reader, t, ca.Certificate, public, ca.key)
}

func hostURI(fleet, name string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: fleet, Path: "/host/" + name}
}

// readCSR checks a request and returns its key.
func readCSR(der []byte) (any, error) {
	r, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	switch k := r.PublicKey.(type) {
	case ed25519.PublicKey:
		return k, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return k, nil
		}
	}
	return nil, errors.New("certificate request: the key is neither P-256 nor Ed25519")
}

// named says which host, and which of its enrolments, a certificate of the
// CA's is for.
func (ca *CA) named(c *x509.Certificate) (name, identity string, err error) {
	if len(c.URIs) != 1 || len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses) > 0 {
		return "", "", errors.New("certificate has other names than a host's one")
	}
	u := c.URIs[0]
	name, ok := strings.CutPrefix(u.Path, "/host/")
	if !ok || grant.CheckHost(name) != nil || u.String() != hostURI(u.Host, name).String() {
		return "", "", errors.New("certificate names no host")
	}
	if u.Host != ca.Fleet {
		return "", "", fmt.Errorf("certificate: %w", grant.ErrOtherFleet)
	}
	if c.Subject.SerialNumber == "" {
		return "", "", errors.New("certificate does not say which enrolment it is from")
	}
	return name, c.Subject.SerialNumber, nil
}

// Server returns a TLS configuration for a server of the fleet under the
// names: host names and IP addresses. Its certificate is renewed as it ages,
// and comes with the CA's own, which codes pin.
func (ca *CA) Server(names ...string) (*tls.Config, error) {
	s := &serverCertificate{ca: ca, names: names}
	if _, err := s.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: s.get,
		Time: func() time.Time { return ca.Clock.Now().Wall },
	}, nil
}

// serverCertificate is a certificate that does not run out.
type serverCertificate struct {
	ca    *CA
	names []string

	mu      sync.Mutex // guards what follows
	current *tls.Certificate
	renewAt time.Time
}

func (s *serverCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := s.ca.Clock.Now().Wall
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && now.Before(s.renewAt) && now.After(s.current.Leaf.NotBefore) {
		return s.current, nil
	}
	c, err := s.ca.serverCertificate(s.names, now)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	s.current, s.renewAt = c, now.Add(serverLife*2/3)
	return c, nil
}

func (ca *CA) serverCertificate(names []string, now time.Time) (*tls.Certificate, error) {
	if len(names) == 0 {
		return nil, errors.New("no name to vouch for")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := template(now, serverLife)
	t.Subject = pkix.Name{CommonName: names[0]}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.Certificate, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.Certificate.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
