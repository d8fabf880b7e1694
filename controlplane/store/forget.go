package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// forgettable is the migration after which what an entry tells may be deleted:
// once, and nothing else of it.
func forgettable(d dialect) *goose.Migration {
	return goose.NewGoMigration(54, &goose.GoFunc{RunTx: func(ctx context.Context, inner *sql.Tx) error {
		t := &tx{conn: conn{inner, d}}
		for _, statement := range []string{
			`ALTER TABLE entries ADD COLUMN erased INTEGER NOT NULL DEFAULT 0`,
			`CREATE INDEX entries_role ON entries (role, at) WHERE erased = 0 AND role <> ''`,
			`CREATE INDEX entries_erased ON entries (id) WHERE erased = 1`,
			d.unguard,
			`CREATE TRIGGER entries_stay_as_they_are BEFORE UPDATE OF id, host, outbox, seq, kind, receipt_key ON entries BEGIN
				SELECT RAISE(ABORT, 'the log is only added to');
			END;`,
			`CREATE TRIGGER entries_are_deleted_once BEFORE UPDATE OF raw, erased ON entries
			WHEN NEW.erased <> 1 OR OLD.erased <> 0 OR length(NEW.raw) > 0 BEGIN
				SELECT RAISE(ABORT, 'the log is only added to');
			END;`,
		} {
			if err := t.run(ctx, d.migration(statement)); err != nil {
				return fmt.Errorf("guard entries: %w", err)
			}
		}
		return nil
	}}, nil)
}

// forgetAtOnce is how many entries one change deletes, and one entry of the
// record tells of.
const forgetAtOnce = 500

// details are the kinds that tell what a session did. Who had which privilege,
// when and by whose word, what was refused and what was lost stays.
var details = []string{
	ledger.Exec.String(), ledger.Exit.String(), ledger.SetID.String(), ledger.Connect.String(), ledger.Open.String(), ledger.Act.String(), ledger.Named.String(),
}

// Roles are those that somebody ever had.
func (s *Store) Roles(ctx context.Context) ([]string, error) {
	return list(ctx, s.read, scanText, `SELECT DISTINCT role FROM grants ORDER BY role`)
}

// Age notes that the record goes as far as it does at a time. What an earlier
// note says of a later time was a wrong clock's.
func (s *Store) Age(ctx context.Context, at time.Time) error {
	err := s.write(ctx, func(t *tx) error {
		t.quiet = true
		if err := t.run(ctx, `DELETE FROM record_ages WHERE at >= ?`, ns(at)); err != nil {
			return err
		}
		return t.run(ctx, `INSERT INTO record_ages (at, last) SELECT CAST(? AS BIGINT), coalesce(max(id), 0) FROM entries`, ns(at))
	})
	if err != nil {
		return fmt.Errorf("note how far the record goes: %w", err)
	}
	return nil
}

// Aged is when that was noted last; the zero time: never.
func (s *Store) Aged(ctx context.Context) (at time.Time, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT coalesce(max(at), 0) FROM record_ages`).Scan(instant{&at})
	return at, err
}

// Forget deletes, of some entries, what sessions of a role did before a time,
// and puts into the record that it did. It returns of how many. Their leaves'
// hashes stay, so that the log can be checked as before.
//
// Before that time they also have to be in the record, as [Store.Age] noted:
// root on a host sets the clock there, and would have what he did deleted.
func (s *Store) Forget(ctx context.Context, role string, before, at time.Time) (int, error) {
	var numbers []uint64
	err := s.write(ctx, func(t *tx) error {
		var err error
		numbers, err = list(ctx, t, scanNumber, `SELECT id FROM entries WHERE role = ? AND at < ? AND erased = 0 AND role <> ''
			AND id <= (SELECT coalesce(max(last), 0) FROM record_ages WHERE at < ?) AND kind IN `+among(details)+` ORDER BY id LIMIT ?`,
			append(append([]any{role, ns(before), ns(before)}, args(details)...), forgetAtOnce)...)
		if err != nil || len(numbers) == 0 {
			return err
		}
		index, these := t.dialect.index, among(numbers)
		if index.drop != "" {
			err = t.run(ctx, index.drop+these, args(numbers)...)
		}
		if err == nil {
			err = t.run(ctx, `UPDATE entries SET raw = ?, erased = 1, words = '', path = '', outcome = '' WHERE id IN `+these, append([]any{blob(nil)}, args(numbers)...)...)
		}
		if err == nil && index.back != "" {
			err = t.run(ctx, index.back+these, args(numbers)...)
		}
		if err != nil {
			return err
		}
		return t.tell(ctx, roster.Act{At: at}, "deleted what entries told of sessions of role %s before %s, as its retention says: %s", role, before.UTC().Format(time.RFC3339), spans(numbers))
	})
	if err != nil {
		return 0, fmt.Errorf("delete what is too old of role %s: %w", role, err)
	}
	return len(numbers), nil
}

// spans writes ascending numbers for people.
func spans(numbers []uint64) string {
	var parts []string
	for _, r := range ledger.Ranges(numbers) {
		part := fmt.Sprint(r.From)
		if r.To != r.From {
			part += fmt.Sprintf("-%d", r.To)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// Deleted returns those of the entries, in a log of a size, that were deleted.
func (s *Store) Deleted(ctx context.Context, size uint64) ([]uint64, error) {
	return list(ctx, s.read, scanNumber, `SELECT id FROM entries WHERE erased = 1 AND id <= ? ORDER BY id`, size)
}
