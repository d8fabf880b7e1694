package keep

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"curfew.internal/dsse"
)

// An Identity is who the host is in its fleet, and by what it knows the
// control plane.
type Identity struct {
	Fleet, Name string // as the certificate says
	Key         crypto.Signer
	Certificate []byte // DER
	CA          []byte // DER
	Roots       []ed25519.PublicKey
	ReceiptKey  ed25519.PrivateKey
	SSHCA       string // authorized_keys format
}

// LogValue keeps the keys out of logs.
func (Identity) LogValue() slog.Value { return slog.StringValue("[secret]") }

// KeyID names the key by which the host signs receipts and seals.
func (i Identity) KeyID() string {
	public, _ := i.ReceiptKey.Public().(ed25519.PublicKey)
	return dsse.KeyID(public)
}

// ErrNotEnrolled means that the host has no identity yet.
var ErrNotEnrolled = errors.New("this host is in no fleet yet: ask an administrator for a join code, and run `curfew-agent join CODE`")

// Files of an identity, in /etc/curfew.
const (
	keyName         = "host.key"
	certificateName = "host.crt"
	caName          = "ca.crt"
	rootsName       = "root.pub"
	receiptName     = "receipt.key"
	sshCAName       = "ssh_ca.pub"
)

const privateBlock, publicBlock, certificateBlock = "PRIVATE KEY", "PUBLIC KEY", "CERTIFICATE"

// SaveIdentity writes the identity into the folder. The certificate goes
// first and comes back last: a crash in between leaves a host that is not
// enrolled, and never one with another's key.
func SaveIdentity(dir string, id Identity) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // people may read public keys; the private ones have modes of their own
		return fmt.Errorf("write identity: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(id.Key)
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	receipt, err := x509.MarshalPKCS8PrivateKey(id.ReceiptKey)
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	var roots []byte
	for _, r := range id.Roots {
		der, err := x509.MarshalPKIXPublicKey(r)
		if err != nil {
			return fmt.Errorf("write identity: %w", err)
		}
		roots = append(roots, block(publicBlock, der)...)
	}
	if err := forget(filepath.Join(dir, certificateName)); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{
		{keyName, block(privateBlock, key), 0o600},
		{receiptName, block(privateBlock, receipt), 0o600},
		{caName, block(certificateBlock, id.CA), 0o644},
		{rootsName, roots, 0o644},
		{sshCAName, []byte(id.SSHCA), 0o644},
		{certificateName, block(certificateBlock, id.Certificate), 0o644},
	} {
		if err := replace(filepath.Join(dir, f.name), f.data, f.mode); err != nil {
			return fmt.Errorf("write identity: %w", err)
		}
	}
	return nil
}

// MendSSHCA has the folder's file of the CA that sshd trusts say just that, in
// authorized_keys format, and returns its name and whether it did not.
func MendSSHCA(dir, ca string) (name string, mended bool, err error) {
	name = filepath.Join(dir, sshCAName)
	info, err := os.Lstat(name)
	if err == nil && info.Mode() == 0o644 && owned(info) { // a plain file that nobody else writes
		b, err := os.ReadFile(name) //nolint:gosec // the operator names the folder
		if err == nil && string(b) == ca {
			return name, false, nil
		}
	}
	if err := replace(name, []byte(ca), 0o644); err != nil {
		return name, false, fmt.Errorf("put right the CA that sshd trusts: %w", err)
	}
	return name, true, nil
}

func owned(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// SaveCertificate puts a renewed certificate in place of the host's.
func SaveCertificate(dir string, der []byte) error {
	if err := replace(filepath.Join(dir, certificateName), block(certificateBlock, der), 0o644); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	return nil
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// LoadIdentity reads the identity from the folder. That the file of the CA
// which sshd trusts is gone keeps no agent from starting: the control plane
// says the CA anew.
func LoadIdentity(dir string) (Identity, error) {
	id, err := LoadNamed(dir)
	if err != nil {
		return Identity{}, err
	}
	ca, caErr := blocks(dir, caName, certificateBlock)
	key, keyErr := loadKey(dir, keyName)
	receipt, receiptErr := loadKey(dir, receiptName)
	ssh, sshErr := os.ReadFile(filepath.Join(dir, sshCAName)) //nolint:gosec // the operator names the folder
	if errors.Is(sshErr, os.ErrNotExist) {
		sshErr = nil
	}
	if err := errors.Join(caErr, keyErr, receiptErr, sshErr); err != nil {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	var ok bool
	if id.ReceiptKey, ok = receipt.(ed25519.PrivateKey); !ok {
		return Identity{}, fmt.Errorf("%s holds a %T in place of an Ed25519 key", receiptName, receipt)
	}
	id.Key, id.CA, id.SSHCA = key, ca[0], string(ssh)
	return id, nil
}

// LoadNamed reads what to take things away needs of the identity: which host of
// which fleet this is, and by whose word grants are signed.
func LoadNamed(dir string) (Identity, error) {
	certificate, err := blocks(dir, certificateName, certificateBlock)
	if errors.Is(err, os.ErrNotExist) {
		return Identity{}, ErrNotEnrolled
	}
	if err != nil {
		return Identity{}, err
	}
	roots, err := blocks(dir, rootsName, publicBlock)
	if err != nil {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	id := Identity{Certificate: certificate[0]}
	for _, der := range roots {
		k, err := x509.ParsePKIXPublicKey(der)
		root, ok := k.(ed25519.PublicKey)
		if err != nil || !ok {
			return Identity{}, fmt.Errorf("%s holds something that is no Ed25519 public key", rootsName)
		}
		id.Roots = append(id.Roots, root)
	}
	if id.Fleet, id.Name, err = named(id.Certificate); err != nil {
		return Identity{}, err
	}
	return id, nil
}

// named reads who a certificate is for.
func named(der []byte) (fleet, host string, err error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", certificateName, err)
	}
	if len(c.URIs) == 1 && c.URIs[0].Scheme == "spiffe" {
		if dir, name := filepath.Split(c.URIs[0].Path); dir == "/host/" && name != "" {
			return c.URIs[0].Host, name, nil
		}
	}
	return "", "", fmt.Errorf("%s names no host", certificateName)
}

func loadKey(dir, name string) (crypto.Signer, error) {
	b, err := blocks(dir, name, privateBlock)
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(b[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T, which cannot sign", name, k)
	}
	return s, nil
}

// blocks reads a PEM file that holds blocks of one kind, at least one.
func blocks(dir, name, kind string) ([][]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, name)) //nolint:gosec // the operator names the folder
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for {
		var p *pem.Block
		if p, b = pem.Decode(b); p == nil {
			break
		}
		if p.Type != kind {
			return nil, fmt.Errorf("%s holds a %q in place of a %q", name, p.Type, kind)
		}
		all = append(all, p.Bytes)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no %q in PEM", name, kind)
	}
	return all, nil
}
