// Package store keeps what the control plane knows, in SQLite or PostgreSQL.
//
// It is the only package that speaks SQL. Every change is one transaction
// that leaves the database right whenever the program dies; it decides nothing
// beyond that, and what it is told to change it changes only if the present
// state still allows it.
//
// A statement is written once, in SQL that both databases understand, with "?"
// for its arguments. A flag is 0 or 1 in the database and a bool here. How a
// migration is written, once for both, says migrations/README.md. The whole
// test suite runs on both.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// A Signer signs what is stored for hosts.
type Signer interface {
	SignGrant(g grant.Grant) []byte
	SignSet(s grant.Set) []byte
}

// A Store is one open database. Several programs may have it open.
type Store struct {
	fleet  string
	me     string          // among the servers of the database
	shared *pgx.ConnConfig // nil: the database has no other server
	writer *sql.DB
	reader *sql.DB
	turns  *sql.DB // of servers, one after the other; nil as shared is
	one    conn    // the one connection that writes
	read   conn

	shares gathered[share]
	looks  struct {
		hosts  gathered[question[string, roster.Host]]
		states gathered[question[string, roster.State]]
		ended  gathered[question[endedSince, map[uint64]string]]
	}

	mu      sync.Mutex
	signer  Signer
	onSets  func(hosts []string)
	changed chan struct{} // closed at the next change
}

// Close closes the database. Nobody asks it for anything any more.
func (s *Store) Close() error {
	for _, working := range []*sync.WaitGroup{&s.shares.working, &s.looks.hosts.working, &s.looks.states.working, &s.looks.ended.working} {
		working.Wait()
	}
	errs := []error{s.reader.Close(), s.writer.Close()}
	if s.turns != nil {
		errs = append(errs, s.turns.Close())
	}
	return errors.Join(errs...)
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	var n int
	return s.read.QueryRowContext(ctx, `SELECT count(*) FROM keyrings`).Scan(&n)
}

// Use makes s sign with signer from now on.
func (s *Store) Use(signer Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signer = signer
}

// OnSets makes s call f, after the commit, with the hosts whose sets have
// changed.
func (s *Store) OnSets(f func(hosts []string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onSets = f
}

// Changed returns a channel that is closed at the next change that this Store
// makes, or hears of ([Store.Follow]).
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// tx is one change in the making.
type tx struct {
	conn
	signer Signer
	hosts  []string // whose sets it changed
	quiet  bool     // nobody waits for this change
	floor  uint64   // no set of it has a lower revision
	grown  growth
	roles  map[string]string // of grants
}

// write runs f in a transaction that no other writer can come between, and
// tells of it once it is committed.
func (s *Store) write(ctx context.Context, f func(*tx) error) error {
	inner, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	s.mu.Lock()
	t := &tx{conn: conn{inner, s.one.dialect}, signer: s.signer}
	s.mu.Unlock()
	if err = t.begin(ctx); err == nil {
		err = f(t)
	}
	if err == nil {
		err = t.seal(ctx)
	}
	if err == nil {
		err = t.find(ctx)
	}
	news := news{By: s.me, Hosts: t.hosts, Quiet: t.quiet}
	if err == nil {
		err = t.tellOthers(ctx, news)
	}
	if err != nil {
		return errors.Join(err, inner.Rollback())
	}
	if err := inner.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	s.wake(news)
	return nil
}

// begin waits until no other change is under way, on any server.
func (t *tx) begin(ctx context.Context) error {
	if t.dialect.begin == "" {
		return nil // SQLite has begun with it
	}
	if _, err := t.ExecContext(ctx, t.dialect.begin); err != nil {
		return fmt.Errorf("wait for the database's turn: %w", err)
	}
	return nil
}

// among is a list of the places of arguments.
func among[T any](all []T) string {
	if len(all) == 0 {
		return "(NULL)"
	}
	return "(" + strings.TrimSuffix(strings.Repeat("?, ", len(all)), ", ") + ")"
}

// args are the arguments of such a list.
func args[T any](all []T) []any {
	out := make([]any, len(all))
	for i, v := range all {
		out[i] = v
	}
	return out
}

// scanner is a row.
type scanner interface{ Scan(to ...any) error }

// list returns all rows of a query.
func list[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err below tells
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// exec runs a statement that has to change exactly one row; it returns
// [roster.ErrUnknown] if it changed none.
func (t *tx) exec(ctx context.Context, query string, args ...any) error {
	r, err := t.ExecContext(ctx, query, args...)
	if err != nil {
		return known(err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return errors.Join(roster.ErrUnknown, err)
	}
	return nil
}

// run runs a statement that may change any number of rows.
func (t *tx) run(ctx context.Context, query string, args ...any) error {
	_, err := t.ExecContext(ctx, query, args...)
	return known(err)
}

// uniqueViolation is PostgreSQL's code for a key that is there already.
const uniqueViolation = "23505"

// known gives the errors that callers tell apart their names.
func known(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return roster.ErrUnknown
	}
	var lite *sqlite.Error
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &lite) && (lite.Code() == sqlitelib.SQLITE_CONSTRAINT_PRIMARYKEY || lite.Code() == sqlitelib.SQLITE_CONSTRAINT_UNIQUE),
		errors.As(err, &pg) && pg.Code == uniqueViolation:
		return fmt.Errorf("%w: %w", roster.ErrExists, err)
	}
	return err
}

// ns is an instant as the database has it; the zero time is 0.
func ns(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.After(latest):
		return latest.UnixNano()
	case t.Before(earliest):
		return earliest.UnixNano()
	}
	return t.UnixNano()
}

// The times that nanoseconds count to. What is asked for beyond them, such as all
// before the year 9999, would be of some other time.
var earliest, latest = time.Unix(0, -1<<62), time.Unix(0, math.MaxInt64)

// instant reads what ns wrote.
type instant struct{ to *time.Time }

// Scan implements [sql.Scanner].
func (i instant) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*i.to = time.Time{}
	case int64:
		*i.to = time.Time{}
		if v != 0 {
			*i.to = time.Unix(0, v).UTC()
		}
	default:
		return fmt.Errorf("instant: %T", v)
	}
	return nil
}

// object is a value kept as JSON.
func object(v any) string {
	b, _ := json.Marshal(v) // maps and slices of strings always marshal
	return string(b)
}

// inJSON reads what object wrote.
type inJSON struct{ to any }

// Scan implements [sql.Scanner].
func (j inJSON) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("JSON: %T", v)
	}
	return json.Unmarshal([]byte(s), j.to)
}
