package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/grant"
)

var errNoSigner = errors.New("the grant key is not loaded")

// setsAtOnce is how many sets are made of one reading of the database: each
// reading costs a round trip on PostgreSQL.
const setsAtOnce = 500

// rebuild signs a new revision of the set of each host.
func (s *Store) rebuild(ctx context.Context, t *tx, hosts []string, at time.Time) error {
	if t.signer == nil {
		return errNoSigner
	}
	known := standing{}
	for some := range slices.Chunk(hosts, setsAtOnce) {
		if err := s.rebuildSome(ctx, t, some, known, at); err != nil {
			return fmt.Errorf("sets of hosts: %w", err)
		}
	}
	t.hosts = append(t.hosts, hosts...)
	return nil
}

// pair is a host, and what is asked for of it.
type pair[T any] struct {
	host string
	of   T
}

func scanPair[T any](r scanner) (p pair[T], err error) {
	err = r.Scan(&p.host, &p.of)
	return p, err
}

func (s *Store) rebuildSome(ctx context.Context, t *tx, hosts []string, known standing, at time.Time) error {
	named := args(hosts)
	stands, err := list(ctx, t, scanPair[string], `SELECT r.host, g.id FROM grants g
		JOIN request_hosts r ON r.request = g.request JOIN hosts h ON h.name = r.host
		WHERE g.ended_at = 0 AND g.drained > ? AND g.issued_at >= h.fresh_at AND r.host IN `+among(hosts)+` ORDER BY g.id`, append([]any{ns(at)}, named...)...)
	if err != nil {
		return err
	}
	grants := map[string][][]byte{}
	for _, p := range stands {
		g, err := known.grant(ctx, t, p.of)
		if err != nil {
			return err
		}
		grants[p.host] = append(grants[p.host], t.signer.SignGrant(g.For(p.host)))
	}
	last, err := list(ctx, t, scanPair[uint64], `SELECT h.name, (SELECT coalesce(max(revision), 0) FROM host_sets WHERE host = h.name)
		FROM hosts h WHERE h.name IN `+among(hosts), named...)
	if err != nil {
		return err
	}
	var rows []any
	for _, p := range last {
		set := grant.Set{Fleet: s.fleet, Host: p.host, Revision: max(p.of+1, t.floor), IssuedAt: at.UTC().Truncate(time.Second), Grants: grants[p.host]}
		envelope := t.signer.SignSet(set)
		if len(envelope) > dsse.MaxSize {
			return fmt.Errorf("host %s: %d grants at once are more than a set can carry", p.host, len(set.Grants))
		}
		rows = append(rows, p.host, set.Revision, envelope, ns(at))
	}
	return t.insert(ctx, "host_sets (host, revision, envelope, at)", 4, rows)
}

// standing are grants as they were issued. They are signed by the present key:
// one that was rotated out may have signed them before, and what they say stays.
type standing map[string]grant.Grant

func (all standing) grant(ctx context.Context, t *tx, id string) (grant.Grant, error) {
	if g, ok := all[id]; ok {
		return g, nil
	}
	var payload []byte
	if err := t.QueryRowContext(ctx, `SELECT payload FROM grants WHERE id = ?`, id).Scan(&payload); err != nil {
		return grant.Grant{}, err
	}
	g, err := grant.Parse(payload)
	if err == nil {
		all[id] = g
	}
	return g, err
}

func scanBlob(r scanner) ([]byte, error) {
	var b []byte
	err := r.Scan(&b)
	return b, err
}

func scanText(r scanner) (string, error) {
	var v string
	err := r.Scan(&v)
	return v, err
}

// Keyring returns the envelope of the newest keyring, and its version; zero
// if there is none.
func (s *Store) Keyring(ctx context.Context) (uint64, []byte, error) {
	var version uint64
	var envelope []byte
	err := s.read.QueryRowContext(ctx, `SELECT version, envelope FROM keyrings ORDER BY version DESC LIMIT 1`).Scan(&version, &envelope)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return version, envelope, err
}

// PutKeyring keeps the keyring's next version.
func (s *Store) PutKeyring(ctx context.Context, version uint64, envelope []byte, a roster.Act) error {
	return s.write(ctx, func(t *tx) error {
		if err := t.run(ctx, `INSERT INTO keyrings VALUES (?, ?)`, version, envelope); err != nil {
			return err
		}
		return t.tell(ctx, a, "keyring %d came into force", version)
	})
}

// Resign signs anew, with the signer in use, every set that was signed by
// another key than the one with the id.
func (s *Store) Resign(ctx context.Context, keyID string, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		hosts, err := list(ctx, t, scanText, `SELECT name FROM hosts WHERE decommissioned = 0 ORDER BY name`)
		if err != nil {
			return err
		}
		var stale []string
		for _, h := range hosts {
			var b []byte
			err := t.QueryRowContext(ctx, `SELECT envelope FROM host_sets WHERE host = ? ORDER BY revision DESC LIMIT 1`, h).Scan(&b)
			if err != nil {
				return err
			}
			e, err := dsse.Parse(b)
			if err != nil || len(e.Signatures) != 1 || e.Signatures[0].KeyID != keyID {
				stale = append(stale, h)
			}
		}
		return s.rebuild(ctx, t, stale, at)
	})
}

// KeepPolicy notes that the policy of that version was taken, unless it was
// the last one taken before.
func (s *Store) KeepPolicy(ctx context.Context, version string, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		var last string
		err := t.QueryRowContext(ctx, `SELECT version FROM policy_versions ORDER BY loaded_at DESC LIMIT 1`).Scan(&last)
		if err = known(err); err != nil && !errors.Is(err, roster.ErrUnknown) || last == version {
			return err
		}
		err = t.run(ctx, `INSERT INTO policy_versions VALUES (?, ?) ON CONFLICT (version) DO UPDATE SET loaded_at = excluded.loaded_at`, version, ns(at))
		if err != nil {
			return err
		}
		return t.tell(ctx, roster.Act{At: at}, "policy %s came into force", version)
	})
}
