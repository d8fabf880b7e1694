package watch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/ledger"
	"curfew.internal/test/need"
)

// pins mounts a bpffs of the test's own.
func pins(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "curfew")
}

func open(t *testing.T, dir string) *Watch {
	t.Helper()
	w, err := Open(Config{PinDir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Clock: clock.System{}})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return w
}

func closeIt(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// A book is a sink that can be told to refuse.
type book struct {
	mu      sync.Mutex
	entries []ledger.Entry
	refuse  bool
}

var errRefused = errors.New("disk full")

func (b *book) take(_ context.Context, es []ledger.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse {
		return errRefused
	}
	b.entries = append(b.entries, es...)
	return nil
}

func (b *book) setRefuse(v bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = v
}

func (b *book) all() []ledger.Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.entries)
}

// where returns the entries of a kind that ok accepts.
func (b *book) where(k ledger.Kind, ok func(ledger.Entry) bool) []ledger.Entry {
	return slices.DeleteFunc(b.all(), func(e ledger.Entry) bool { return e.Kind != k || ok != nil && !ok(e) })
}

// run follows until the returned function is called.
func run(t *testing.T, w *Watch, b *book) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, b.take) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// until waits for what has to come about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("there was no %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// A tree is a process that waits to be labelled before it acts.
type tree struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func plant(t *testing.T, name string, args ...string) *tree {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	return &tree{cmd, in, bufio.NewReader(out)}
}

// shell plants a shell that waits for a line before it runs the script.
func shell(t *testing.T, script string) *tree {
	t.Helper()
	return plant(t, "/bin/bash", "-c", "read go; "+script)
}

func (s *tree) grow(t *testing.T, w *Watch, session uint64) {
	t.Helper()
	if err := w.Label(s.Process.Pid, -1, session, 0); err != nil {
		t.Fatal(err)
	}
	s.say(t)
}

func (s *tree) say(t *testing.T) {
	t.Helper()
	if _, err := fmt.Fprintln(s.in, "go"); err != nil {
		t.Fatal(err)
	}
}

func (s *tree) hear(t *testing.T) {
	t.Helper()
	if _, err := s.out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
}

func argv(words ...string) func(ledger.Entry) bool {
	return func(e ledger.Entry) bool { return slices.Equal(e.Process.Argv, words) }
}

func pid(p int) func(ledger.Entry) bool {
	return func(e ledger.Entry) bool { return int(e.Process.PID) == p }
}

// none checks that nobody of a session lives.
func none(t *testing.T, w *Watch, session uint64) {
	t.Helper()
	left, err := w.Tasks(session)
	if err != nil || len(left) > 0 {
		t.Fatalf("left %v, %v", left, err)
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// python plants a program for what a shell cannot do.
func python(t *testing.T, text string) *tree {
	t.Helper()
	need.Root(t)
	return plant(t, "/usr/bin/python3", "-c", text)
}

// killOne ends one session.
func killOne(ctx context.Context, w *Watch, session uint64) (killed int, left []int, err error) {
	k, l, err := w.Kill(ctx, []uint64{session})
	return k[session], l[session], err
}
