package shell

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/record"
	"curfew.internal/cast"
	"curfew.internal/clock"
	"curfew.internal/test/need"
	"curfew.internal/wire/terminal"
)

// The test program is the recorder and the login shell too, as it is called.
func TestMain(m *testing.M) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	switch os.Getenv("RECORD_TEST") {
	case "recorder":
		if err := record.Record(context.Background(), os.Args[len(os.Args)-1], clock.System{}, log); err != nil {
			log.Error("recorder", "err", err)
			os.Exit(1)
		}
		os.Exit(0)
	case "shell":
		l := Login{Args: os.Args, Env: os.Environ(), Socket: os.Getenv("RECORD_SOCKET"), Clock: clock.System{}}
		code, err := l.Run(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, "curfew: "+err.Error())
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// person is a uid of ours that nobody on this machine has.
const person = 524201

// A stage has a recorder's server, and an agent that answers as it is told.
type stage struct {
	dir   string
	spool record.Spool
	asked chan terminal.Question

	mu     sync.Mutex // guards what follows
	answer terminal.Answer
}

// answers has the agent answer otherwise from now on.
func (s *stage) answers(a terminal.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = a
}

func newStage(t *testing.T, answer terminal.Answer) *stage {
	t.Helper()
	need.Root(t)
	dir, err := os.MkdirTemp("", "record") //nolint:usetesting // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{dir: dir, spool: record.Spool{Dir: filepath.Join(dir, "spool")}, answer: answer, asked: make(chan terminal.Question, 100)}
	copied := filepath.Join(dir, "program")
	b, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(copied, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	desk := &record.Desk{Path: filepath.Join(dir, "desk.sock"), Clock: clock.System{}, Log: log, Answer: func(_ context.Context, q terminal.Question) terminal.Answer {
		s.asked <- q
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.answer
	}}
	server := &record.Server{
		Path: filepath.Join(dir, "record.sock"), Desk: desk.Path, Spool: s.spool.Dir,
		Program: []string{"/usr/bin/env", "RECORD_TEST=recorder", copied}, Clock: clock.System{}, Log: log,
	}
	ctx, stop := context.WithCancel(t.Context())
	ready := make(chan struct{})
	var parts sync.WaitGroup
	parts.Go(func() { _ = desk.Serve(ctx) })
	parts.Go(func() { _ = server.Serve(ctx, func() { close(ready) }) })
	<-ready
	t.Cleanup(func() { stop(); parts.Wait() })
	return s
}

// A window is a terminal with a login in it.
type window struct {
	*exec.Cmd
	master *os.File
	mu     sync.Mutex // guards what follows
	shown  strings.Builder
}

func (s *stage) login(t *testing.T) *window {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 91, Row: 21})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slave.Close() }()
	w := &window{Cmd: s.command(t), master: master}
	w.Stdin, w.Stdout, w.Stderr = slave, slave, slave
	w.SysProcAttr.Setsid, w.SysProcAttr.Setctty = true, true
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := master.Read(b)
			w.mu.Lock()
			w.shown.Write(b[:n])
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = w.Process.Kill(); _ = master.Close() })
	return w
}

func (s *stage) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(s.dir, "program"))
	cmd.Args = append([]string{"-program"}, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"RECORD_TEST=shell", "RECORD_SOCKET=" + filepath.Join(s.dir, "record.sock"), "TERM=dumb", "HOME=/nowhere", "PATH=/usr/bin:/bin", "PS1=> "}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: person, Gid: person}}
	return cmd
}

func (w *window) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shown.String()
}

func (w *window) types(t *testing.T, text, until string) {
	t.Helper()
	if _, err := w.master.WriteString(text); err != nil {
		t.Fatal(err)
	}
	eventually(t, "window shows "+until, func() error {
		if s := w.text(); !strings.Contains(s, until) {
			return fmt.Errorf("it shows %q", s[max(0, len(s)-2000):])
		}
		return nil
	})
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for range 2000 {
		if err = f(); err == nil {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatalf("%s: waited in vain: %v", what, err)
}

// recording waits for the one recording's end, and returns what it has.
func (s *stage) recording(t *testing.T) (record.End, []cast.Header, []cast.Event) {
	t.Helper()
	var r *record.Recording
	var end record.End
	eventually(t, "the recording's end", func() error {
		all, err := s.spool.Recordings()
		if err != nil || len(all) != 1 {
			return fmt.Errorf("%d recordings: %w", len(all), err)
		}
		r = all[0]
		var told bool
		if end, told = r.End(); !told || r.Alive() {
			return errors.New("it goes on")
		}
		return nil
	})
	numbers, err := r.Sealed()
	if err != nil {
		t.Fatal(err)
	}
	var heads []cast.Header
	var events []cast.Event
	for i, n := range numbers {
		if n != uint64(i+1) {
			t.Fatalf("segments %v", numbers)
		}
		b, err := r.Segment(n)
		if err != nil {
			t.Fatal(err)
		}
		h, more, err := cast.Read(strings.NewReader(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		heads, events = append(heads, h), append(events, more...)
	}
	return end, heads, events
}

func said(events []cast.Event, kind string) string {
	var b strings.Builder
	for _, e := range events {
		if e.Kind == kind {
			b.WriteString(e.Data)
		}
	}
	return b.String()
}

var usual = terminal.Answer{Session: 0xabc, Grant: "g-a", Person: "ana", Role: "ops", Boot: "b"}

func TestWhatATerminalShowsIsRecordedAndShown(t *testing.T) {
	s := newStage(t, usual)
	w := s.login(t)
	w.types(t, "echo one-$((40+2)); stty size; tty\r", "one-42")
	w.types(t, "", "21 91")
	if err := unix.IoctlSetWinsize(int(w.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 100, Row: 33}); err != nil {
		t.Fatal(err)
	}
	w.types(t, "until stty size | grep '33 100'; do sleep 0.05; done\r", "\n33 100")
	w.types(t, "printf 'h\\303'; sleep 0.2; printf '\\244l\\377f\\n'\r", "l\xfff")
	w.types(t, "exit 7\r", "logout")
	if err := w.Wait(); w.ProcessState.ExitCode() != 7 {
		t.Errorf("it ended: %v", err)
	}
	end, heads, events := s.recording(t)
	if end.Why != "the shell ended" || end.Lost != 0 || heads[0].Width != 91 || heads[0].Height != 21 {
		t.Errorf("%+v %+v", end, heads)
	}
	out := said(events, cast.Output)
	for _, want := range []string{"one-42", "21 91", "/dev/pts/", "33 100", "häl\uFFFDf", "logout"} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q: %q", want, out)
		}
	}
	if said(events, cast.Resize) != "100x33" || said(events, cast.Input) != "" {
		t.Errorf("sizes %q, input %q", said(events, cast.Resize), said(events, cast.Input))
	}
}
