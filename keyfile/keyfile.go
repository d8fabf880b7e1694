// Package keyfile keeps Ed25519 keys in files: PEM (RFC 7468) with the private
// half in PKCS #8 and the public half as X.509 has it.
package keyfile

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"curfew.internal/durable"
)

const privateBlock, publicBlock = "PRIVATE KEY", "PUBLIC KEY"

// Make makes a key in a new file. A file that is there is never written
// over: it could hold the only copy of a root.
func Make(name string) (ed25519.PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return private, Write(name, private)
}

// Write keeps the key in a new file, which its owner alone can read.
func Write(name string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return writeNew(name, pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), 0o600)
}

// WritePublic keeps the public half in a new file.
func WritePublic(name string, key ed25519.PublicKey) error {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return fmt.Errorf("write public key: %w", err)
	}
	return writeNew(name, pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), 0o644)
}

func writeNew(name string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close(), durable.Names(filepath.Dir(name))); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}

// Read reads what Make or Write kept.
func Read(name string) (ed25519.PrivateKey, error) {
	b, err := os.ReadFile(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != privateBlock {
		return nil, fmt.Errorf("%s holds no private key in PEM", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T in place of an Ed25519 key", name, key)
	}
	return private, nil
}

// ReadPublic reads what WritePublic kept.
func ReadPublic(name string) (ed25519.PublicKey, error) {
	b, err := os.ReadFile(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != publicBlock {
		return nil, fmt.Errorf("%s holds no public key in PEM", name)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T in place of an Ed25519 key", name, key)
	}
	return public, nil
}
