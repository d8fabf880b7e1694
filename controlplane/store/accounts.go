package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"curfew.internal/controlplane/roster"
)

// Account returns whose account at a provider it is.
func (s *Store) Account(ctx context.Context, issuer, subject string) (roster.Account, error) {
	return account(ctx, s.read, issuer, subject)
}

func account(ctx context.Context, q querier, issuer, subject string) (roster.Account, error) {
	a := roster.Account{Issuer: issuer, Subject: subject}
	err := q.QueryRowContext(ctx, `SELECT person FROM accounts WHERE issuer = ? AND subject = ?`, issuer, subject).Scan(&a.Person)
	if err != nil {
		return a, fmt.Errorf("account: %w", known(err))
	}
	return a, nil
}

// Arrive opens a session for somebody for whom a provider vouched, if the
// account is hers or becomes so now, and she is not disabled. A device that
// she has not had yet becomes hers.
func (s *Store) Arrive(ctx context.Context, v roster.Arrival, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		if err := enabled(ctx, t, v.Person); err != nil {
			return err
		}
		act := roster.Act{By: v.Person, At: at}
		for _, step := range []func(context.Context, roster.Arrival, roster.Act) error{t.bind, t.tellGroups, t.tellManager} {
			if err := step(ctx, v, act); err != nil {
				return err
			}
		}
		if err := t.dropSessions(ctx, at); err != nil {
			return err
		}
		return t.enter(ctx, v, act)
	})
}

// enter opens the session, on a browser or a device.
func (t *tx) enter(ctx context.Context, v roster.Arrival, a roster.Act) error {
	add := addWebSession
	if !v.Session.Browser {
		add, v.Session.Name = addSession, v.DeviceName
		if err := t.take(ctx, v, a); err != nil {
			return err
		}
	}
	if err := add(ctx, t, v.Session); err != nil {
		return err
	}
	v.Session.Name += ", by " + v.Issuer
	return t.sign(ctx, v.Session, roster.SignedIn, a.At)
}

// bind makes a new account the person's, or makes sure that it is hers.
func (t *tx) bind(ctx context.Context, v roster.Arrival, a roster.Act) error {
	if v.Bind {
		err := t.run(ctx, `INSERT INTO accounts (issuer, subject, person, bound_at) VALUES (?, ?, ?, ?)`, v.Issuer, v.Subject, v.Person, ns(a.At))
		if err != nil {
			return fmt.Errorf("account: %w", err)
		}
		return t.tell(ctx, a, "proved to be account %q at %s", v.Subject, v.Issuer)
	}
	is, err := account(ctx, t, v.Issuer, v.Subject)
	if err == nil && is.Person != v.Person {
		err = fmt.Errorf("account: %w", roster.ErrUnknown)
	}
	return err
}

// take makes a device that nobody has the person's; [roster.ErrUsed] if
// somebody else has it.
func (t *tx) take(ctx context.Context, v roster.Arrival, a roster.Act) error {
	var owner string
	err := known(t.QueryRowContext(ctx, `SELECT person FROM devices WHERE key = ?`, []byte(v.Session.Device)).Scan(&owner))
	switch {
	case err == nil && owner != v.Person:
		return fmt.Errorf("device: %w", roster.ErrUsed)
	case !errors.Is(err, roster.ErrUnknown):
		return err
	}
	if err := t.run(ctx, `INSERT INTO devices VALUES (?, ?, ?, ?)`, []byte(v.Session.Device), v.Person, v.DeviceName, ns(a.At)); err != nil {
		return fmt.Errorf("device: %w", err)
	}
	return t.tell(ctx, a, "added device %q", v.DeviceName)
}

// dropSessions forgets the sessions that are over.
func (t *tx) dropSessions(ctx context.Context, at time.Time) error {
	for _, table := range []string{"sessions", "web_sessions"} {
		if err := t.run(ctx, `DELETE FROM `+table+` WHERE expires <= ?`, ns(at)); err != nil {
			return err
		}
	}
	return nil
}
