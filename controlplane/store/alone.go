package store

import (
	"context"
	"database/sql/driver"
	"time"
)

// letGoWithin is how long a database may take to be told that a turn is over.
const letGoWithin = 5 * time.Second

// Alone runs f, unless another server of the database is running what has the
// same name: ran says whether. A server that dies, or loses the database, lets
// go of it.
func (s *Store) Alone(ctx context.Context, name string, f func(context.Context) error) (ran bool, err error) {
	if s.turns == nil {
		return true, f(ctx)
	}
	c, err := s.turns.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer c.Close() //nolint:errcheck // it goes back, or is over
	if err := c.QueryRowContext(ctx, `SELECT pg_try_advisory_lock(7444, hashtext($1))`, name).Scan(&ran); err != nil || !ran {
		return false, err
	}
	err = f(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), letGoWithin)
	defer cancel()
	if _, held := c.ExecContext(ctx, `SELECT pg_advisory_unlock(7444, hashtext($1))`, name); held != nil {
		_ = c.Raw(func(any) error { return driver.ErrBadConn }) // with the connection ends what it holds
	}
	return true, err
}
