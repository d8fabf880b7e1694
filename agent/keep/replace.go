package keep

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"curfew.internal/durable"
)

// replace puts data in place of the file's content, whole or not at all: a
// crash leaves the old file or the new one. Callers write a name one at a time.
func replace(name string, data []byte, mode os.FileMode) error {
	dir, base := filepath.Split(name)
	if err := os.MkdirAll(dir, 0o700); err != nil { // it may have been taken away
		return err
	}
	temp := filepath.Join(dir, "."+base+".new")
	if err := writeSynced(temp, data, mode); err != nil {
		return errors.Join(err, forget(temp))
	}
	if err := os.Rename(temp, name); err != nil {
		return errors.Join(err, forget(temp))
	}
	return durable.Names(dir)
}

func writeSynced(name string, data []byte, mode os.FileMode) error {
	// One that a crash left behind may have another mode.
	if err := forget(name); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode) //nolint:gosec // a name in the agent's own folder
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask took
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// forget removes a file; that it is gone is the end we wanted.
func forget(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// errDamaged means that a file is not as it was written.
var errDamaged = errors.New("file is damaged")

// sealed is the form of our small files: what it is, the digest of what
// follows, and what follows.
func sealed(kind string, body []byte) []byte {
	sum := sha256.Sum256(body)
	return bytes.Join([][]byte{[]byte(kind + "\n"), sum[:], body}, nil)
}

func unseal(kind string, b []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(b, []byte(kind+"\n"))
	if !ok || len(rest) < sha256.Size {
		return nil, fmt.Errorf("%s: %w", kind, errDamaged)
	}
	body := rest[sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], rest[:sha256.Size]) {
		return nil, fmt.Errorf("%s: %w", kind, errDamaged)
	}
	return body, nil
}
