package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// Tile returns the hashes of a tile of the log's tree (C2SP tlog-tiles), or
// [roster.ErrUnknown] if the tree is not so large.
func (s *Store) Tile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	size, err := s.LastEvent(ctx)
	if err != nil {
		return nil, err
	}
	below := uint(t.H * t.L)                                                      // the caller's tiles have neither below zero
	if below >= 64 || t.N > 1<<40 || uint64(t.N)<<t.H+uint64(t.W) > size>>below { //nolint:gosec // nor their numbers
		return nil, fmt.Errorf("tile: %w", roster.ErrUnknown)
	}
	return tlog.ReadTileData(t, hashes{ctx, s.read})
}

const witnessColumns = `SELECT key, size, note, at, since, why, refuses, told FROM witnesses `

func scanWitness(r scanner) (roster.Witness, error) {
	var w roster.Witness
	err := r.Scan(&w.Key, &w.Size, &w.Note, instant{&w.At}, instant{&w.Since}, &w.Why, &w.Refuses, &w.Told)
	return w, known(err)
}

// Witness returns what is known of the witness of the key: of one that was not
// asked yet, nothing.
func (s *Store) Witness(ctx context.Context, key string) (roster.Witness, error) {
	return witness(ctx, s.read, key)
}

func witness(ctx context.Context, q querier, key string) (roster.Witness, error) {
	w, err := scanWitness(q.QueryRowContext(ctx, witnessColumns+`WHERE key = ?`, key))
	if errors.Is(err, roster.ErrUnknown) {
		return roster.Witness{Key: key}, nil
	}
	if err != nil {
		return w, fmt.Errorf("witness: %w", err)
	}
	return w, nil
}

// UpdateWitness changes what is known of a witness as f says, and puts into the
// record what f has to tell of it, if anything.
func (s *Store) UpdateWitness(ctx context.Context, key string, at time.Time, f func(roster.Witness) (w roster.Witness, step, text string)) error {
	return s.write(ctx, func(t *tx) error {
		was, err := witness(ctx, t, key)
		if err != nil {
			return err
		}
		w, step, text := f(was)
		t.quiet = step == ""
		err = t.run(ctx, `INSERT INTO witnesses VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET size = excluded.size, note = excluded.note,
			at = excluded.at, since = excluded.since, why = excluded.why, refuses = excluded.refuses, told = excluded.told`,
			key, w.Size, blob(w.Note), ns(w.At), ns(w.Since), w.Why, w.Refuses, w.Told)
		if err != nil || step == "" {
			return err
		}
		return t.own(ctx, ledger.Entry{Kind: ledger.Witnessed, At: at, Step: step, Object: was.Name(), Text: text}, "")
	})
}
