package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers is how many questions are answered side by side.
const readers = 4

// Open opens the fleet's database, a file or what a postgres:// URL names, and
// brings it to the present form.
func Open(ctx context.Context, place, fleet string) (*Store, error) {
	s := &Store{fleet: fleet, me: rand.Text(), changed: make(chan struct{})}
	if err := s.connect(place); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("database: %w", err), s.Close())
	}
	if settle := s.one.dialect.settle; settle != "" {
		if _, err := s.writer.ExecContext(ctx, settle); err != nil {
			return nil, errors.Join(fmt.Errorf("database: %w", err), s.Close())
		}
	}
	return s, nil
}

// IsURL tells the URL of a PostgreSQL database from the name of a file.
func IsURL(place string) bool {
	return strings.HasPrefix(place, "postgres://") || strings.HasPrefix(place, "postgresql://")
}

// connect makes the connections to the database.
func (s *Store) connect(place string) error {
	to := s.openSQLite
	if IsURL(place) {
		to = s.openPostgres
	}
	if err := to(place); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(1)
	s.reader.SetMaxOpenConns(readers)
	return nil
}

// writing is for the connection that writes: it keeps the ends of its indexes at
// hand (16 MiB), and the file is brought up to date after some 32 MiB of changes,
// since many of them change the same pages.
const writing = "&_txlock=immediate&_pragma=wal_autocheckpoint(8000)&_pragma=cache_size(-16000)"

func (s *Store) openSQLite(file string) error {
	dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath()}).String() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)"
	var err error
	if s.writer, err = sql.Open("sqlite", dsn+writing); err != nil {
		return err
	}
	if s.reader, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		return errors.Join(err, s.writer.Close())
	}
	s.one, s.read = conn{s.writer, onSQLite}, conn{s.reader, onSQLite}
	return nil
}

func (s *Store) migrate(ctx context.Context) error {
	p, err := s.provider()
	if err != nil {
		return err
	}
	pending, err := p.HasPending(ctx)
	if err == nil && pending {
		_, err = p.Up(ctx)
	}
	return err
}

// provider brings the database to its present form.
func (s *Store) provider() (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	d := s.one.dialect
	options := append([]goose.ProviderOption{goose.WithGoMigrations(takeIn(d), findable(d), indexedAtOnce(d), forgettable(d), indexedOnce(d))}, d.options...)
	return goose.NewProvider(d.goose, s.writer, translated{dir, d.migration}, options...)
}
