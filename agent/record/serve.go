// Package record records terminals.
//
// A person's login shell hands its terminal over and is given another one,
// whose other end a process of the recorder's holds, one for each terminal: so
// whoever ends the recorder ends the terminal with it. What passes is written
// down before it is shown. It decides nothing about who may log in, signs
// nothing and sends nothing: recordings lie in a folder until the agent has
// taken them.
package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/wire/terminal"
)

// Bounds on callers.
const (
	atOnce    = 1024
	perPerson = 64
	helloIn   = 10 * time.Second // a login's program has just been started, maybe on a busy host
	heardIn   = 2 * time.Second
)

// A Server answers logins, and starts a recorder for each terminal.
type Server struct {
	Path    string // of the socket that everybody may call
	Desk    string // where the agent says who logs in
	Spool   string // where recordings lie
	Program []string
	Clock   clock.Clock
	Log     *slog.Logger

	mu  sync.Mutex // guards what follows
	all int
	by  map[uint32]int // callers, by uid
}

// Serve answers until ctx is done. Recorders that it started go on: they are
// processes of their own.
func (s *Server) Serve(ctx context.Context, ready func()) error {
	if err := os.MkdirAll(s.Spool, 0o700); err != nil {
		return fmt.Errorf("make the folder of recordings: %w", err)
	}
	l, err := listen(s.Path, 0o666) // who calls is asked of the kernel
	if err != nil {
		return err
	}
	s.by = map[uint32]int{}
	ready()
	var calls sync.WaitGroup
	defer calls.Wait()
	defer func() { _ = l.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("take a login: %w", err)
			}
			s.Log.WarnContext(ctx, "login not taken", "err", err)
			select {
			case <-ctx.Done():
			case <-s.Clock.After(10 * time.Millisecond):
			}
			continue
		}
		calls.Go(func() { s.attend(ctx, c) })
	}
}

// attend hears one login out.
func (s *Server) attend(ctx context.Context, c *net.UnixConn) {
	defer func() { _ = c.Close() }() // a recorder has its own
	who, err := peer(c)
	if err != nil || who.Uid < grant.UIDMin || who.Uid > grant.UIDMax {
		return // none of ours
	}
	if !s.enter(who.Uid) {
		_ = s.tell(c, terminal.Verdict{Go: terminal.Refuse, Message: "too many terminals are open: close some"})
		return
	}
	err = s.login(ctx, c, who)
	if err != nil {
		s.Log.WarnContext(ctx, "terminal refused", "uid", who.Uid, "pid", who.Pid, "err", err)
		var told refusal
		if !errors.As(err, &told) {
			told = "this terminal cannot be put under record: ask an administrator to look at `systemctl status curfew-agent curfew-record`"
		}
		_ = s.tell(c, terminal.Verdict{Go: terminal.Refuse, Message: string(told)}) // who hung up needs no answer
	}
	s.leave(who.Uid)
}

// tell has a time of its own: the agent may have thought for longer than a
// login's first word may take.
func (s *Server) tell(c *net.UnixConn, v terminal.Verdict) error {
	if err := c.SetDeadline(s.Clock.Now().Wall.Add(heardIn)); err != nil {
		return err
	}
	return Send(c, v)
}

// A refusal is for the person.
type refusal string

func (r refusal) Error() string { return string(r) }

func (s *Server) enter(uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= atOnce || s.by[uid] >= perPerson {
		return false
	}
	s.all++
	s.by[uid]++
	return true
}

func (s *Server) leave(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.by[uid]--; s.by[uid] == 0 {
		delete(s.by, uid)
	}
}

// login asks the agent who logs in, and does what that means for the terminal.
func (s *Server) login(ctx context.Context, c *net.UnixConn, who unix.Ucred) error {
	if err := c.SetDeadline(s.Clock.Now().Wall.Add(helloIn)); err != nil {
		return err
	}
	var hello terminal.Login
	tty, err := Receive(c, &hello)
	if err != nil {
		return err
	}
	if tty != nil {
		defer func() { _ = tty.Close() }() // the recorder has its own
	}
	if (tty != nil) != hello.Terminal {
		return fmt.Errorf("a terminal that is not there: %w", terminal.ErrForm)
	}
	a, err := Ask(ctx, s.Desk, terminal.Question{PID: int(who.Pid), Terminal: hello.Terminal}, s.Clock)
	switch {
	case err != nil:
		return err
	case a.Refused != "":
		return refusal(a.Refused)
	case a.Session == 0:
		return refusal("this login stands under no grant: ask with `curfew request`")
	case gone(c): // the pid may have been another's when the agent looked
		return net.ErrClosed
	case !hello.Terminal || a.Unseen || recorded(s.Spool, tty):
		return s.tell(c, terminal.Verdict{Go: terminal.Bare})
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return s.start(ctx, c, tty, Job{Answer: a, Spool: s.Spool, UID: who.Uid, PID: int(who.Pid), Term: hello.Term})
}

// A Job is what a recorder is started for.
type Job struct {
	terminal.Answer
	Spool string `json:"spool"`
	UID   uint32 `json:"uid"`
	PID   int    `json:"pid"` // of the login shell
	Term  string `json:"term"`
}

// start starts a recorder, and waits for its end: the person's place is taken
// for as long.
func (s *Server) start(ctx context.Context, c *net.UnixConn, tty *os.File, j Job) error {
	job, err := json.Marshal(j)
	if err != nil {
		return err
	}
	conn, err := c.File()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // as above
	// Not bound to ctx: a terminal goes on when this server is started anew.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.Program[0], append(s.Program[1:], string(job))...) //nolint:gosec // our own program
	cmd.ExtraFiles = []*os.File{conn, tty}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a recorder: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			s.Log.WarnContext(ctx, "a recorder failed", "session", fmt.Sprintf("%x", j.Session), "err", err)
		}
	case <-ctx.Done():
	}
	return nil
}
