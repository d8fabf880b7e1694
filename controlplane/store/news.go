package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// news is what servers of one database tell each other of a change. It only
// wakes: whoever hears it looks for himself.
type news struct {
	By    string   `json:"by"`              // the server that made the change
	Hosts []string `json:"hosts,omitempty"` // whose sets it changed
	Many  bool     `json:"many,omitempty"`  // too many hosts to name
	Quiet bool     `json:"quiet,omitempty"` // nobody else waits for it
}

// most is what PostgreSQL takes in one notification, and a little less.
const most = 7900

// tellOthers tells the other servers of the change, when it is committed and if
// it is.
func (t *tx) tellOthers(ctx context.Context, n news) error {
	if t.dialect.tell == "" || n.Quiet && len(n.Hosts) == 0 {
		return nil
	}
	text := object(n)
	if len(text) > most {
		text = object(news{By: n.By, Many: true, Quiet: n.Quiet})
	}
	if _, err := t.ExecContext(ctx, t.dialect.tell, text); err != nil {
		return fmt.Errorf("tell the other servers: %w", err)
	}
	return nil
}

// wake tells those who wait in this program.
func (s *Store) wake(n news) {
	s.mu.Lock()
	tell := s.onSets
	if !n.Quiet {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	s.mu.Unlock()
	if tell != nil && len(n.Hosts) > 0 {
		tell(n.Hosts)
	}
}

// A server that hears nothing asks so often whether it is still heard, and
// waits so long for the answer.
const (
	askEvery  = 10 * time.Second
	answersIn = 5 * time.Second
)

// Follow hears what other servers of the database change, and wakes those who
// wait for it here, until ctx is done or the database cannot be heard any
// more. It begins by waking everybody: what was said before is lost. With
// SQLite there is no other server.
func (s *Store) Follow(ctx context.Context) error {
	if s.shared == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	c, err := pgx.ConnectConfig(ctx, s.shared)
	if err == nil {
		err = s.listen(ctx, c)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), answersIn)
		defer cancel()
		err = errors.Join(err, c.Close(last))
	}
	return fmt.Errorf("hear the other servers: %w", err)
}

func (s *Store) listen(ctx context.Context, c *pgx.Conn) error {
	if _, err := c.Exec(ctx, "LISTEN curfew"); err != nil {
		return err
	}
	if err := s.hear(ctx, news{Many: true}); err != nil {
		return err
	}
	for {
		wait, cancel := context.WithTimeout(ctx, askEvery)
		said, err := c.WaitForNotification(wait)
		cancel()
		switch {
		case err == nil:
			var n news
			if json.Unmarshal([]byte(said.Payload), &n) != nil {
				n = news{Many: true} // of a later version, perhaps
			}
			err = s.hear(ctx, n)
		case ctx.Err() == nil && wait.Err() != nil:
			err = answers(ctx, c)
		}
		if err != nil {
			return err
		}
	}
}

// answers asks the database whether it is there.
func answers(ctx context.Context, c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, answersIn)
	defer cancel()
	return c.Ping(ctx)
}

// hear wakes for what another server did.
func (s *Store) hear(ctx context.Context, n news) error {
	if n.By == s.me {
		return nil
	}
	var err error
	if n.Many {
		n.Hosts, err = list(ctx, s.read, scanText, `SELECT name FROM hosts`)
	}
	s.wake(n)
	return err
}
