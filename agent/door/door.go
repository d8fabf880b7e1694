// Package door serves the sockets on which the host's programs knock: the PAM
// module, and sudo's forerunner in people's shells.
//
// It carries questions to the one who decides and answers back; every
// failure, delay and doubt on the way is a no. It decides nothing itself.
package door

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/wire/door"
)

// Bounds on callers. A decision has less than the module waits on behalf of an
// account of ours, so that the person still reads why it was no.
const (
	atOnce   = 256
	patience = 2 * time.Second
	thought  = 5 * time.Second
)

// A Decider says who may act. It has
// to come back by itself when ctx is done: until then it keeps a caller's
// place, and what it says then is not heard.
type Decider func(ctx context.Context, q door.Question, who Caller) door.Reply

// A Server answers at Path.
type Server struct {
	Path   string
	Decide Decider
	Log    *slog.Logger
	// Up, if set, is called once callers can knock.
	Up func()
	// Moved, if set, is called when the socket was taken away and is there
	// again.
	Moved func()

	mode  fs.FileMode                                // of the socket; 0600
	visit func(context.Context, *net.UnixConn) error // hears a caller out; attend
}

// Serve answers until ctx is done, and then until every answer is out. A
// socket that somebody removed or replaced is made anew.
func (s *Server) Serve(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for first := true; ; first = false {
		l, err := s.listen()
		if err == nil && first && s.Up != nil {
			s.Up()
		}
		if err == nil && !first {
			s.Log.WarnContext(ctx, "somebody took the door away: it is there again", "path", s.Path)
			if s.Moved != nil {
				s.Moved()
			}
		}
		if err == nil {
			err = s.serve(ctx, l, &wg)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errMoved):
		case first:
			return err
		default:
			s.Log.ErrorContext(ctx, "door not made again", "err", err)
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(glance):
			}
		}
	}
}

// glance is how often the door looks whether it still is where callers knock.
const glance = 500 * time.Millisecond

var errMoved = errors.New("the door is not where it was")

// guard ends when the socket that l listens on is not the one at Path any
// more.
func (s *Server) guard(ctx context.Context, l *net.UnixListener, mine unix.Stat_t) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(glance):
		}
		var now unix.Stat_t
		if err := unix.Lstat(s.Path, &now); err != nil || now.Ino != mine.Ino || now.Dev != mine.Dev {
			_ = l.Close() // Accept says so
			return
		}
	}
}

// serve answers until ctx is done or the socket is taken away. It closes l.
func (s *Server) serve(ctx context.Context, l *net.UnixListener, wg *sync.WaitGroup) error {
	defer func() { _ = l.Close() }() // before the wait: nobody is to queue at a door that nobody opens
	var mine unix.Stat_t
	if err := unix.Lstat(s.Path, &mine); err != nil {
		return errMoved
	}
	guarding, done := context.WithCancel(ctx)
	defer done()
	wg.Go(func() { s.guard(guarding, l, mine) })
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	slots := make(chan struct{}, atOnce)
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close() // it came as we left
			}
			return context.Cause(ctx)
		}
		if passing(err) {
			s.Log.WarnContext(ctx, "door could not take a caller", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return errMoved
		}
		if err != nil {
			return fmt.Errorf("door: %w", err)
		}
		if err := s.take(ctx, c, slots, wg); err != nil {
			return err
		}
	}
}

// take attends a caller once there is a place for it.
func (s *Server) take(ctx context.Context, c *net.UnixConn, slots chan struct{}, wg *sync.WaitGroup) error {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), c.Close())
	}
	wg.Go(func() {
		defer func() { <-slots }()
		visit := s.visit
		if visit == nil {
			visit = s.attend
		}
		if err := visit(ctx, c); err != nil {
			s.Log.WarnContext(ctx, "door caller not answered", "err", err)
		}
	})
	return nil
}

// passing reports whether the next caller may have better luck.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// listen makes the socket anew, in a folder that root alone can write, so
// that nobody else can stand in for us.
func (s *Server) listen() (*net.UnixListener, error) {
	dir := filepath.Dir(s.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // names in it are no secret
		return nil, fmt.Errorf("make the door's folder: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, fmt.Errorf("look at the door's folder: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("%s has to be a folder that its owner alone can write", dir)
	}
	// Bound under a new name and moved: at no moment does a knock find no
	// door, and the socket has its mode before it has its name.
	fresh := s.Path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("clear the door: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: fresh, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("open the door: %w", err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(fresh, cmp.Or(s.mode, 0o600))
	if err == nil {
		err = os.Rename(fresh, s.Path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the door: %w", err), l.Close())
	}
	return l, nil
}

// attend hears a caller out. A decider that hangs keeps its place, and what
// names the process, until it is back.
func (s *Server) attend(ctx context.Context, c *net.UnixConn) error {
	who, err := caller(c)
	if err == nil && who.UID != 0 {
		err = fmt.Errorf("caller has uid %d, not 0", who.UID)
	}
	if err != nil {
		who.close()
		return errors.Join(err, c.Close())
	}
	defer who.close()
	var deciding sync.WaitGroup
	defer deciding.Wait()
	return s.answer(ctx, c, who, &deciding)
}

// answer takes one question and gives one reply, and hangs up: the module
// takes no reply that something could still follow.
func (s *Server) answer(ctx context.Context, c *net.UnixConn, who Caller, deciding *sync.WaitGroup) (err error) {
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := errors.Join(c.SetReadDeadline(after(ctx, patience)), c.SetWriteDeadline(after(ctx, patience+thought))); err != nil {
		return err
	}
	buf := make([]byte, door.QuestionSize+1)
	n, err := c.Read(buf)
	if err != nil {
		return fmt.Errorf("read question: %w", err)
	}
	q, err := door.ParseQuestion(buf[:n])
	if err != nil {
		_, werr := c.Write(door.Reply{Message: "curfew: this call cannot be understood; ask an administrator to look at the agent's log"}.Bytes())
		return errors.Join(err, werr)
	}
	if who.Gone() {
		return fmt.Errorf("caller %d left before its answer", who.PID)
	}
	_, err = c.Write(s.decide(ctx, q, who, deciding).Bytes())
	return err
}

// after is so long from now: a context knows, and the time is not read here.
func after(ctx context.Context, d time.Duration) time.Time {
	bounded, done := context.WithTimeout(ctx, d)
	defer done()
	at, _ := bounded.Deadline()
	return at
}

// decide asks the decider, and does not wait for one that hangs. A verdict
// that we do not know is no.
func (s *Server) decide(ctx context.Context, q door.Question, who Caller, deciding *sync.WaitGroup) door.Reply {
	thinking, cancel := context.WithTimeout(ctx, thought)
	defer cancel()
	said := make(chan door.Reply, 1)
	deciding.Go(func() { said <- s.hear(thinking, q, who) })
	select {
	case r := <-said:
		if r.Verdict != door.Allow && r.Verdict != door.Stranger {
			r.Verdict = door.Deny
		}
		return r
	case <-thinking.Done():
	}
	s.Log.ErrorContext(ctx, "door decision took too long", "kind", uint32(q.Kind), "service", q.Service)
	return door.Reply{Message: "curfew: the agent on this host is too slow to decide; try again, or ask an administrator"}
}

// hear is the decider's word; one that breaks has said no.
func (s *Server) hear(ctx context.Context, q door.Question, who Caller) (r door.Reply) {
	defer func() {
		if p := recover(); p != nil {
			s.Log.ErrorContext(ctx, "door decision broke", "panic", p)
			r = door.Reply{Message: "curfew: the agent could not decide; ask an administrator to look at its log"}
		}
	}()
	return s.Decide(ctx, q, who)
}

// Answers reports whether somebody at the socket answers a question: a server
// that only holds it open does not.
func Answers(ctx context.Context, path string) bool {
	d := net.Dialer{Timeout: patience}
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }() // it was asked all that it is asked
	q, err := door.Question{Kind: door.Account, Service: "curfew-sweep", User: "root"}.Bytes()
	if err != nil {
		return false
	}
	if at, ok := ctx.Deadline(); !ok || c.SetDeadline(at) != nil {
		return false
	}
	if _, err := c.Write(q); err != nil {
		return false
	}
	buf := make([]byte, door.ReplySize+1)
	n, err := c.Read(buf)
	if err != nil {
		return false
	}
	_, err = door.ParseReply(buf[:n])
	return err == nil
}
