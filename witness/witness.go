// Package witness watches over logs for an auditor: it cosigns each checkpoint
// that goes on from the one that it cosigned before, and no other.
//
// It holds no entry of any log, and trusts nobody: what a log was, it knows
// from its own disk. It never signs two histories of one log, whatever the log
// says and whenever its power is cut.
package witness

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/durable"
	"curfew.internal/ledger"
)

const (
	keyFile  = "witness.key"
	lockFile = "lock"
	// maxEvidence bounds what is kept of logs that signed two histories.
	maxEvidence = 100
)

// What is wrong with an offer.
var (
	errUnknown = errors.New("this witness does not watch over that log")
	errOlder   = errors.New("the checkpoint has fewer entries than the one that it is to go on from")
	errSize    = errors.New("the witness has cosigned a checkpoint of another size")
	errGrowth  = errors.New("it is not proved that the log goes on from what the witness has cosigned")
	errFork    = errors.New("the log signed another state of the same size before")
)

// A Witness is one that is open. Its folder is its alone.
type Witness struct {
	key   ledger.WitnessKey
	dir   string
	clock clock.Clock
	lock  *os.File
	logs  map[string]ledger.Key // by their origin

	mu     sync.Mutex                   // guards what follows, and what stands in the folder
	newest map[string]ledger.Checkpoint // that was cosigned, by origin
}

// Init makes a witness's key in a folder of its own, and returns its public
// half. A folder that has one is left alone.
func Init(dir, name string) (string, error) {
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails, crypto/rand
	k, err := ledger.NewWitnessKey(name, seed)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the witness's folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, keyFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names it
	if err != nil {
		return "", fmt.Errorf("write the witness's key: %w", err)
	}
	_, err = f.WriteString(k.Secret() + "\n")
	return k.String(), errors.Join(err, f.Sync(), f.Close(), durable.Names(dir))
}

// Open opens the witness in the folder, for the logs of these keys.
func Open(dir string, logs []ledger.Key, c clock.Clock) (*Witness, error) {
	text, err := os.ReadFile(filepath.Join(dir, keyFile)) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("read the witness's key, which `curfew witness init` makes: %w", err)
	}
	w := &Witness{dir: dir, clock: c, logs: map[string]ledger.Key{}, newest: map[string]ledger.Checkpoint{}}
	if w.key, err = ledger.ParseWitnessKey(string(trimmed(text))); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, keyFile), err)
	}
	// Two that run on one folder could each cosign another history.
	w.lock, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // as above
	if err != nil {
		return nil, fmt.Errorf("open the witness's lock: %w", err)
	}
	if err := unix.Flock(int(w.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another witness runs on %s: %w", dir, err), w.lock.Close())
	}
	for _, k := range logs {
		if err := w.read(k); err != nil {
			return nil, errors.Join(err, w.lock.Close())
		}
	}
	return w, nil
}

func trimmed(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b
}

// read takes up a log where the witness left it. A file that cannot be read is
// no beginning: it would be a way to have another history cosigned.
func (w *Witness) read(k ledger.Key) error {
	origin := ledger.Origin(k.Fleet)
	if _, twice := w.logs[origin]; twice {
		return fmt.Errorf("two keys of one log, %s: it has one for its life", origin)
	}
	w.logs[origin] = k
	file := w.file(origin)
	note, err := os.ReadFile(file) //nolint:gosec // in the witness's folder
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		w.newest[origin], err = ledger.OpenCheckpoint(note, k)
	}
	if err != nil {
		return fmt.Errorf("read what was cosigned of %s: %s: %w", origin, file, err)
	}
	return nil
}

// file is where the newest checkpoint of a log is kept. Origins are others'
// text, and no names of files.
func (w *Witness) file(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(w.dir, hex.EncodeToString(sum[:8])+".checkpoint")
}

// Close gives the folder back.
func (w *Witness) Close() error { return w.lock.Close() }

// Key is the public half of the witness's key.
func (w *Witness) Key() string { return w.key.String() }

// cosign returns the line by which the witness cosigns what is offered, or why
// it does not, and how many entries the log had when it last did.
func (w *Witness) cosign(o ledger.Offer, origin string) (line string, size uint64, err error) {
	k, known := w.logs[origin]
	if !known {
		return "", 0, errUnknown
	}
	c, err := ledger.OpenCheckpoint(o.Note, k)
	if err != nil {
		return "", 0, err
	}
	if o.Old > c.Size {
		return "", 0, errOlder
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.newest[origin]
	if o.Old != was.Size {
		return "", was.Size, errSize
	}
	if was.Size == c.Size && was.Root != c.Root && was.Size > 0 {
		return "", was.Size, errors.Join(errFork, w.witnessed(o.Note, c))
	}
	if err := ledger.Grew(was.Tree, c.Tree, o.Proof); err != nil {
		return "", was.Size, fmt.Errorf("%w: %w", errGrowth, err)
	}
	// Kept before it is signed: after a crash in between, the log asks again
	// from there.
	if err := w.keep(w.file(origin), o.Note); err != nil {
		return "", was.Size, err
	}
	w.newest[origin] = c
	return w.key.Cosign(c, w.clock.Now().Wall), c.Size, nil
}

// keep writes a file so that it is there after a loss of power, or the one
// before.
func (w *Witness) keep(file string, b []byte) error {
	if err := renameio.WriteFile(file, b, 0o600); err != nil {
		return fmt.Errorf("keep checkpoint: %w", err)
	}
	return durable.Names(w.dir)
}

// witnessed keeps a checkpoint that the log signed beside another of the same
// size: nobody but who has the log's key can have made them.
func (w *Witness) witnessed(note []byte, c ledger.Checkpoint) error {
	all, err := filepath.Glob(filepath.Join(w.dir, "fork-*"))
	if err != nil || len(all) >= maxEvidence {
		return err
	}
	return w.keep(filepath.Join(w.dir, fmt.Sprintf("fork-%d-%x.checkpoint", c.Size, c.Root[:8])), note)
}
