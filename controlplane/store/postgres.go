package store

import (
	"errors"
	"net"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// CheckURL checks the URL of a PostgreSQL database. Secrets stand in files, and
// nobody between a server and its database may read or change what they say.
func CheckURL(place string) error {
	_, err := postgresConfig(place)
	return err
}

func postgresConfig(place string) (*pgx.ConnConfig, error) {
	u, err := url.Parse(place)
	if err != nil {
		return nil, errors.New("the database's URL cannot be read: write it like postgres://curfew@db.example/curfew?sslmode=verify-full")
	}
	if _, written := u.User.Password(); written || u.Query().Has("password") {
		return nil, errors.New("the database's URL has a password: write passfile=FILE into it instead, with a file as of libpq (~/.pgpass)")
	}
	c, err := pgx.ParseConfig(place)
	if err != nil {
		return nil, err
	}
	if !private(c.Host, c.TLSConfig != nil && !c.TLSConfig.InsecureSkipVerify) {
		return nil, errNotPrivate
	}
	for _, f := range c.Fallbacks {
		if !private(f.Host, f.TLSConfig != nil && !f.TLSConfig.InsecureSkipVerify) {
			return nil, errNotPrivate
		}
	}
	// A server that is cut off in the middle of a change does not hold up the
	// others for long.
	for name, v := range map[string]string{
		"application_name": "curfew-server", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "10s",
	} {
		if c.RuntimeParams[name] == "" {
			c.RuntimeParams[name] = v
		}
	}
	return c, nil
}

var errNotPrivate = errors.New("the database is on another machine, and the connection would not check who answers: write sslmode=verify-full (and sslrootcert=FILE) into its URL")

// private reports whether nobody can come between us and the database.
func private(host string, verified bool) bool {
	ip := net.ParseIP(host)
	return verified || strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
}

func (s *Store) openPostgres(place string) error {
	c, err := postgresConfig(place)
	if err != nil {
		return err
	}
	look := c.Copy()
	look.RuntimeParams["default_transaction_read_only"] = "on"
	s.shared = look
	s.writer, s.reader, s.turns = stdlib.OpenDB(*c), stdlib.OpenDB(*look), stdlib.OpenDB(*look)
	s.one, s.read = conn{s.writer, onPostgres}, conn{s.reader, onPostgres}
	return nil
}
