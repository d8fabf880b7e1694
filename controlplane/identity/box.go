package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
)

const boxKeySize = 32

// A Box seals secrets that are kept in the database: AES-256-GCM, with the
// person's name as further data, so that one person's secret cannot be put in
// another's place.
type Box struct{ aead cipher.AEAD }

// MakeBoxKey writes a new key to a file that must not be there.
func MakeBoxKey(file string) error {
	key := make([]byte, boxKeySize)
	_, _ = rand.Read(key)                                                 // never fails, crypto/rand
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // a file of the data folder
	if err != nil {
		return fmt.Errorf("write key of secrets: %w", err)
	}
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write key of secrets: %w", err)
	}
	return nil
}

// LoadBox reads the key from its file.
func LoadBox(file string) (*Box, error) {
	key, err := os.ReadFile(file) //nolint:gosec // a file of the data folder
	if err != nil {
		return nil, fmt.Errorf("read key of secrets: %w", err)
	}
	if len(key) != boxKeySize {
		return nil, fmt.Errorf("%s: a key of secrets has %d bytes, not %d", file, boxKeySize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("key of secrets: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("key of secrets: %w", err)
	}
	return &Box{aead}, nil
}

// Seal seals a secret of the person's.
func (b *Box) Seal(person string, secret []byte) []byte {
	return b.aead.Seal(nil, nil, secret, []byte(person)) //nolint:gosec // the AEAD makes a random nonce
}

// Open opens what Seal sealed for the same person.
func (b *Box) Open(person string, sealed []byte) ([]byte, error) {
	secret, err := b.aead.Open(nil, nil, sealed, []byte(person))
	if err != nil {
		return nil, fmt.Errorf("open secret of %s: %w", person, err)
	}
	return secret, nil
}
