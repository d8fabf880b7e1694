package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

const hostColumns = `name, labels, addresses, ssh_host_keys, receipt_key, identity, enrolled_at, decommissioned,
	leaving, left_at, seen, agent_version, mode, boot, applied, refused, unwired, ahead, access, examined, findings`

func scanHost(r scanner) (roster.Host, error) {
	var h roster.Host
	err := r.Scan(&h.Name, inJSON{&h.Labels}, inJSON{&h.Addresses}, inJSON{&h.SSHHostKeys}, (*[]byte)(&h.ReceiptKey), &h.Identity,
		instant{&h.EnrolledAt}, &h.Decommissioned, &h.Leaving, instant{&h.LeftAt}, instant{&h.Seen}, &h.AgentVersion, &h.Mode, &h.Boot, &h.Applied, &h.Refused, inJSON{&h.Unwired}, &h.Ahead,
		&h.Access, instant{&h.Examined}, inJSON{&h.Findings})
	return h, known(err)
}

func host(ctx context.Context, q querier, name string) (roster.Host, error) {
	h, err := scanHost(q.QueryRowContext(ctx, `SELECT `+hostColumns+` FROM hosts WHERE name = ?`, name))
	if err != nil {
		return h, fmt.Errorf("host: %w", err)
	}
	return h, nil
}

// Host returns the host of the name.
func (s *Store) Host(ctx context.Context, name string) (roster.Host, error) {
	h, ok, err := readTogether(ctx, &s.looks.hosts, name, func(ctx context.Context, names []string) (map[string]roster.Host, error) {
		all, err := list(ctx, s.read, scanHost, `SELECT `+hostColumns+` FROM hosts WHERE name IN `+among(names), args(names)...)
		found := make(map[string]roster.Host, len(all))
		for _, h := range all {
			found[h.Name] = h
		}
		return found, err
	})
	if err == nil && !ok {
		err = roster.ErrUnknown
	}
	if err != nil {
		return h, fmt.Errorf("host: %w", err)
	}
	return h, nil
}

// Hosts returns every host that ever enrolled, by name.
func (s *Store) Hosts(ctx context.Context) ([]roster.Host, error) {
	return list(ctx, s.read, scanHost, `SELECT `+hostColumns+` FROM hosts ORDER BY name`)
}

// PutJoinToken keeps a new token, made at the time.
func (s *Store) PutJoinToken(ctx context.Context, k roster.JoinToken, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		if err := stillThere(ctx, t, k.By); err != nil {
			return err
		}
		err := t.run(ctx, `INSERT INTO join_tokens (hash, host, labels, expires, by) VALUES (?, ?, ?, ?, ?)`,
			k.Hash[:], k.Host, object(k.Labels), ns(k.Expires), k.By)
		if err != nil {
			return err
		}
		name := k.Host
		if name == "" {
			name = "any name"
		}
		return t.tell(ctx, roster.Act{By: k.By, At: at}, "made a join code for a host of %s with labels %s", name, object(k.Labels))
	})
}

// UseJoinToken uses the token up for the host: it is in the fleet afterwards,
// with a set of its own. A host that is in the fleet already is refused, with
// [roster.ErrExists], unless the token was made for it by name. Its labels are
// the token's, or, if that has none, those that it has; if it expects others,
// it is refused with [roster.ErrLabels].
func (s *Store) UseJoinToken(ctx context.Context, hash [32]byte, h roster.Host, at time.Time) (roster.Host, error) {
	if err := grant.CheckHost(h.Name); err != nil {
		return roster.Host{}, err
	}
	err := s.write(ctx, func(t *tx) error {
		k, err := useToken(ctx, t, hash, h.Name, at)
		if err != nil {
			return err
		}
		for label, v := range h.Labels {
			if was, ok := k.Labels[label]; !ok || was != v {
				return fmt.Errorf("%w: %s=%s", roster.ErrLabels, label, v)
			}
		}
		h.Labels, h.EnrolledAt, h.Decommissioned = k.Labels, at, false
		if err := putHost(ctx, t, h, k.Host == h.Name); err != nil {
			return err
		}
		h, err = host(ctx, t, h.Name)
		if err != nil {
			return err
		}
		if err := t.tell(ctx, roster.Act{At: at}, "host %s joined with a code of %s, labels %s", h.Name, k.By, object(h.Labels)); err != nil {
			return err
		}
		return s.rebuild(ctx, t, []string{h.Name}, at)
	})
	return h, err
}

func useToken(ctx context.Context, t *tx, hash [32]byte, name string, at time.Time) (roster.JoinToken, error) {
	k := roster.JoinToken{Hash: hash}
	var used int64
	err := t.QueryRowContext(ctx, `SELECT host, labels, expires, by, used_at FROM join_tokens WHERE hash = ?`, hash[:]).
		Scan(&k.Host, inJSON{&k.Labels}, instant{&k.Expires}, &k.By, &used)
	if err != nil {
		return k, fmt.Errorf("join token: %w", known(err))
	}
	if used != 0 || !at.Before(k.Expires) {
		return k, fmt.Errorf("join token: %w", roster.ErrUsed)
	}
	if k.Host != "" && k.Host != name {
		return k, fmt.Errorf("join token is for a host of another name: %w", roster.ErrUnknown)
	}
	if k.Host != "" && len(k.Labels) == 0 {
		// The same host again, as its doctor says: its grants go on, and so
		// does what it is let in as.
		switch was, err := host(ctx, t, name); {
		case err == nil && !was.Decommissioned:
			k.Labels = was.Labels
		case err != nil && !errors.Is(err, roster.ErrUnknown):
			return k, err
		}
	}
	return k, t.exec(ctx, `UPDATE join_tokens SET used_at = ? WHERE hash = ?`, ns(at), hash[:])
}

func putHost(ctx context.Context, t *tx, h roster.Host, byName bool) error {
	fresh := h.EnrolledAt
	was, err := host(ctx, t, h.Name)
	switch {
	case errors.Is(err, roster.ErrUnknown):
	case err != nil:
		return err
	case !was.Decommissioned && !byName:
		return fmt.Errorf("host %s is in the fleet: %w: decommission it first, or make a token for it by name", h.Name, roster.ErrExists)
	case !was.Decommissioned:
		fresh = time.Time{} // the same host again: its grants go on
	}
	return t.run(ctx, `INSERT INTO hosts (name, labels, addresses, ssh_host_keys, receipt_key, identity, enrolled_at, fresh_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET labels = excluded.labels, addresses = excluded.addresses, ssh_host_keys = excluded.ssh_host_keys,
			receipt_key = excluded.receipt_key, identity = excluded.identity, enrolled_at = excluded.enrolled_at,
			fresh_at = CASE excluded.fresh_at WHEN 0 THEN hosts.fresh_at ELSE excluded.fresh_at END,
			decommissioned = 0, leaving = 0, left_at = 0, applied = 0, refused = '', boot = '', mode = '', unwired = 'null', ahead = 0,
			access = '', examined = 0, findings = 'null'`,
		h.Name, object(h.Labels), object(h.Addresses), object(h.SSHHostKeys), []byte(h.ReceiptKey), h.Identity, ns(h.EnrolledAt), ns(fresh))
}

// DecommissionHost takes the host out of the fleet, and no grant reaches a
// later host of its name. If anything may stand on it, it is
// [roster.Host.Leaving]: it has one more set to take, an empty one. Otherwise it
// is sent nothing more.
func (s *Store) DecommissionHost(ctx context.Context, name string, a roster.Act) (roster.Host, error) {
	var h roster.Host
	err := s.write(ctx, func(t *tx) error {
		var err error
		if h, err = host(ctx, t, name); err != nil || h.Decommissioned {
			return err
		}
		grants, err := mayStand(ctx, t, name, a.At)
		if err != nil {
			return err
		}
		// What was issued up to now is for no host of this name any more.
		if err := t.exec(ctx, `UPDATE hosts SET decommissioned = 1, fresh_at = ? WHERE name = ?`, ns(a.At)+1, name); err != nil {
			return err
		}
		if grants > 0 {
			err = s.rebuild(ctx, t, []string{name}, a.At)
			if err == nil {
				err = t.exec(ctx, `UPDATE hosts SET leaving = (SELECT max(revision) FROM host_sets WHERE host = ?) WHERE name = ?`, name, name)
			}
		}
		if err == nil {
			err = t.tell(ctx, a, "decommissioned host %s: %d grants stood on it, or ended without its word that nothing is left", name, grants)
		}
		if err == nil {
			h, err = host(ctx, t, name)
		}
		t.hosts = append(t.hosts, name) // the fleet hangs up on it
		return err
	})
	if err != nil {
		return h, fmt.Errorf("host: %w", err)
	}
	return h, nil
}

// mayStand counts the grants of which something may be on the host: they have
// not ended, or did before their time and the host has not signed that
// nothing is left. Whether it was ever sent them does not count: it may have
// taken more than it said.
func mayStand(ctx context.Context, t *tx, name string, at time.Time) (n int, err error) {
	err = t.QueryRowContext(ctx, `SELECT count(*) FROM grants g JOIN request_hosts r ON r.request = g.request
		WHERE r.host = ? AND g.drained > ? AND g.issued_at >= (SELECT fresh_at FROM hosts WHERE name = ?)
			AND (g.ended_at = 0 OR NOT `+confirmed+`)`, name, ns(at), name).Scan(&n)
	return n, err
}

// Seen keeps what the host said of itself when it connected.
func (s *Store) Seen(ctx context.Context, name string, at time.Time, said roster.Host) error {
	return s.writeTogether(ctx, func(t *tx) error {
		err := t.exec(ctx, `UPDATE hosts SET seen = ?, agent_version = ?, mode = ?, boot = ?, addresses = ?, ssh_host_keys = ? WHERE name = ?`,
			ns(at), said.AgentVersion, said.Mode, said.Boot, object(said.Addresses), object(said.SSHHostKeys), name)
		if err != nil {
			return err
		}
		return t.ahead(ctx, name, said.Applied, at)
	})
}

// Applied keeps what the host made of the set that it was sent.
func (s *Store) Applied(ctx context.Context, name string, r roster.Report, at time.Time) error {
	return s.writeTogether(ctx, func(t *tx) error {
		err := t.exec(ctx, `UPDATE hosts SET seen = ?, applied = ?, refused = ?, unwired = ?, access = ?, examined = ?, findings = ?,
			left_at = CASE WHEN ? = 1 AND leaving > 0 AND ? >= leaving THEN ? ELSE left_at END,
			leaving = CASE WHEN ? = 1 AND ? >= leaving THEN 0 ELSE leaving END WHERE name = ?`,
			ns(at), r.Revision, r.Refused, object(r.Unwired), r.Access, ns(r.Examined), object(r.Findings), r.Settled, r.Revision, ns(at), r.Settled, r.Revision, name)
		if err == nil {
			err = t.ahead(ctx, name, r.Revision, at)
		}
		if err != nil {
			return err
		}
		return t.run(ctx, `UPDATE host_sets SET applied_at = ? WHERE host = ? AND revision <= ? AND applied_at = 0`, ns(at), name, r.Revision)
	})
}

// State returns what the host is to hold. A host that is ahead of the database
// is to be sent nothing.
func (s *Store) State(ctx context.Context, name string) (roster.State, error) {
	v, ok, err := readTogether(ctx, &s.looks.states, name, s.states)
	if err == nil && !ok {
		err = roster.ErrUnknown
	}
	if err != nil {
		return v, fmt.Errorf("set of host: %w", err)
	}
	return v, nil
}

func (s *Store) states(ctx context.Context, names []string) (map[string]roster.State, error) {
	all, err := list(ctx, s.read, func(r scanner) (p pair[roster.State], err error) {
		err = r.Scan(&p.host, &p.of.Revision, &p.of.Set, &p.of.Keyring, &p.of.Ahead, &p.of.Roster)
		return p, err
	}, `SELECT h.name, s.revision, s.envelope, (SELECT envelope FROM keyrings ORDER BY version DESC LIMIT 1), h.ahead > 0,
		(SELECT coalesce(max(version), 0) FROM rosters)
		FROM hosts h JOIN host_sets s ON s.host = h.name AND s.revision = (SELECT max(revision) FROM host_sets WHERE host = h.name)
		WHERE h.name IN `+among(names)+` AND (h.decommissioned = 0 OR h.leaving > 0 OR h.left_at > 0)`, args(names)...)
	found := make(map[string]roster.State, len(all))
	for _, p := range all {
		found[p.host] = p.of
	}
	return found, err
}

// Count counts what the operator's figures show: gains of privilege since a
// time, and what there is now.
func (s *Store) Count(ctx context.Context, since time.Time) (roster.Count, error) {
	var c roster.Count
	err := s.read.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE state = 'asked'), count(*) FILTER (WHERE state = 'issued')
		FROM requests WHERE state IN ('asked', 'issued')`).Scan(&c.Asked, &c.Issued)
	if err != nil {
		return c, err
	}
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FROM entries WHERE kind IN ('gap', 'privilege') AND kind = 'privilege' AND at >= ?`, ns(since)).Scan(&c.Privileged)
	if err != nil {
		return c, err
	}
	c.Hosts, err = list(ctx, s.read, scanText, `SELECT name FROM hosts WHERE decommissioned = 0`)
	return c, err
}
