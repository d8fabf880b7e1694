// Package archive keeps bulk data in files, each named by the digest of what it
// holds.
//
// It knows nothing of what that is, and never changes a file: the same data has
// the same name.
package archive

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"curfew.internal/durable"
)

// MaxData bounds what one file holds, unpacked.
const MaxData = 4 << 20

// ErrDigest means that data is not what its name says.
var ErrDigest = errors.New("data does not have the digest that it is kept by")

// A Folder keeps data.
type Folder struct{ Dir string }

func (f Folder) file(digest []byte) string {
	name := hex.EncodeToString(digest)
	return filepath.Join(f.Dir, name[:2], name+".gz")
}

// Put keeps data that came packed, by its digest, and returns it unpacked.
func (f Folder) Put(digest, packed []byte) ([]byte, error) {
	if len(digest) != sha256.Size {
		return nil, ErrDigest
	}
	data, err := unpack(packed)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:], digest) {
		return nil, ErrDigest
	}
	file := f.file(digest)
	if _, err := os.Stat(file); err != nil {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, fmt.Errorf("make the archive's folder: %w", err)
		}
		if err := renameio.WriteFile(file, packed, 0o600); err != nil {
			return nil, fmt.Errorf("keep data: %w", err)
		}
	}
	// Whoever handed it in forgets it now: its name has to last, too. One that
	// is there may be of a server that was killed just before this.
	for _, dir := range []string{filepath.Dir(file), f.Dir, filepath.Dir(f.Dir)} {
		if err := durable.Names(dir); err != nil {
			return nil, fmt.Errorf("keep data: %w", err)
		}
	}
	return data, nil
}

// Get returns data by its digest.
func (f Folder) Get(digest []byte) ([]byte, error) {
	if len(digest) != sha256.Size {
		return nil, ErrDigest
	}
	packed, err := os.ReadFile(f.file(digest))
	if err != nil {
		return nil, fmt.Errorf("read kept data: %w", err)
	}
	data, err := unpack(packed)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:], digest) {
		return nil, ErrDigest
	}
	return data, nil
}

// Has returns [fs.ErrNotExist] if data is not there. It opens the file: a folder on
// the network may not know yet that another server deleted it.
func (f Folder) Has(digest []byte) error {
	if len(digest) != sha256.Size {
		return ErrDigest
	}
	file, err := os.Open(f.file(digest))
	if err != nil {
		return fmt.Errorf("look for kept data: %w", err)
	}
	return file.Close()
}

// Remove deletes data by its digest. What is gone already is as it should be.
func (f Folder) Remove(digest []byte) error {
	if len(digest) != sha256.Size {
		return ErrDigest
	}
	if err := os.Remove(f.file(digest)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete kept data: %w", err)
	}
	return nil
}

func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack data: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(z, MaxData+1))
	if err == nil && len(data) > MaxData {
		err = fmt.Errorf("it is over %d bytes", MaxData)
	}
	if err != nil {
		return nil, fmt.Errorf("unpack data: %w", err)
	}
	return data, nil
}
