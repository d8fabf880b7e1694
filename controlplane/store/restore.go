package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"curfew.internal/controlplane/roster"
)

// ahead notes that a host keeps a revision which this database has not given.
// The database was set back, then, and what it would send next may have been
// revoked since: the host is sent nothing until [Store.Restored].
func (t *tx) ahead(ctx context.Context, name string, kept uint64, at time.Time) error {
	kept = min(kept, math.MaxInt64) // what databases can hold
	var given, was uint64
	err := t.QueryRowContext(ctx, `SELECT (SELECT coalesce(max(revision), 0) FROM host_sets WHERE host = h.name), h.ahead FROM hosts h WHERE h.name = ?`, name).
		Scan(&given, &was)
	if err != nil || kept <= max(given, was) {
		return known(err)
	}
	if err := t.exec(ctx, `UPDATE hosts SET ahead = ? WHERE name = ?`, kept, name); err != nil || was > 0 {
		return err
	}
	return t.tell(ctx, roster.Act{At: at}, "host %s keeps revision %d of its grants, and the control plane has given %d: it is sent nothing until `curfew-server restored`", name, kept, given)
}

// ErrDump means that the database has a means of its own to be copied.
var ErrDump = errors.New("the database is PostgreSQL's: pg_dump copies it")

// Backup copies the database, as it is at one instant, into a file that is
// empty. Changes go on meanwhile.
func (s *Store) Backup(ctx context.Context, file string) error {
	if s.shared != nil {
		return ErrDump
	}
	_, err := s.one.ExecContext(ctx, `VACUUM INTO ?`, file)
	return err
}

// Restored is for a database that was set back, as when a backup was restored.
// Nobody knows what was ended since the backup, so all ends that it says
// stands: requests, grants, delegations, sessions and codes. The sets that say so have
// revisions that no set of before can have, made from the time: hosts refuse
// a lower one than they keep.
func (s *Store) Restored(ctx context.Context, a roster.Act, text string) error {
	return s.write(ctx, func(t *tx) error {
		if err := t.tell(ctx, a, "%s", text); err != nil {
			return err
		}
		t.floor = uint64(max(a.At.UnixMilli(), 0))
		open := query{`WHERE r.state IN ('asked', 'issued')`, nil}
		if err := s.endOpen(ctx, t, open, a, "the database was restored: this may have been ended since the backup"); err != nil {
			return err
		}
		if err := t.endDelegations(ctx, "", a, ": the database was restored"); err != nil {
			return err
		}
		for _, q := range []string{`DELETE FROM sessions`, `DELETE FROM web_sessions`, `DELETE FROM invites`, `DELETE FROM join_tokens WHERE used_at = 0`} {
			if err := t.run(ctx, q); err != nil {
				return err
			}
		}
		if err := t.run(ctx, `UPDATE hosts SET ahead = 0 WHERE ahead < ?`, t.floor); err != nil {
			return err
		}
		hosts, err := list(ctx, t, scanText, `SELECT name FROM hosts WHERE decommissioned = 0 OR leaving > 0 ORDER BY name`)
		if err != nil {
			return err
		}
		return s.rebuild(ctx, t, hosts, a.At)
	})
}

// A query is the rest of one, behind what it reads.
type query struct {
	rest string
	args []any
}

// endOpen ends every request and grant that a query names.
func (s *Store) endOpen(ctx context.Context, t *tx, q query, a roster.Act, why string) error {
	// Anew after each: the end of one may have ended others.
	for {
		all, err := someRequests(ctx, t, q.rest+` LIMIT 1`, q.args...)
		if err != nil || len(all) == 0 {
			return err
		}
		r := all[0]
		c := roster.Change{State: "denied", By: a.By, Note: why}
		if r.Grant != nil {
			c.State = revoked
		}
		c.Steps = []roster.Decision{{At: a.At, What: c.State, Person: a.By, Text: c.Note}}
		if err := s.apply(ctx, t, r, a.At, c); err != nil {
			return fmt.Errorf("end %s: %w", r.ID, err)
		}
	}
}
