package store

import (
	"context"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/roster"
)

// toldFor is how long it counts which groups the provider said somebody is in:
// it says so only when she signs in there.
const toldFor = 7 * 24 * time.Hour

type member struct{ group, person string }

// Claimed is what the provider said of people when they signed in, as far as
// it counts still: of those who are not disabled.
func (s *Store) Claimed(ctx context.Context, at time.Time) (roster.Directory, error) {
	since := ns(at.Add(-toldFor))
	members, err := memberships(ctx, s.read, `SELECT m.grp, m.person FROM members m JOIN people p ON p.name = m.person
		WHERE p.disabled = 0 AND m.told_at > ? ORDER BY m.grp, m.person`, since)
	if err != nil {
		return roster.Directory{}, err
	}
	managers, err := managersOf(ctx, s.read, `SELECT m.person, m.manager FROM managers m JOIN people p ON p.name = m.manager
		WHERE p.disabled = 0 AND m.told_at > ?`, since)
	return roster.Directory{Members: members, Managers: managers}, err
}

// managersOf reads rows of a person and her manager.
func managersOf(ctx context.Context, q querier, query string, args ...any) (map[string]string, error) {
	rows, err := memberships(ctx, q, query, args...)
	all := map[string]string{}
	for person, managers := range rows {
		all[person] = managers[0]
	}
	return all, err
}

// memberships reads rows of a group and somebody in it.
func memberships(ctx context.Context, q querier, query string, args ...any) (map[string][]string, error) {
	rows, err := list(ctx, q, func(r scanner) (member, error) {
		var m member
		err := r.Scan(&m.group, &m.person)
		return m, err
	}, query, args...)
	all := map[string][]string{}
	for _, m := range rows {
		all[m.group] = append(all[m.group], m.person)
	}
	return all, err
}

// tellGroups keeps which groups the person is in, if the provider was asked,
// and tells if they changed.
func (t *tx) tellGroups(ctx context.Context, v roster.Arrival, a roster.Act) error {
	if v.Groups == nil {
		return nil
	}
	was, err := list(ctx, t, scanText, `SELECT grp FROM members WHERE person = ? ORDER BY grp`, v.Person)
	if err != nil {
		return err
	}
	now := slices.Compact(slices.Sorted(slices.Values(v.Groups)))
	if err := t.run(ctx, `DELETE FROM members WHERE person = ?`, v.Person); err != nil {
		return err
	}
	for _, g := range now {
		if err := t.run(ctx, `INSERT INTO members (grp, person, told_at) VALUES (?, ?, ?)`, g, v.Person, ns(a.At)); err != nil {
			return err
		}
	}
	if slices.Equal(was, now) {
		return nil
	}
	return t.tell(ctx, a, "is in groups of %s: %s", v.Issuer, strings.Join(append(now, "none")[:max(1, len(now))], ", "))
}

// tellManager keeps whom the provider calls the person's manager, if the fleet
// knows her.
func (t *tx) tellManager(ctx context.Context, v roster.Arrival, a roster.Act) error {
	if err := t.run(ctx, `DELETE FROM managers WHERE person = ?`, v.Person); err != nil || v.Manager == "" {
		return err
	}
	return t.run(ctx, `INSERT INTO managers (person, manager, told_at) SELECT ?, name, ? FROM people WHERE name = ?`, v.Person, ns(a.At), v.Manager)
}
