package ledger

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxSize bounds a log; the library counts in signed integers.
const maxSize = 1 << 62

// A Tree is the log as of one moment.
type Tree struct {
	Size uint64
	Root tlog.Hash
}

// A Checkpoint says how the log of a fleet stood. It is kept and passed on as
// a signed note (C2SP tlog-checkpoint).
type Checkpoint struct {
	Fleet string
	Tree
}

// Errors about checkpoints and the keys that sign them.
var (
	ErrCheckpoint = errors.New("no checkpoint that the key signed")
	ErrKey        = errors.New("no key of a log")
	ErrForked     = errors.New("the log does not hold what it held")
)

const originPrefix = "curfew/"

// Origin names the fleet's log in checkpoints and keys.
func Origin(fleet string) string { return originPrefix + fleet }

// Text is what is signed.
func (c Checkpoint) Text() string {
	return Origin(c.Fleet) + "\n" + strconv.FormatUint(c.Size, 10) + "\n" + c.Root.String() + "\n"
}

// OpenCheckpoint checks that the key signed the note, and reads it. Signatures
// by others, such as witnesses, are passed over.
func OpenCheckpoint(signed []byte, key Key) (Checkpoint, error) {
	if key.verifier == nil {
		return Checkpoint{}, ErrKey
	}
	n, err := note.Open(signed, note.VerifierList(key.verifier))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	// The library reads a signature in more spellings than one.
	if sig, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64); err != nil || len(sig) != 4+ed25519.SignatureSize {
		return Checkpoint{}, fmt.Errorf("%w: signature in a strange spelling", ErrCheckpoint)
	}
	return parseText(n.Text, key.Fleet)
}

func parseText(text, fleet string) (Checkpoint, error) {
	c := Checkpoint{Fleet: fleet}
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return Checkpoint{}, fmt.Errorf("%w: it has not three lines", ErrCheckpoint)
	}
	var err error
	if c.Size, err = strconv.ParseUint(lines[1], 10, 64); err == nil {
		c.Root, err = tlog.ParseHash(lines[2])
	}
	// One spelling only, and the origin of the key's own log.
	if err != nil || c.Size >= maxSize || c.Text() != text {
		return Checkpoint{}, fmt.Errorf("%w: it is not about the log of %s", ErrCheckpoint, fleet)
	}
	return c, nil
}

// Grew reports, as an error, that now does not go on from was. The proof is
// what the log gave for the two sizes.
func Grew(was, now Tree, proof tlog.TreeProof) error {
	switch {
	case was.Size >= maxSize || now.Size >= maxSize:
		return ErrForked
	case was.Size > now.Size:
		return fmt.Errorf("%w: it had %d entries and has %d", ErrForked, was.Size, now.Size)
	case was.Size == now.Size && was.Root != now.Root:
		return fmt.Errorf("%w: two logs of %d entries differ", ErrForked, now.Size)
	case was.Size == now.Size || was.Size == 0:
		if len(proof) > 0 {
			return fmt.Errorf("%w: a proof where none is needed", ErrForked)
		}
		return nil
	}
	if err := tlog.CheckTree(proof, int64(now.Size), now.Root, int64(was.Size), was.Root); err != nil {
		return fmt.Errorf("%w: what its first %d entries were is not what they are among %d", ErrForked, was.Size, now.Size)
	}
	return nil
}

// A Key is the public half of a log's key.
type Key struct {
	Fleet    string
	Public   ed25519.PublicKey
	verifier note.Verifier
	text     string
}

// NewKey returns the key of the fleet's log.
func NewKey(fleet string, public ed25519.PublicKey) (Key, error) {
	text, err := note.NewEd25519VerifierKey(Origin(fleet), public)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	v, err := note.NewVerifier(text)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return Key{Fleet: fleet, Public: public, verifier: v, text: text}, nil
}

// ParseKey reads a key as [Key.String] writes it: NAME+HASH+KEY, the form of
// C2SP signed notes.
func ParseKey(text string) (Key, error) {
	parts := strings.SplitN(text, "+", 3)
	fleet, ok := strings.CutPrefix(parts[0], originPrefix)
	if !ok || len(parts) != 3 {
		return Key{}, fmt.Errorf("%w: it is written %sFLEET+HASH+KEY", ErrKey, originPrefix)
	}
	b, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(b) != 1+ed25519.PublicKeySize {
		return Key{}, fmt.Errorf("%w: its last part is no Ed25519 key", ErrKey)
	}
	k, err := NewKey(fleet, b[1:])
	if err == nil && k.text != text {
		err = fmt.Errorf("%w: its parts do not belong together: a letter is wrong or missing", ErrKey)
	}
	if err != nil {
		return Key{}, err
	}
	return k, nil
}

// String is the key as people pass it on.
func (k Key) String() string { return k.text }

// KeyHash is the key's hint in signatures.
func (k Key) KeyHash() uint32 { return k.verifier.KeyHash() }
