package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/renameio/v2"

	"curfew.internal/controlplane/cosign"
	"curfew.internal/controlplane/sign"
	"curfew.internal/controlplane/store"
	"curfew.internal/durable"
	"curfew.internal/ledger"
)

// ErrSetBack means that the database does not hold what its log held.
var ErrSetBack = errors.New("the record was set back or changed")

const checkpointFile = "log.checkpoint"

// book is the log over the record. It keeps the newest checkpoint that it gave
// out beside the keys, outside of the database, so that a database that was
// set back shows.
type book struct {
	*sign.Log
	store *store.Store
	file  string

	mu     sync.Mutex // guards what follows
	newest ledger.Checkpoint
	note   []byte
}

// witnessed is the log with those who cosign it.
type witnessed struct {
	*book
	*cosign.Cosigner
}

// openBook opens the log and compares it with the newest checkpoint. A fleet
// that had no log yet gets its key.
func openBook(ctx context.Context, dir, fleet string, s *store.Store) (*book, error) {
	b := &book{store: s, file: filepath.Join(dir, checkpointFile)}
	note, err := os.ReadFile(b.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the newest checkpoint: %w", err)
	}
	b.Log, err = sign.LoadLog(dir, fleet)
	if errors.Is(err, sign.ErrNoLog) && note == nil {
		if err = sign.MakeLog(dir); err == nil {
			b.Log, err = sign.LoadLog(dir, fleet)
		}
	}
	if err != nil {
		return nil, err
	}
	if note != nil {
		if b.newest, err = ledger.OpenCheckpoint(note, b.Key()); err != nil {
			return nil, fmt.Errorf("%s: %w", b.file, err)
		}
		b.note = note
	}
	_, _, err = b.Checkpoint(ctx)
	return b, err
}

// lost says what the newest checkpoint of before knew and the database does not
// hold any more, and where that checkpoint is put aside; both are empty if
// there is nothing of that.
func lost(ctx context.Context, c Config, s *store.Store) (what, aside string, err error) {
	_, err = openBook(ctx, c.keys(), c.Fleet, s)
	if !errors.Is(err, ErrSetBack) {
		return "", "", err
	}
	log, err := sign.LoadLog(c.keys(), c.Fleet)
	if err != nil {
		return "", "", err
	}
	file := filepath.Join(c.keys(), checkpointFile)
	note, err := os.ReadFile(file) //nolint:gosec // of the data folder
	if err != nil {
		return "", "", err
	}
	was, err := ledger.OpenCheckpoint(note, log.Key())
	if err != nil {
		return "", "", err
	}
	return fmt.Sprintf("it had %d entries with root %v, and ", was.Size, was.Root), fmt.Sprintf("%s.%d-%x", file, was.Size, was.Root[:4]), nil
}

// Checkpoint signs how the log stands, and keeps that before it is given out.
func (b *book) Checkpoint(ctx context.Context) (ledger.Checkpoint, []byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, err := b.store.Tree(ctx)
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	if err := b.goesOn(ctx, now); err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	if b.note != nil && now.Size == b.newest.Size {
		return b.newest, b.note, nil
	}
	note, err := b.Log.Checkpoint(now)
	if err == nil {
		err = renameio.WriteFile(b.file, note, 0o600)
	}
	if err == nil {
		err = durable.Names(filepath.Dir(b.file)) // the one before would not know what was given out
	}
	if err != nil {
		return ledger.Checkpoint{}, nil, fmt.Errorf("keep checkpoint: %w", err)
	}
	b.newest, b.note = ledger.Checkpoint{Fleet: b.Key().Fleet, Tree: now}, note
	return b.newest, b.note, nil
}

// goesOn compares the log with the newest checkpoint; the caller holds mu.
func (b *book) goesOn(ctx context.Context, now ledger.Tree) error {
	if b.note == nil {
		return nil
	}
	var err error
	if now.Size > b.newest.Size {
		// What it was then is looked up: a proof would come from the same
		// database.
		now, err = b.store.TreeAt(ctx, b.newest.Size)
	}
	if err != nil && !errors.Is(err, store.ErrLog) {
		return err // it cannot be read now, which says nothing of what it holds
	}
	if err == nil {
		err = ledger.Grew(b.newest.Tree, now, nil)
	}
	if err != nil {
		return fmt.Errorf("%w: %w. %s holds the newest checkpoint. If a backup was restored, `curfew-server restored --why REASON` puts that into the record, and the server starts again",
			ErrSetBack, err, b.file)
	}
	return nil
}
