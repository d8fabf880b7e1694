package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// Rosters returns versions of the roster of people's keys after the one, in
// order: at least the next, if there is one, and then up to about so many bytes.
func (s *Store) Rosters(ctx context.Context, after uint64, most int) ([][]byte, error) {
	all, err := list(ctx, s.read, scanBlob, `SELECT envelope FROM rosters WHERE version > ? ORDER BY version`, after)
	if err != nil {
		return nil, fmt.Errorf("roster: %w", err)
	}
	size := 0
	for i, b := range all {
		if size += len(b); i > 0 && size > most {
			return all[:i], nil
		}
	}
	return all, nil
}

// AddRoster keeps the next version of the roster, and has every host told.
// What it has to be signed by, who calls it has checked against the version
// before: of two that come at once, the second is none.
func (s *Store) AddRoster(ctx context.Context, r grant.Roster, envelope []byte, a roster.Act) error {
	return s.write(ctx, func(t *tx) error {
		var last uint64
		if err := t.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM rosters`).Scan(&last); err != nil {
			return err
		}
		if r.Version != last+1 {
			return fmt.Errorf("roster %d after %d: %w", r.Version, last, roster.ErrExists)
		}
		err := t.run(ctx, `INSERT INTO rosters (version, envelope, at) VALUES (?, ?, ?)`, r.Version, envelope, ns(a.At))
		if err != nil {
			return err
		}
		hosts, err := list(ctx, t, scanText, `SELECT name FROM hosts WHERE decommissioned = 0`)
		if err != nil {
			return err
		}
		t.hosts = append(t.hosts, hosts...)
		return t.tell(ctx, a, "published roster %d of people's keys, which expires at %s", r.Version, r.Expires.Format(time.RFC3339))
	})
}

// LastRoster returns the newest version, verbatim; none, if there is none.
func (s *Store) LastRoster(ctx context.Context) ([]byte, error) {
	var b []byte
	err := s.read.QueryRowContext(ctx, `SELECT envelope FROM rosters ORDER BY version DESC LIMIT 1`).Scan(&b)
	if err = known(err); errors.Is(err, roster.ErrUnknown) {
		return nil, nil
	}
	return b, err
}
