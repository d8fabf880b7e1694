package sign

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"

	"curfew.internal/keyfile"
	"curfew.internal/ledger"
)

const logFile = "log.key"

// A Log signs what the fleet's log says of itself. Its key is one for the life
// of the log: auditors keep its public half.
type Log struct {
	key     ledger.Key
	private ed25519.PrivateKey
}

// MakeLog makes the key of the fleet's log.
func MakeLog(dir string) error {
	_, err := keyfile.Make(filepath.Join(dir, logFile))
	return err
}

// ErrNoLog means that there is no key of the fleet's log yet.
var ErrNoLog = errors.New("no file holds the key of the fleet's log")

// LoadLog reads the key of the fleet's log in dir.
func LoadLog(dir, fleet string) (*Log, error) {
	private, err := keyfile.Read(filepath.Join(dir, logFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoLog, err)
	}
	if err != nil {
		return nil, err
	}
	public, _ := private.Public().(ed25519.PublicKey)
	key, err := ledger.NewKey(fleet, public)
	if err != nil {
		return nil, err
	}
	return &Log{key, private}, nil
}

// Key is the public half.
func (l *Log) Key() ledger.Key { return l.key }

// Checkpoint returns the signed checkpoint of the tree.
func (l *Log) Checkpoint(t ledger.Tree) ([]byte, error) {
	return note.Sign(&note.Note{Text: ledger.Checkpoint{Fleet: l.key.Fleet, Tree: t}.Text()}, noteSigner{l})
}

// Manifest returns the envelope of the manifest.
func (l *Log) Manifest(m ledger.Manifest) []byte { return m.Seal(l.private) }

// noteSigner is the key as the library wants it.
type noteSigner struct{ *Log }

func (s noteSigner) Name() string                     { return ledger.Origin(s.key.Fleet) }
func (s noteSigner) KeyHash() uint32                  { return s.key.KeyHash() }
func (s noteSigner) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.private, text), nil }
