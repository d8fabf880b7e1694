package door

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"curfew.internal/wire/shell"
)

// How many shells are heard at once: of one account, and of all accounts that
// no grant names. Those have nothing to ask for, and there can be as many of
// them as somebody has subordinate uids: they take no place of the others.
const (
	shellsOfOne = 8
	strangers   = 32
)

// A Shells hears people who typed sudo. Everybody on the host may call: who
// that is, the kernel says.
type Shells struct {
	Path string
	// Talk hears a visitor out. It has to come back by itself when ctx is done.
	Talk func(ctx context.Context, v *Visitor)
	// Ours reports whether a grant names the account.
	Ours func(uid uint32) bool
	// Up, if set, is called once shells can call.
	Up  func()
	Log *slog.Logger

	mu      sync.Mutex // guards what follows
	by      map[uint32]int
	strange int // of those in by, who are not ours
}

// Serve hears visitors until ctx is done, and then until all have left.
func (s *Shells) Serve(ctx context.Context) error {
	s.by = map[uint32]int{}
	return (&Server{Path: s.Path, Log: s.Log, Up: s.Up, mode: 0o666, visit: s.visit}).Serve(ctx)
}

func (s *Shells) visit(ctx context.Context, c *net.UnixConn) (err error) {
	defer func() { err = errors.Join(err, c.Close()) }()
	who, err := caller(c)
	defer who.close()
	if err != nil {
		return err
	}
	leave, ok := s.enter(who.UID)
	if !ok {
		return fmt.Errorf("uid %d calls from too many shells at once", who.UID)
	}
	defer leave()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("talk with a shell broke: %v", p)
		}
	}()
	s.Talk(ctx, &Visitor{Caller: who, conn: c})
	return nil
}

// enter takes a place, if there is one.
func (s *Shells) enter(uid uint32) (leave func(), ok bool) {
	stranger := 1
	if s.Ours(uid) {
		stranger = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[uid] >= shellsOfOne || s.strange+stranger > strangers {
		return nil, false
	}
	s.by[uid]++
	s.strange += stranger
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.strange -= stranger
		if s.by[uid]--; s.by[uid] == 0 {
			delete(s.by, uid)
		}
	}, true
}

// A Visitor is a shell that calls.
type Visitor struct {
	Caller
	conn *net.UnixConn
}

// Hear waits for the next line until ctx is done or the shell has left, which
// is an error.
func (v *Visitor) Hear(ctx context.Context) (shell.Line, error) {
	if err := v.conn.SetReadDeadline(time.Time{}); err != nil {
		return shell.Line{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = v.conn.SetReadDeadline(time.Unix(1, 0)) }) // Read says so
	defer stop()
	buf := make([]byte, shell.MaxPacket+1)
	n, err := v.conn.Read(buf)
	if err != nil {
		return shell.Line{}, fmt.Errorf("hear a shell: %w", err)
	}
	return shell.ParseLine(buf[:n])
}

// Tell says something, or gives up after a moment: a shell that does not read
// is not waited for.
func (v *Visitor) Tell(ctx context.Context, r shell.Reply) error {
	b, err := shell.Bytes(r)
	if err != nil {
		return err
	}
	ctx, done := context.WithTimeout(ctx, patience)
	defer done()
	stop := context.AfterFunc(ctx, func() { _ = v.conn.SetWriteDeadline(time.Unix(1, 0)) }) // Write says so
	defer stop()
	if err := v.conn.SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	if _, err := v.conn.Write(b); err != nil {
		return fmt.Errorf("tell a shell: %w", err)
	}
	return nil
}
