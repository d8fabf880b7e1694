package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

const personColumns = `name, full_name, uid, admin, disabled, email,
	EXISTS (SELECT 1 FROM totp WHERE person = people.name) OR EXISTS (SELECT 1 FROM passkeys WHERE person = people.name)`

func scanPerson(r scanner) (roster.Person, error) {
	var p roster.Person
	err := r.Scan(&p.Name, &p.FullName, &p.UID, &p.Admin, &p.Disabled, &p.Email, &p.Enrolled)
	return p, known(err)
}

func person(ctx context.Context, q querier, name string) (roster.Person, error) {
	p, err := scanPerson(q.QueryRowContext(ctx, `SELECT `+personColumns+` FROM people WHERE name = ?`, name))
	if err != nil {
		return p, fmt.Errorf("person: %w", err)
	}
	return p, nil
}

// Person returns the person of the name.
func (s *Store) Person(ctx context.Context, name string) (roster.Person, error) {
	return person(ctx, s.read, name)
}

// Knows reports whether there is such a person, at the same pains whether there
// is or not: strangers may have it asked.
func (s *Store) Knows(ctx context.Context, name string) (known bool, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM people WHERE name = ?)`, name).Scan(&known)
	return known, err
}

// People returns everybody, by name.
func (s *Store) People(ctx context.Context) ([]roster.Person, error) {
	return list(ctx, s.read, scanPerson, `SELECT `+personColumns+` FROM people ORDER BY name`)
}

// AddPerson adds somebody new and gives her a uid that nobody ever had.
func (s *Store) AddPerson(ctx context.Context, p roster.Person, a roster.Act) (roster.Person, error) {
	if err := errors.Join(grant.CheckPerson(p.Name), grant.CheckText("full name", p.FullName, 100), roster.CheckEmail(p.Email)); err != nil {
		return roster.Person{}, err
	}
	err := s.write(ctx, func(t *tx) error {
		var err error
		p, err = t.addPerson(ctx, p, a)
		return err
	})
	return p, err
}

func (t *tx) addPerson(ctx context.Context, p roster.Person, a roster.Act) (roster.Person, error) {
	// People are never deleted: the highest uid given is in the table.
	var uid int64
	if err := t.QueryRowContext(ctx, `SELECT coalesce(max(uid) + 1, ?) FROM people`, grant.UIDMin).Scan(&uid); err != nil {
		return p, err
	}
	if uid > grant.UIDMax {
		return p, errors.New("every uid of the range was given to somebody")
	}
	p.UID, p.Disabled, p.Enrolled = uint32(uid), false, false //nolint:gosec // in range
	err := t.run(ctx, `INSERT INTO people (name, full_name, uid, admin, email) VALUES (?, ?, ?, ?, ?)`, p.Name, p.FullName, uid, p.Admin, p.Email)
	if err != nil {
		return p, err
	}
	as := "a person"
	if p.Admin {
		as = "an admin"
	}
	return p, t.tell(ctx, a, "added %s, %s", p.Name, as)
}

// SetEmail says where a person is told what concerns her; empty: nowhere. The
// record has that it was changed, and never the address.
func (s *Store) SetEmail(ctx context.Context, name, email string, a roster.Act) (roster.Person, error) {
	if err := roster.CheckEmail(email); err != nil {
		return roster.Person{}, err
	}
	var p roster.Person
	err := s.write(ctx, func(t *tx) error {
		err := t.setEmail(ctx, name, email, a)
		if err == nil {
			p, err = person(ctx, t, name)
		}
		return err
	})
	return p, err
}

func (t *tx) setEmail(ctx context.Context, name, email string, a roster.Act) error {
	p, err := person(ctx, t, name)
	if err != nil || p.Email == email {
		return err
	}
	if err := t.exec(ctx, `UPDATE people SET email = ? WHERE name = ?`, email, name); err != nil {
		return err
	}
	if email == "" {
		return t.tell(ctx, a, "took the mail address of %s away", name)
	}
	return t.tell(ctx, a, "set the mail address of %s", name)
}

// DisablePerson ends all that the person has, at once: devices, sessions,
// second factor, codes, requests that wait, grants that stand. The directory
// does not let her in again, also if it had ended her before.
func (s *Store) DisablePerson(ctx context.Context, name string, a roster.Act) (roster.Person, error) {
	var p roster.Person
	err := s.write(ctx, func(t *tx) error {
		err := s.disable(ctx, t, name, a)
		if err == nil {
			err = t.run(ctx, `UPDATE dir_users SET ended = 0 WHERE person = ?`, name)
		}
		if err == nil {
			p, err = person(ctx, t, name)
		}
		return err
	})
	return p, err
}

func (s *Store) disable(ctx context.Context, t *tx, name string, a roster.Act) error {
	if err := t.exec(ctx, `UPDATE people SET disabled = 1 WHERE name = ?`, name); err != nil {
		return fmt.Errorf("person: %w", err)
	}
	if err := errors.Join(t.forget(ctx, name, a.At), t.endCodes(ctx, name)); err != nil {
		return err
	}
	if err := errors.Join(s.endAllOf(ctx, t, name, a), t.endDelegations(ctx, name, a, ": the account of one of them was disabled")); err != nil {
		return err
	}
	if err := t.endApprovals(ctx, name, a); err != nil {
		return err
	}
	return t.tell(ctx, a, "disabled %s", name)
}

// endApprovals takes what the person said yes to and still waits for somebody
// else: no grant is to come to stand on the word of one who is out. The story
// of each request has both.
func (t *tx) endApprovals(ctx context.Context, name string, a roster.Act) error {
	all, err := someRequests(ctx, t, `JOIN approvals a ON a.request = r.id WHERE a.person = ? AND r.state = 'asked' ORDER BY r.id`, name)
	if err != nil {
		return err
	}
	for _, r := range all {
		if err := t.exec(ctx, `DELETE FROM approvals WHERE request = ? AND person = ?`, r.ID, name); err != nil {
			return err
		}
		c := roster.Change{Steps: []roster.Decision{{At: a.At, What: roster.UnsaidStep, Person: a.By, Text: name + "'s approval counts no more: the account was disabled"}}}
		if err := t.steps(ctx, r, c); err != nil {
			return err
		}
	}
	return nil
}

// endCodes ends the codes that would let the person in, and those that she
// made: one that she kept would let her in again, as somebody else or as a
// host.
func (t *tx) endCodes(ctx context.Context, name string) error {
	return errors.Join(
		t.run(ctx, `DELETE FROM invites WHERE person = ? OR made_by = ?`, name, name),
		t.run(ctx, `DELETE FROM join_tokens WHERE by = ? AND used_at = 0`, name),
	)
}

// stillThere refuses a code whose maker was disabled while she made it. Who is
// none of the fleet's people made it on the server.
func stillThere(ctx context.Context, t *tx, by string) error {
	err := enabled(ctx, t, by)
	if errors.Is(err, roster.ErrUnknown) {
		return nil
	}
	return err
}

// forget takes all that the person could prove herself with, and ends her
// sessions.
func (t *tx) forget(ctx context.Context, name string, at time.Time) error {
	all, err := sessions(ctx, t, name, at)
	if err != nil {
		return err
	}
	for _, v := range all {
		if err := t.sign(ctx, v, roster.CutOff, at); err != nil {
			return err
		}
	}
	for _, table := range []string{"sessions", "web_sessions", "devices", "totp", "totp_enrolled", "passkeys"} {
		if err := t.run(ctx, `DELETE FROM `+table+` WHERE person = ?`, name); err != nil {
			return err
		}
	}
	return nil
}

// PutInvite keeps a new invite in place of all earlier ones of the person.
func (s *Store) PutInvite(ctx context.Context, i roster.Invite, a roster.Act) error {
	return s.write(ctx, func(t *tx) error {
		p, err := person(ctx, t, i.Person)
		if err != nil {
			return err
		}
		if p.Disabled {
			return fmt.Errorf("person %s: %w", p.Name, roster.ErrDisabled)
		}
		if err := errors.Join(stillThere(ctx, t, a.By), t.run(ctx, `DELETE FROM invites WHERE person = ?`, i.Person)); err != nil {
			return err
		}
		if err := t.run(ctx, `INSERT INTO invites (hash, person, expires, secret, failures, retry_at, device, adds, made_by) VALUES (?, ?, ?, ?, 0, 0, ?, ?, ?)`,
			i.Hash[:], i.Person, ns(i.Expires), blob(nil), blob(nil), i.Adds, a.By); err != nil {
			return err
		}
		return t.tell(ctx, a, "made a code for %s to enrol with", i.Person)
	})
}

// UpdateInvite changes the pending factor of an unused invite as f says. What
// f returns is kept even beside an error, so that a wrong guess counts.
func (s *Store) UpdateInvite(ctx context.Context, hash [32]byte, f func(roster.Invite) (roster.Invite, error)) error {
	var refused error
	err := s.write(ctx, func(t *tx) error {
		i := roster.Invite{Hash: hash}
		err := t.QueryRowContext(ctx, `SELECT person, expires, secret, failures, retry_at, device, adds FROM invites WHERE hash = ?`, hash[:]).
			Scan(&i.Person, instant{&i.Expires}, &i.Pending.Secret, &i.Pending.Failures, instant{&i.Pending.RetryAt}, (*[]byte)(&i.Device), &i.Adds)
		if err != nil {
			return fmt.Errorf("invite: %w", known(err))
		}
		i, refused = f(i)
		return t.exec(ctx, `UPDATE invites SET secret = ?, failures = ?, retry_at = ?, device = ? WHERE hash = ?`,
			blob(i.Pending.Secret), i.Pending.Failures, ns(i.Pending.RetryAt), blob(i.Device), hash[:])
	})
	return errors.Join(err, refused)
}

// UseInvite uses the invite up. What is enrolled takes the place of all that
// the person had, so that whoever lost a device is rid of it; unless the
// invite says that it comes beside it.
func (s *Store) UseInvite(ctx context.Context, e roster.Enrolment, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		var adds bool
		err := t.QueryRowContext(ctx, `DELETE FROM invites WHERE hash = ? AND person = ? AND expires > ? RETURNING adds`, e.Invite[:], e.Session.Person, ns(at)).Scan(&adds)
		if errors.Is(known(err), roster.ErrUnknown) {
			return fmt.Errorf("invite: %w", roster.ErrUsed)
		}
		how := "beside what there was"
		if err == nil && !adds {
			// Whoever has her account at a provider comes in no more: it has to
			// be proved with what is enrolled now.
			how = "in place of all earlier ones"
			err = errors.Join(t.forget(ctx, e.Session.Person, at), t.run(ctx, `DELETE FROM accounts WHERE person = ?`, e.Session.Person))
		}
		if err != nil {
			return err
		}
		a := roster.Act{By: e.Session.Person, At: at}
		if e.Passkey != nil {
			if err := errors.Join(addPasskey(ctx, t, *e.Passkey), addWebSession(ctx, t, e.Session)); err != nil {
				return err
			}
			if err := t.tell(ctx, a, "enrolled passkey %q, %s", e.Passkey.Name, how); err != nil {
				return err
			}
			return t.sign(ctx, e.Session, roster.SignedIn, at)
		}
		if err := enrolDevice(ctx, t, e, at); err != nil {
			return err
		}
		if err := t.tell(ctx, a, "enrolled device %q and a second factor, %s", e.DeviceName, how); err != nil {
			return err
		}
		e.Session.Name = e.DeviceName
		return t.sign(ctx, e.Session, roster.SignedIn, at)
	})
}

func enrolDevice(ctx context.Context, t *tx, e roster.Enrolment, at time.Time) error {
	err := t.run(ctx, `INSERT INTO totp VALUES (?, ?, ?, 0, 0)
		ON CONFLICT (person) DO UPDATE SET secret = excluded.secret, step = excluded.step, failures = 0, retry_at = 0`, e.Session.Person, e.Factor.Secret, e.Factor.LastStep)
	if err == nil {
		err = t.run(ctx, `INSERT INTO totp_enrolled (person, secret, added_at) VALUES (?, ?, ?)
			ON CONFLICT (person) DO UPDATE SET secret = excluded.secret, added_at = excluded.added_at`, e.Session.Person, e.Factor.Secret, ns(at))
	}
	if err != nil {
		return err
	}
	err = t.run(ctx, `INSERT INTO devices VALUES (?, ?, ?, ?)`, []byte(e.Session.Device), e.Session.Person, e.DeviceName, ns(at))
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	return addSession(ctx, t, e.Session)
}

func addSession(ctx context.Context, t *tx, s roster.Session) error {
	return t.run(ctx, `INSERT INTO sessions (id, person, device, expires, proved_at) VALUES (?, ?, ?, ?, ?)`,
		s.ID, s.Person, []byte(s.Device), ns(s.Expires), ns(s.Proved))
}

// UpdateFactor changes the person's second factor as f says. What f returns
// is kept even beside an error, so that a wrong guess counts.
func (s *Store) UpdateFactor(ctx context.Context, name string, f func(roster.TOTP) (roster.TOTP, error)) error {
	var refused error
	err := s.write(ctx, func(t *tx) error {
		t.quiet = true
		var v roster.TOTP
		err := t.QueryRowContext(ctx, `SELECT secret, step, failures, retry_at FROM totp WHERE person = ?`, name).
			Scan(&v.Secret, &v.LastStep, &v.Failures, instant{&v.RetryAt})
		if err != nil {
			return fmt.Errorf("second factor: %w", known(err))
		}
		v, refused = f(v)
		if err := t.refuse(ctx, name, v.RefusedAt); err != nil {
			return err
		}
		return t.exec(ctx, `UPDATE totp SET step = ?, failures = ?, retry_at = ? WHERE person = ?`, v.LastStep, v.Failures, ns(v.RetryAt), name)
	})
	return errors.Join(err, refused)
}

// Device returns the device with the key.
func (s *Store) Device(ctx context.Context, key []byte) (roster.Device, error) {
	d := roster.Device{Key: key}
	err := s.read.QueryRowContext(ctx, `SELECT person, name, added_at FROM devices WHERE key = ?`, key).Scan(&d.Person, &d.Name, instant{&d.AddedAt})
	if err != nil {
		return roster.Device{}, fmt.Errorf("device: %w", known(err))
	}
	return d, nil
}

// AddSession opens a session of a device that is known or of a browser, and
// forgets those that are over. Of who is disabled, with [roster.ErrDisabled], it
// opens none.
func (s *Store) AddSession(ctx context.Context, v roster.Session, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		if err := t.dropSessions(ctx, at); err != nil {
			return err
		}
		// Who was disabled since she proved herself has no session that would
		// stand again with her.
		if err := enabled(ctx, t, v.Person); err != nil {
			return err
		}
		add := addSession
		if v.Browser {
			add = addWebSession
		}
		if err := add(ctx, t, v); err != nil {
			return err
		}
		if !v.Browser {
			if err := t.QueryRowContext(ctx, `SELECT name FROM devices WHERE key = ?`, []byte(v.Device)).Scan(&v.Name); err != nil {
				return fmt.Errorf("device: %w", known(err))
			}
		}
		return t.sign(ctx, v, roster.SignedIn, at)
	})
}

// keptOver is for how long nonces are kept beyond their end. Of several servers
// each goes by its own clock: one that is ahead would forget a nonce that another
// still takes, and would have it count twice there. Servers whose clocks are
// further apart than this cannot both take calls: signatures and codes of people
// are good for a minute or so.
const keptOver = 10 * time.Minute

// UseNonce keeps the session's nonce until then; [roster.ErrUsed] if it is
// there already. That one row decides, whichever server is asked.
func (s *Store) UseNonce(ctx context.Context, session, nonce string, until, at time.Time) error {
	err := s.write(ctx, func(t *tx) error {
		t.quiet = true
		if err := t.run(ctx, `DELETE FROM nonces WHERE until < ?`, ns(at.Add(-keptOver))); err != nil {
			return err
		}
		return t.run(ctx, `INSERT INTO nonces VALUES (?, ?, ?)`, session, nonce, ns(until))
	})
	if errors.Is(err, roster.ErrExists) {
		return roster.ErrUsed
	}
	return err
}

// blob keeps an empty value from becoming NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
