package store

import (
	"context"
	"errors"

	"curfew.internal/controlplane/roster"
)

// Forwarded is the last entry that a target of the record took; found is false
// for a target that was never heard of.
func (s *Store) Forwarded(ctx context.Context, target string) (upTo uint64, found bool, err error) {
	err = known(s.read.QueryRowContext(ctx, `SELECT up_to FROM forwarded WHERE target = ?`, target).Scan(&upTo))
	if errors.Is(err, roster.ErrUnknown) {
		return 0, false, nil
	}
	return upTo, err == nil, err
}

// KeepForwarded keeps that a target took everything up to an entry.
func (s *Store) KeepForwarded(ctx context.Context, target string, upTo uint64) error {
	return s.write(ctx, func(t *tx) error {
		t.quiet = true
		return t.run(ctx, `INSERT INTO forwarded VALUES (?, ?) ON CONFLICT (target) DO UPDATE SET up_to = excluded.up_to`, target, upTo)
	})
}
