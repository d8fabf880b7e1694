package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/grant"
)

var errNoSigner = errors.New("the grant key is not loaded")

// rebuild signs a new revision of the set of each host.
func (s *Store) rebuild(ctx context.Context, t *tx, hosts []string, at time.Time) error {
	if t.signer == nil {
		return errNoSigner
	}
	signed := envelopes{}
	for _, h := range hosts {
		if err := s.rebuildOne(ctx, t, h, signed, at); err != nil {
			return fmt.Errorf("set of host %s: %w", h, err)
		}
	}
	t.hosts = append(t.hosts, hosts...)
	return nil
}

func (s *Store) rebuildOne(ctx context.Context, t *tx, name string, signed envelopes, at time.Time) error {
	ids, err := list(ctx, t, scanText, `SELECT g.id FROM grants g
		JOIN request_hosts r ON r.request = g.request JOIN hosts h ON h.name = r.host
		WHERE r.host = ? AND g.ended_at = 0 AND g.drained > ? AND g.issued_at >= h.fresh_at ORDER BY g.id`, name, ns(at))
	if err != nil {
		return err
	}
	set := grant.Set{Fleet: s.fleet, Host: name, IssuedAt: at.UTC().Truncate(time.Second)}
	for _, id := range ids {
		e, err := signed.of(ctx, t, id)
		if err != nil {
			return err
		}
		set.Grants = append(set.Grants, e)
	}
	err = t.QueryRowContext(ctx, `SELECT coalesce(max(revision), 0) + 1 FROM host_sets WHERE host = ?`, name).Scan(&set.Revision)
	if err != nil {
		return err
	}
	set.Revision = max(set.Revision, t.floor)
	envelope := t.signer.SignSet(set)
	if len(envelope) > dsse.MaxSize {
		return fmt.Errorf("%d grants at once are more than a set can carry", len(set.Grants))
	}
	return t.run(ctx, `INSERT INTO host_sets (host, revision, envelope, at) VALUES (?, ?, ?, ?)`, name, set.Revision, envelope, ns(at))
}

// envelopes are grants, signed by the present key. One that was rotated out
// may have signed them before: what they say stays, byte for byte. A grant on
// many hosts is signed once for all of their sets.
type envelopes map[string][]byte

func (all envelopes) of(ctx context.Context, t *tx, id string) ([]byte, error) {
	if e, ok := all[id]; ok {
		return e, nil
	}
	var payload []byte
	if err := t.QueryRowContext(ctx, `SELECT payload FROM grants WHERE id = ?`, id).Scan(&payload); err != nil {
		return nil, err
	}
	g, err := grant.Parse(payload)
	if err != nil {
		return nil, err
	}
	all[id] = t.signer.SignGrant(g)
	return all[id], nil
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
