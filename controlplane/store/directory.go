package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"curfew.internal/controlplane/roster"
)

const dirUserColumns = `SELECT d.id, d.external_id, d.user_name, p.full_name, d.person, d.manager, p.email, p.disabled = 0, d.created_at, d.changed_at
	FROM dir_users d JOIN people p ON p.name = d.person `

func scanDirUser(r scanner) (roster.DirUser, error) {
	var u roster.DirUser
	err := r.Scan(&u.ID, &u.ExternalID, &u.UserName, &u.FullName, &u.Person, &u.Manager, &u.Email, &u.Active, instant{&u.Created}, instant{&u.Changed})
	return u, known(err)
}

func dirUser(ctx context.Context, q querier, id string) (roster.DirUser, error) {
	u, err := scanDirUser(q.QueryRowContext(ctx, dirUserColumns+`WHERE d.id = ?`, id))
	if err != nil {
		return u, fmt.Errorf("user of the directory: %w", err)
	}
	return u, nil
}

// DirUser returns the directory's user of the id.
func (s *Store) DirUser(ctx context.Context, id string) (roster.DirUser, error) {
	return dirUser(ctx, s.read, id)
}

// DirUsers returns the directory's users, the oldest first.
func (s *Store) DirUsers(ctx context.Context) ([]roster.DirUser, error) {
	return list(ctx, s.read, scanDirUser, dirUserColumns+`ORDER BY d.created_at, d.id`)
}

// AddDirUser takes up a user of the directory's: somebody new, or a person
// whom the fleet has. Who was disabled here does not come back in this way.
func (s *Store) AddDirUser(ctx context.Context, u roster.DirUser, a roster.Act) (roster.DirUser, error) {
	err := s.write(ctx, func(t *tx) error {
		p, err := person(ctx, t, u.Person)
		if errors.Is(err, roster.ErrUnknown) {
			_, err = t.addPerson(ctx, roster.Person{Name: u.Person, FullName: u.FullName}, a)
		} else if err == nil && p.Disabled {
			err = fmt.Errorf("person %s: %w", p.Name, roster.ErrDisabled)
		}
		if err != nil {
			return err
		}
		u.Email = cmp.Or(u.Email, p.Email) // what an admin set stands until the directory says another
		err = t.run(ctx, `INSERT INTO dir_users (id, person, user_name, folded, external_id, created_at, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			u.ID, u.Person, u.UserName, strings.ToLower(u.UserName), u.ExternalID, ns(a.At), ns(a.At))
		if err != nil {
			return fmt.Errorf("user of the directory: %w", err)
		}
		if err := t.tell(ctx, a, "%s is kept by the directory, as %q", u.Person, u.UserName); err != nil {
			return err
		}
		u, err = s.putDirUser(ctx, t, u, a)
		return err
	})
	return u, err
}

// ChangeDirUser changes a user of the directory's as f says.
func (s *Store) ChangeDirUser(ctx context.Context, id string, a roster.Act, f func(roster.DirUser) (roster.DirUser, error)) (roster.DirUser, error) {
	var u roster.DirUser
	err := s.write(ctx, func(t *tx) error {
		was, err := dirUser(ctx, t, id)
		if err == nil {
			u, err = f(was)
		}
		if err != nil {
			return err
		}
		u.ID, u.Person = was.ID, was.Person
		if u == was {
			return nil
		}
		u, err = s.putDirUser(ctx, t, u, a)
		return err
	})
	return u, err
}

// putDirUser writes what the directory says of somebody whom it has.
func (s *Store) putDirUser(ctx context.Context, t *tx, u roster.DirUser, a roster.Act) (roster.DirUser, error) {
	err := t.exec(ctx, `UPDATE dir_users SET user_name = ?, folded = ?, external_id = ?, manager = ?, changed_at = ? WHERE id = ?`,
		u.UserName, strings.ToLower(u.UserName), u.ExternalID, u.Manager, ns(a.At), u.ID)
	if err == nil && u.FullName != "" {
		err = t.exec(ctx, `UPDATE people SET full_name = ? WHERE name = ?`, u.FullName, u.Person)
	}
	if err == nil {
		err = t.setEmail(ctx, u.Person, u.Email, a)
	}
	if err == nil {
		err = s.letOrEnd(ctx, t, u, a)
	}
	if err != nil {
		return u, fmt.Errorf("user of the directory: %w", err)
	}
	return dirUser(ctx, t, u.ID)
}

// letOrEnd disables whom the directory no longer has as active, and lets back
// in whom it has again, if it was the directory that disabled her.
func (s *Store) letOrEnd(ctx context.Context, t *tx, u roster.DirUser, a roster.Act) error {
	var disabled, ended bool
	err := t.QueryRowContext(ctx, `SELECT p.disabled, d.ended FROM dir_users d JOIN people p ON p.name = d.person WHERE d.id = ?`, u.ID).Scan(&disabled, &ended)
	switch {
	case err != nil:
		return known(err)
	case !u.Active && !disabled:
		if err := t.run(ctx, `UPDATE dir_users SET ended = 1 WHERE id = ?`, u.ID); err != nil {
			return err
		}
		return s.endForDirectory(ctx, t, u.Person, a)
	case u.Active && disabled && ended:
		// Her account at a provider is to be proved anew, too, with what she
		// enrols now.
		err := errors.Join(t.exec(ctx, `UPDATE people SET disabled = 0 WHERE name = ?`, u.Person), t.run(ctx, `UPDATE dir_users SET ended = 0 WHERE id = ?`, u.ID),
			t.run(ctx, `DELETE FROM accounts WHERE person = ?`, u.Person))
		if err != nil {
			return err
		}
		return t.tell(ctx, a, "enabled %s again, with nothing to prove herself with", u.Person)
	}
	return nil
}

// endForDirectory disables somebody, in the same way as an admin does.
func (s *Store) endForDirectory(ctx context.Context, t *tx, name string, a roster.Act) error {
	var others int
	err := t.QueryRowContext(ctx, `SELECT count(*) FROM people WHERE admin = 1 AND disabled = 0 AND name <> ?`, name).Scan(&others)
	if err != nil {
		return err
	}
	p, err := person(ctx, t, name)
	if err == nil && p.Admin && others == 0 {
		err = roster.ErrLastAdmin // a fleet without one could not be mended from outside
	}
	if err != nil {
		return err
	}
	return s.disable(ctx, t, name, a)
}

// DropDirUser disables somebody whom the directory has deleted, and forgets
// that it had her.
func (s *Store) DropDirUser(ctx context.Context, id string, a roster.Act) error {
	return s.write(ctx, func(t *tx) error {
		u, err := dirUser(ctx, t, id)
		if err != nil {
			return err
		}
		if u.Active {
			if err := s.endForDirectory(ctx, t, u.Person, a); err != nil {
				return err
			}
		}
		if err := t.exec(ctx, `DELETE FROM dir_users WHERE id = ?`, id); err != nil {
			return err
		}
		return t.tell(ctx, a, "%s is kept by the directory no more", u.Person)
	})
}

// Directory is what the directory knows of those who are not disabled.
func (s *Store) Directory(ctx context.Context) (roster.Directory, error) {
	members, err := memberships(ctx, s.read, `SELECT g.name, d.person FROM dir_members m JOIN dir_groups g ON g.id = m.grp JOIN dir_users d ON d.id = m.member
		JOIN people p ON p.name = d.person WHERE p.disabled = 0 ORDER BY g.name, d.person`)
	if err != nil {
		return roster.Directory{}, err
	}
	managers, err := managersOf(ctx, s.read, `SELECT d.person, m.person FROM dir_users d JOIN dir_users m ON m.id = d.manager
		JOIN people p ON p.name = m.person WHERE p.disabled = 0`)
	return roster.Directory{Members: members, Managers: managers}, err
}

func scanDirGroup(r scanner) (roster.DirGroup, error) {
	var g roster.DirGroup
	err := r.Scan(&g.ID, &g.ExternalID, &g.Name, instant{&g.Created}, instant{&g.Changed})
	return g, known(err)
}

const dirGroupColumns = `SELECT id, external_id, name, created_at, changed_at FROM dir_groups `

func dirGroup(ctx context.Context, q querier, id string) (roster.DirGroup, error) {
	g, err := scanDirGroup(q.QueryRowContext(ctx, dirGroupColumns+`WHERE id = ?`, id))
	if err != nil {
		return g, fmt.Errorf("group of the directory: %w", err)
	}
	g.Members, err = list(ctx, q, scanText, `SELECT member FROM dir_members WHERE grp = ? ORDER BY member`, id)
	return g, err
}

// DirGroup returns the directory's group of the id.
func (s *Store) DirGroup(ctx context.Context, id string) (roster.DirGroup, error) {
	return dirGroup(ctx, s.read, id)
}

// DirGroups returns the directory's groups, the oldest first.
func (s *Store) DirGroups(ctx context.Context) ([]roster.DirGroup, error) {
	all, err := list(ctx, s.read, scanDirGroup, dirGroupColumns+`ORDER BY created_at, id`)
	if err != nil {
		return nil, err
	}
	rows, err := memberships(ctx, s.read, `SELECT grp, member FROM dir_members ORDER BY grp, member`)
	for i := range all {
		all[i].Members = rows[all[i].ID]
	}
	return all, err
}

// AddDirGroup takes up a group of the directory's.
func (s *Store) AddDirGroup(ctx context.Context, g roster.DirGroup, a roster.Act) (roster.DirGroup, error) {
	err := s.write(ctx, func(t *tx) error {
		err := t.run(ctx, `INSERT INTO dir_groups (id, name, external_id, created_at, changed_at) VALUES (?, ?, ?, ?, ?)`, g.ID, g.Name, g.ExternalID, ns(a.At), ns(a.At))
		if err != nil {
			return fmt.Errorf("group of the directory: %w", err)
		}
		g, err = t.putDirGroup(ctx, roster.DirGroup{}, g, a)
		return err
	})
	return g, err
}

// ChangeDirGroup changes a group of the directory's as f says.
func (s *Store) ChangeDirGroup(ctx context.Context, id string, a roster.Act, f func(roster.DirGroup) (roster.DirGroup, error)) (roster.DirGroup, error) {
	var g roster.DirGroup
	err := s.write(ctx, func(t *tx) error {
		was, err := dirGroup(ctx, t, id)
		if err != nil {
			return err
		}
		next := was
		next.Members = slices.Clone(was.Members)
		if g, err = f(next); err != nil {
			return err
		}
		g.ID = was.ID
		g, err = t.putDirGroup(ctx, was, g, a)
		return err
	})
	return g, err
}

// putDirGroup writes a group, and tells whom it has gained and lost.
func (t *tx) putDirGroup(ctx context.Context, was, g roster.DirGroup, a roster.Act) (roster.DirGroup, error) {
	err := t.exec(ctx, `UPDATE dir_groups SET name = ?, external_id = ?, changed_at = ? WHERE id = ?`, g.Name, g.ExternalID, ns(a.At), g.ID)
	if err != nil {
		return g, fmt.Errorf("group of the directory: %w", err)
	}
	slices.Sort(g.Members)
	g.Members = slices.Compact(g.Members)
	if g.Name != was.Name && was.Name != "" {
		err = t.tell(ctx, a, "the directory calls its group %q %q", was.Name, g.Name)
	}
	for _, id := range without(was.Members, g.Members) {
		err = errors.Join(err, t.run(ctx, `DELETE FROM dir_members WHERE grp = ? AND member = ?`, g.ID, id), t.tellMember(ctx, id, "is no more", g.Name, a))
	}
	for _, id := range without(g.Members, was.Members) {
		if err := t.tellMember(ctx, id, "is", g.Name, a); err != nil {
			return g, err
		}
		err = errors.Join(err, t.run(ctx, `INSERT INTO dir_members (grp, member) VALUES (?, ?)`, g.ID, id))
	}
	if err != nil {
		return g, err
	}
	return dirGroup(ctx, t, g.ID)
}

func (t *tx) tellMember(ctx context.Context, id, is, group string, a roster.Act) error {
	u, err := dirUser(ctx, t, id)
	if errors.Is(err, roster.ErrUnknown) {
		err = fmt.Errorf("%q: %w", id, roster.ErrMember)
	}
	if err != nil {
		return err
	}
	return t.tell(ctx, a, "%s %s in group %q of the directory", u.Person, is, group)
}

// without are those of all that are not among some.
func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

// DropDirGroup forgets a group that the directory has deleted.
func (s *Store) DropDirGroup(ctx context.Context, id string, a roster.Act) error {
	return s.write(ctx, func(t *tx) error {
		g, err := dirGroup(ctx, t, id)
		if err != nil {
			return err
		}
		if err := t.exec(ctx, `DELETE FROM dir_groups WHERE id = ?`, id); err != nil {
			return err
		}
		return t.tell(ctx, a, "the directory has no group %q any more", g.Name)
	})
}
