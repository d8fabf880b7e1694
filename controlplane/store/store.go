// Package store keeps what the control plane knows, in SQLite.
//
// It is the only package that speaks SQL. Every change is one transaction
// that leaves the database right whenever the program dies; it decides nothing
// beyond that, and what it is told to change it changes only if the present
// state still allows it.
package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers is how many questions are answered side by side.
const readers = 4

// A Signer signs what is stored for hosts.
type Signer interface {
	SignGrant(g grant.Grant) []byte
	SignSet(s grant.Set) []byte
}

// A Store is one open database. Several programs may have it open.
type Store struct {
	fleet string
	read  *sql.DB
	one   *sql.DB // the one connection that writes

	mu      sync.Mutex
	signer  Signer
	onSets  func(hosts []string)
	changed chan struct{} // closed at the next change
}

// Open opens the fleet's database, and brings it to the present form.
func Open(ctx context.Context, file, fleet string) (*Store, error) {
	dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath()}).String() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)"
	one, err := sql.Open("sqlite", dsn+"&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	one.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", dsn+"&_pragma=query_only(1)")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), one.Close())
	}
	read.SetMaxOpenConns(readers)
	s := &Store{fleet: fleet, read: read, one: one, changed: make(chan struct{})}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", file, err), s.Close())
	}
	return s, nil
}

func (s *Store) migrate(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.one, dir, goose.WithGoMigrations(takeIn))
	if err != nil {
		return err
	}
	pending, err := p.HasPending(ctx)
	if err == nil && pending {
		_, err = p.Up(ctx)
	}
	return err
}

// Close closes the database.
func (s *Store) Close() error { return errors.Join(s.read.Close(), s.one.Close()) }

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
// makes. Changes by another program are not seen.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// tx is one change in the making.
type tx struct {
	*sql.Tx
	signer Signer
	hosts  []string // whose sets it changed
	quiet  bool     // nobody waits for this change
	grown  growth
}

// write runs f in a transaction that no other writer can come between, and
// tells of it once it is committed.
func (s *Store) write(ctx context.Context, f func(*tx) error) error {
	inner, err := s.one.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	s.mu.Lock()
	t := &tx{Tx: inner, signer: s.signer}
	s.mu.Unlock()
	if err := errors.Join(f(t), t.seal(ctx)); err != nil {
		return errors.Join(err, inner.Rollback())
	}
	if err := inner.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	s.mu.Lock()
	tell := s.onSets
	if !t.quiet {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	s.mu.Unlock()
	if tell != nil && len(t.hosts) > 0 {
		tell(t.hosts)
	}
	return nil
}

// querier is what a transaction and a database have in common.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
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

// known gives the errors that callers tell apart their names.
func known(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return roster.ErrUnknown
	}
	var e *sqlite.Error
	if errors.As(err, &e) && (e.Code() == sqlitelib.SQLITE_CONSTRAINT_PRIMARYKEY || e.Code() == sqlitelib.SQLITE_CONSTRAINT_UNIQUE) {
		return fmt.Errorf("%w: %w", roster.ErrExists, err)
	}
	return err
}

// ns is an instant as the database has it; the zero time is 0.
func ns(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

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
