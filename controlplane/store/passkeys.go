package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"curfew.internal/controlplane/roster"
)

const passkeyColumns = `SELECT id, person, name, body, added_at, used_at, locked FROM passkeys ` //nolint:gosec // columns, no secret

func scanPasskey(r scanner) (roster.Passkey, error) {
	var k roster.Passkey
	err := r.Scan(&k.ID, &k.Person, &k.Name, &k.Body, instant{&k.AddedAt}, instant{&k.UsedAt}, &k.Locked)
	return k, known(err)
}

// Passkey returns the passkey of the id.
func (s *Store) Passkey(ctx context.Context, id []byte) (roster.Passkey, error) {
	k, err := scanPasskey(s.read.QueryRowContext(ctx, passkeyColumns+`WHERE id = ?`, blob(id)))
	if err != nil {
		return k, fmt.Errorf("passkey: %w", err)
	}
	return k, nil
}

// Factors returns what the person can prove herself with.
func (s *Store) Factors(ctx context.Context, name string) (roster.Factors, error) {
	var f roster.Factors
	err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM totp WHERE person = ?)`, name).Scan(&f.TOTP)
	if err != nil {
		return f, err
	}
	f.Passkeys, err = list(ctx, s.read, scanPasskey, passkeyColumns+`WHERE person = ? ORDER BY added_at, id`, name)
	return f, err
}

// AddPasskey keeps a passkey beside those that its person has.
func (s *Store) AddPasskey(ctx context.Context, k roster.Passkey) error {
	return s.write(ctx, func(t *tx) error {
		if err := enabled(ctx, t, k.Person); err != nil {
			return err
		}
		if err := addPasskey(ctx, t, k); err != nil {
			return err
		}
		return t.tell(ctx, roster.Act{By: k.Person, At: k.AddedAt}, "added passkey %q", k.Name)
	})
}

func addPasskey(ctx context.Context, t *tx, k roster.Passkey) error {
	err := t.run(ctx, `INSERT INTO passkeys (id, person, name, body, added_at) VALUES (?, ?, ?, ?, ?)`, k.ID, k.Person, k.Name, k.Body, ns(k.AddedAt))
	if err != nil {
		return fmt.Errorf("passkey: %w", err)
	}
	return nil
}

// UpdatePasskey changes the passkey as f says. What f returns is kept even
// beside an error, so that a locked one stays so.
func (s *Store) UpdatePasskey(ctx context.Context, id []byte, f func(roster.Passkey) (roster.Passkey, error)) error {
	var refused error
	err := s.write(ctx, func(t *tx) error {
		t.quiet = true
		k, err := scanPasskey(t.QueryRowContext(ctx, passkeyColumns+`WHERE id = ?`, blob(id)))
		if err != nil {
			return fmt.Errorf("passkey: %w", err)
		}
		was := k.Locked
		k, refused = f(k)
		if err := t.refuse(ctx, k.Person, k.RefusedAt); err != nil {
			return err
		}
		if k.Locked && !was {
			t.quiet = false
			if err := t.tell(ctx, roster.Act{By: k.Person, At: k.UsedAt}, "passkey %q of %s was locked: its counter went back, so that somebody may have a copy of it", k.Name, k.Person); err != nil {
				return err
			}
		}
		return t.exec(ctx, `UPDATE passkeys SET body = ?, used_at = ?, locked = ? WHERE id = ?`, k.Body, ns(k.UsedAt), k.Locked, id)
	})
	if err != nil {
		return err
	}
	return refused
}

// RemovePasskey takes a passkey from its person.
func (s *Store) RemovePasskey(ctx context.Context, id []byte, a roster.Act) error {
	return s.write(ctx, func(t *tx) error {
		k, err := scanPasskey(t.QueryRowContext(ctx, passkeyColumns+`WHERE id = ? AND person = ?`, blob(id), a.By))
		if err != nil {
			return fmt.Errorf("passkey: %w", err)
		}
		if err := t.exec(ctx, `DELETE FROM passkeys WHERE id = ?`, k.ID); err != nil {
			return err
		}
		var left bool
		err = t.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM totp WHERE person = ?) OR EXISTS (SELECT 1 FROM passkeys WHERE person = ? AND locked = 0)`, a.By, a.By).Scan(&left)
		if err == nil && !left {
			err = roster.ErrLastFactor
		}
		if err != nil {
			return err
		}
		if err := t.forgetProofs(ctx, a.By); err != nil {
			return err
		}
		return t.tell(ctx, a, "removed passkey %q", k.Name)
	})
}

const (
	sessionColumns    = `SELECT s.id, s.person, s.device, d.name, s.expires, s.proved_at FROM sessions s JOIN devices d ON d.key = s.device WHERE `
	webSessionColumns = `SELECT id, person, browser, begun_at, expires, proved_at FROM web_sessions WHERE `
)

func scanSession(r scanner) (roster.Session, error) {
	var v roster.Session
	err := r.Scan(&v.ID, &v.Person, (*[]byte)(&v.Device), &v.Name, instant{&v.Expires}, instant{&v.Proved})
	return v, known(err)
}

func scanWebSession(r scanner) (roster.Session, error) {
	v := roster.Session{Browser: true}
	err := r.Scan(&v.ID, &v.Person, &v.Name, instant{&v.Begun}, instant{&v.Expires}, instant{&v.Proved})
	return v, known(err)
}

// Session returns the session if it stands, and whose it is.
func (s *Store) Session(ctx context.Context, id string, at time.Time) (roster.Session, roster.Person, error) {
	v, err := scanSession(s.read.QueryRowContext(ctx, sessionColumns+`s.id = ? AND s.expires > ?`, id, ns(at)))
	if errors.Is(err, roster.ErrUnknown) {
		v, err = scanWebSession(s.read.QueryRowContext(ctx, webSessionColumns+`id = ? AND expires > ?`, id, ns(at)))
	}
	if err != nil {
		return v, roster.Person{}, fmt.Errorf("session: %w", err)
	}
	p, err := s.Person(ctx, v.Person)
	if err == nil && p.Disabled {
		err = roster.ErrDisabled
	}
	return v, p, err
}

// Sessions returns the person's sessions that stand: of devices, then of
// browsers.
func (s *Store) Sessions(ctx context.Context, name string, at time.Time) ([]roster.Session, error) {
	return sessions(ctx, s.read, name, at)
}

func sessions(ctx context.Context, q querier, name string, at time.Time) ([]roster.Session, error) {
	devices, err := list(ctx, q, scanSession, sessionColumns+`s.person = ? AND s.expires > ? ORDER BY s.expires DESC, s.id`, name, ns(at))
	if err != nil {
		return nil, err
	}
	browsers, err := list(ctx, q, scanWebSession, webSessionColumns+`person = ? AND expires > ? ORDER BY expires DESC, id`, name, ns(at))
	return slices.Concat(devices, browsers), err
}

// Proved notes that the session's person proved herself.
func (s *Store) Proved(ctx context.Context, id string, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		t.quiet = true
		return t.proved(ctx, id, at)
	})
}

func (t *tx) proved(ctx context.Context, id string, at time.Time) error {
	if err := t.run(ctx, `UPDATE sessions SET proved_at = ? WHERE id = ?`, ns(at), id); err != nil {
		return err
	}
	return t.run(ctx, `UPDATE web_sessions SET proved_at = ? WHERE id = ?`, ns(at), id)
}

// EndSession ends the session. The step says how: one that is over already
// has no other end.
func (s *Store) EndSession(ctx context.Context, v roster.Session, step string, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		table := "sessions"
		if v.Browser {
			table = "web_sessions"
		}
		err := t.exec(ctx, `DELETE FROM `+table+` WHERE id = ?`, v.ID)
		if errors.Is(err, roster.ErrUnknown) {
			return nil
		}
		if err != nil {
			return err
		}
		return t.sign(ctx, v, step, at)
	})
}

func addWebSession(ctx context.Context, t *tx, v roster.Session) error {
	return t.run(ctx, `INSERT INTO web_sessions VALUES (?, ?, ?, ?, ?, ?)`, v.ID, v.Person, v.Name, ns(v.Begun), ns(v.Expires), ns(v.Proved))
}
