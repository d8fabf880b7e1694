package record

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"curfew.internal/cast"
	"curfew.internal/clock"
	"curfew.internal/wire/terminal"
)

// How fast a terminal may write: far above what anybody reads, and low enough
// for the disk. Who writes more waits, as on a slow line.
const (
	perSecond = 2 << 20
	burst     = 8 << 20
)

// Bounds of a recorder's end.
const (
	lookEvery = 500 * time.Millisecond
	drainTime = 300 * time.Millisecond
)

// A recorder is one terminal's.
type recorder struct {
	Job
	clock  clock.Clock
	log    *slog.Logger
	dir    string
	tape   *tape
	shell  *net.UnixConn
	outer  *outer
	master *os.File
	flow   *rate.Limiter

	once sync.Once
	over chan struct{} // closed when the terminal is to end
	why  string        // set before
}

// The descriptors that a recorder is started with.
const (
	shellFD = 3
	outerFD = 4
)

// Record is the whole life of a recorder: job is what [Server] started it for.
func Record(ctx context.Context, job string, k clock.Clock, log *slog.Logger) error {
	r := &recorder{clock: k, log: log, flow: rate.NewLimiter(perSecond, burst), over: make(chan struct{})}
	if err := json.Unmarshal([]byte(job), &r.Job); err != nil {
		return fmt.Errorf("read what to record: %w", err)
	}
	passed := os.NewFile(outerFD, "passed")
	sock := os.NewFile(shellFD, "shell")
	c, err := net.FileConn(sock)
	_ = sock.Close() // c has its own
	if err != nil {
		return fmt.Errorf("hear the login shell: %w", err)
	}
	defer func() { _ = c.Close() }() // what there was to say was said
	shell, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("the login shell is at no unix socket")
	}
	r.shell = shell
	err = r.record(ctx, passed)
	if err != nil {
		_ = Send(shell, terminal.Verdict{Go: terminal.Refuse, Message: "this terminal cannot be put under record: " + err.Error()})
	}
	return err
}

// record sets the recording up, and runs it to its end.
func (r *recorder) record(ctx context.Context, passed *os.File) error {
	held, err := r.open()
	if err != nil {
		return fmt.Errorf("begin the recording: %w", err)
	}
	defer func() { _ = held.Close() }() // the lock, which says that we live
	master, slave, name, err := newTerminal(r.UID)
	if err != nil {
		return errors.Join(err, os.RemoveAll(r.dir))
	}
	r.master = master
	defer func() { _ = master.Close() }() // the terminal ends with it
	if r.outer, err = takeOver(passed, r.PID, r.UID); err == nil {
		defer r.outer.giveBack(r.UID)
		_ = passed.Close() // ours is open
		err = r.ready(slave, name)
	}
	if err != nil { // nothing ran on it: the agent is not to find an end without a word
		return errors.Join(err, slave.Close(), os.RemoveAll(r.dir))
	}
	go r.tape.run()
	_ = slave.Close() // the shell has its own
	r.run(ctx)
	return r.tape.end(End{Why: r.why, Cut: r.why == unrecorded})
}

// open makes the recording's folder, and its first segment: what cannot be
// begun is not let in.
func (r *recorder) open() (*os.File, error) {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, crypto/rand
	id := fmt.Sprintf("%016x-%s", r.Session, hex.EncodeToString(b[:]))
	r.dir = filepath.Join(r.Spool, id)
	r.tape = newTape(r.dir, usage{spool: r.Spool, person: r.Person, of: map[string]string{}}, r.Quota, r.clock)
	r.tape.term, r.tape.title = printable(r.Term), fmt.Sprintf("%s under %s", r.Person, r.Grant)
	if r.tape.full && r.Strict {
		return nil, ErrFull
	}
	// Under another name first: the agent is to find it whole.
	fresh := filepath.Join(r.Spool, ".new-"+id)
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return nil, err
	}
	held, err := tryLock(filepath.Join(fresh, lockName))
	if err == nil {
		err = writeJSON(filepath.Join(fresh, infoName), infoOf(id, r.Answer, r.tape.started.Wall))
	}
	if err == nil {
		err = os.Rename(fresh, r.dir)
	}
	if err != nil {
		if held != nil {
			_ = held.Close() // nothing was written to it
		}
		return nil, errors.Join(err, os.RemoveAll(fresh))
	}
	return held, nil
}

func printable(s string) string {
	for _, c := range s {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	return s
}

// ready makes the new terminal like the person's, and gives it to her shell.
func (r *recorder) ready(slave *os.File, name string) error {
	err := control(slave, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, r.outer.was) })
	if err != nil {
		return err
	}
	width, height, err := copySize(r.outer.file, r.master)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(r.dir, ttyName), []byte(name)); err != nil {
		return err
	}
	_ = r.tape.resize(width, height) // the first size is in the header
	return Send(r.shell, terminal.Verdict{Go: terminal.Record, TTY: name}, slave)
}

// finish ends the terminal; the first reason counts.
func (r *recorder) finish(why string) {
	r.once.Do(func() {
		r.why = why
		close(r.over)
	})
}

// run passes on what is typed and what is shown, until one side ends.
func (r *recorder) run(ctx context.Context) {
	var parts sync.WaitGroup
	shown := make(chan struct{})
	parts.Go(func() {
		if r.typed() {
			r.finish("the person's terminal was closed")
		}
	})
	parts.Go(func() {
		defer close(shown)
		r.show()
	})
	parts.Go(func() { r.hear(shown) })
	parts.Go(r.look)
	select {
	case <-r.over:
	case <-ctx.Done():
		r.finish("the recorder was told to stop")
	}
	_ = r.master.Close() // the shell is told that its terminal is gone
	if r.why == exited {
		_ = Send(r.shell, terminal.Notice{Say: terminal.Done})
	}
	_ = r.shell.Close()
	_ = r.outer.file.SetDeadline(r.clock.Now().Wall)
	parts.Wait()
}

// Reasons for the end of a recording that mean more than they say.
const (
	exited     = "the shell ended"
	unrecorded = "it could not be recorded any more" // and its role demands that
)

// hear takes what the login shell says.
func (r *recorder) hear(shown <-chan struct{}) {
	for {
		var n terminal.Notice
		f, err := Receive(r.shell, &n)
		if f != nil {
			_ = f.Close() // nobody asked for it
		}
		switch {
		case err != nil:
			r.finish("the login shell was ended")
			return
		case n.Say == terminal.Resized:
			r.resized()
		case n.Say == terminal.Exited:
			select { // what it wrote last is still on its way
			case <-shown:
			case <-r.clock.After(drainTime):
			}
			r.finish(exited)
			return
		}
	}
}

func (r *recorder) resized() {
	if width, height, err := copySize(r.outer.file, r.master); err == nil {
		r.keep(r.tape.resize(width, height))
	}
}

// keep ends the terminal if what it shows cannot be recorded, and its role
// wants that. It reports whether it goes on.
func (r *recorder) keep(err error) bool {
	if err == nil || !r.Strict {
		return true
	}
	r.log.Error("a terminal ends because it cannot be recorded", "session", fmt.Sprintf("%x", r.Session), "err", err)
	_, _ = io.WriteString(r.outer.file, "\r\ncurfew: there is no room to record this terminal, which your role demands: it ends\r\n")
	r.finish(unrecorded)
	return false
}

// show passes on what programs write: written down first.
func (r *recorder) show() {
	var text cast.Stream
	b := make([]byte, 32<<10)
	for {
		n, err := r.master.Read(b)
		if n > 0 {
			s := text.Take(b[:n])
			if s != "" && !r.keep(r.tape.add(cast.Output, s)) {
				return
			}
			if _, err := r.outer.file.Write(b[:n]); err != nil {
				r.finish("the person's terminal was closed")
				return
			}
			r.pace(n)
		}
		if err != nil { // nobody has the terminal open any more
			if rest := text.Rest(); rest != "" {
				r.keep(r.tape.add(cast.Output, rest))
			}
			return
		}
	}
}

// pace holds up who writes too much.
func (r *recorder) pace(n int) {
	now := r.clock.Now().Wall
	if d := r.flow.ReserveN(now, n).DelayFrom(now); d > 0 {
		select {
		case <-r.over:
		case <-r.clock.After(d):
		}
	}
}

// typed passes on what the person types, and reports whether she is gone. It
// is recorded only if the role says so, and only what her terminal shows.
func (r *recorder) typed() bool {
	var text cast.Stream
	b := make([]byte, 4<<10)
	for {
		n, err := r.outer.file.Read(b)
		if n > 0 {
			if r.Typed && echoes(r.master) {
				if s := text.Take(b[:n]); s != "" && !r.keep(r.tape.add(cast.Input, s)) {
					return false
				}
			} else {
				text.Rest()
			}
			if _, err := r.master.Write(b[:n]); err != nil {
				return false
			}
		}
		if err != nil {
			return true
		}
	}
}

// look has the tape do what is due.
func (r *recorder) look() {
	for {
		select {
		case <-r.over:
			return
		case <-r.clock.After(lookEvery):
			r.tape.look()
		}
	}
}
