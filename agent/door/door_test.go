package door

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/test/need"
	wire "curfew.internal/wire/door"
)

// long is a bound for what has to end; nothing is measured by it.
const long = 30 * time.Second

var question = wire.Question{Kind: wire.Account, Service: "sshd", User: "ana"}

func yes(context.Context, wire.Question, Caller) wire.Reply { return wire.Reply{Verdict: wire.Allow} }

// serve runs a door until the test ends, or until stop.
func serve(t *testing.T, path string, d Decider) (stop func() error) {
	t.Helper()
	need.Root(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	s := &Server{Path: path, Decide: d, Log: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Serve(ctx) }()
	for range 1000 {
		if c, err := net.Dial("unixpacket", path); err == nil {
			_ = c.Close()
			break
		}
		<-time.After(5 * time.Millisecond)
	}
	end := sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(long):
			return errors.New("Serve did not end")
		}
	})
	t.Cleanup(func() {
		if err := end(); !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
	return end
}

func place(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "run", "door.sock")
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(long)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends bytes and wants one reply and then the end.
func ask(t *testing.T, path string, b []byte) wire.Reply {
	t.Helper()
	c := dial(t, path)
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, wire.ReplySize+1)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	r, err := wire.ParseReply(buf[:n])
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buf); err == nil && n > 0 {
		t.Errorf("a second reply of %d bytes", n)
	}
	return r
}

func bytesOf(t *testing.T, q wire.Question) []byte {
	t.Helper()
	b, err := q.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheDeciderHearsTheCall(t *testing.T) {
	var got wire.Question
	var from int
	var held bool
	path := place(t)
	serve(t, path, func(_ context.Context, q wire.Question, who Caller) wire.Reply {
		got, from, held = q, who.PID, who.FD >= 0 && !who.Gone()
		return wire.Reply{Verdict: wire.Allow, Message: "ends at noon"}
	})
	q := wire.Question{Kind: wire.Open, Service: "sudo", User: "root", RUser: "ana", TTY: "/dev/pts/1", RHost: "10.0.0.7"}
	r := ask(t, path, bytesOf(t, q))
	if diff := cmp.Diff(q, got) + cmp.Diff(wire.Reply{Verdict: wire.Allow, Message: "ends at noon"}, r); diff != "" || from != os.Getpid() || !held {
		t.Errorf("pid %d, held %t, %s", from, held, diff)
	}
}

func TestDoubtIsANo(t *testing.T) {
	good := bytesOf(t, question)
	for name, c := range map[string]struct {
		decide Decider
		send   []byte
	}{
		"the decider breaks":        {func(context.Context, wire.Question, Caller) wire.Reply { panic("broken") }, good},
		"a verdict that nobody has": {func(context.Context, wire.Question, Caller) wire.Reply { return wire.Reply{Verdict: 1} }, good},
		"nothing said":              {func(context.Context, wire.Question, Caller) wire.Reply { return wire.Reply{} }, good},
		"a decider that waits":      {func(ctx context.Context, _ wire.Question, _ Caller) wire.Reply { <-ctx.Done(); return wire.Reply{} }, good},
		"a short question":          {yes, good[:len(good)-1]},
		"a long question":           {yes, append(append([]byte{}, good...), 0)},
		"garbage":                   {yes, []byte(strings.Repeat("x", wire.QuestionSize))},
	} {
		t.Run(name, func(t *testing.T) {
			path := place(t)
			serve(t, path, c.decide)
			if r := ask(t, path, c.send); r.Verdict != wire.Deny {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A decider that hangs costs its caller a no, and nobody else anything.
func TestADeciderThatHangs(t *testing.T) {
	path := place(t)
	block := make(chan struct{})
	stop := serve(t, path, func(_ context.Context, q wire.Question, _ Caller) wire.Reply {
		if q.User == "stuck" {
			<-block
		}
		return wire.Reply{Verdict: wire.Allow}
	})
	if r := ask(t, path, bytesOf(t, wire.Question{Kind: wire.Open, User: "stuck"})); r.Verdict != wire.Deny || !strings.Contains(r.Message, "slow") {
		t.Errorf("%+v", r)
	}
	if r := ask(t, path, bytesOf(t, question)); r.Verdict != wire.Allow {
		t.Errorf("%+v", r)
	}
	close(block)
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTwoHundredAtOnce(t *testing.T) {
	path := place(t)
	var now, most atomic.Int64
	serve(t, path, func(context.Context, wire.Question, Caller) wire.Reply {
		for n := now.Add(1); ; {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		defer now.Add(-1)
		return wire.Reply{Verdict: wire.Allow}
	})
	b := bytesOf(t, question)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if r := ask(t, path, b); r.Verdict != wire.Allow {
				t.Errorf("%+v", r)
			}
		})
	}
	wg.Wait()
	if most.Load() > atOnce {
		t.Errorf("%d at once", most.Load())
	}
}

// Callers who say nothing keep nobody else out for longer than their time.
func TestSilentCallers(t *testing.T) {
	path := place(t)
	stop := serve(t, path, yes)
	for range atOnce {
		dial(t, path)
	}
	if r := ask(t, path, bytesOf(t, question)); r.Verdict != wire.Allow {
		t.Errorf("%+v", r)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNoDescriptorIsLeftBehind(t *testing.T) {
	path := place(t)
	serve(t, path, yes)
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	b := bytesOf(t, question)
	knock := func() {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_, _ = c.Write(b)
		_, _ = c.Read(make([]byte, wire.ReplySize))
		_, _ = c.Read(make([]byte, 1)) // its end
	}
	knock()
	before := count()
	for range 2000 {
		knock()
	}
	for range 200 {
		if count() <= before+4 {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Errorf("%d descriptors before, %d after", before, count())
}

func TestAPeerThatIsNotRootIsNotHeard(t *testing.T) {
	if path := os.Getenv("CURFEW_TEST_DOOR"); path != "" {
		c := dial(t, path)
		_, _ = c.Write(bytesOf(t, question))
		if n, err := c.Read(make([]byte, wire.ReplySize)); err == nil && n > 0 {
			t.Fatal("it answered")
		}
		return
	}
	need.Root(t)
	dir, err := os.MkdirTemp("/tmp", "cfw-door-") //nolint:usetesting // the other user has to reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "run", "door.sock")
	var heard atomic.Bool
	serve(t, path, func(context.Context, wire.Question, Caller) wire.Reply {
		heard.Store(true)
		return wire.Reply{Verdict: wire.Allow}
	})
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "asker")
	// As if the mode had been lost: the uid alone has to do.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o666), os.WriteFile(exe, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestAPeerThatIsNotRootIsNotHeard$")
	cmd.Env = []string{"CURFEW_TEST_DOOR=" + path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if heard.Load() {
		t.Error("the decider was asked")
	}
}

func TestThePlaceOfTheDoor(t *testing.T) {
	need.Root(t)
	refused := func(name string, spoil func(dir string) error) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			s := &Server{Path: filepath.Join(dir, "door.sock"), Decide: yes, Log: slog.New(slog.DiscardHandler)}
			if err := s.Serve(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("it opened: %v", err)
			}
		})
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refused("a folder that all can write", func(dir string) error { return os.Chmod(dir, 0o777) })
	refused("a folder of somebody else", func(dir string) error { return os.Chown(dir, 65534, 65534) })
	refused("a link for a folder", func(dir string) error {
		return errors.Join(os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir))
	})
	t.Run("a socket left by one that died", func(t *testing.T) {
		path := place(t)
		must(t, os.Mkdir(filepath.Dir(path), 0o755))
		l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
		must(t, err)
		l.SetUnlinkOnClose(false)
		must(t, l.Close())
		serve(t, path, yes)
		if r := ask(t, path, bytesOf(t, question)); r.Verdict != wire.Allow {
			t.Errorf("%+v", r)
		}
		st, err := os.Lstat(path)
		must(t, err)
		if st.Mode() != os.ModeSocket|0o600 {
			t.Errorf("mode %v", st.Mode())
		}
	})
}

func TestAnswers(t *testing.T) {
	path := place(t)
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	if Answers(ctx, path) {
		t.Error("nobody answers")
	}
	stop := serve(t, path, yes)
	if !Answers(ctx, path) {
		t.Error("somebody answers")
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if Answers(ctx, path) {
		t.Error("nobody answers any more")
	}
}

func TestTheDoorComesBack(t *testing.T) {
	path := place(t)
	serve(t, path, yes)
	for name, harm := range map[string]func() error{
		"removed":  func() error { return os.Remove(path) },
		"moved":    func() error { return os.Rename(path, path+".old") },
		"replaced": func() error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			if c, err := net.Dial("unixpacket", path); err == nil {
				_ = c.Close()
				break
			}
			<-time.After(5 * time.Millisecond)
		}
		if r := ask(t, path, bytesOf(t, question)); r.Verdict != wire.Allow {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// Whatever the bytes, only a whole question is decided, and all are answered.
func FuzzQuestion(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("the door talks to root alone")
	}
	good, err := question.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{good, good[:12], []byte("x"), append(append([]byte{}, good...), 0)} {
		f.Add(b)
	}
	ctx, cancel := context.WithCancel(f.Context())
	path := filepath.Join(f.TempDir(), "run", "door.sock")
	done := make(chan error, 1)
	s := &Server{Path: path, Decide: yes, Log: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Serve(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			f.Error(err)
		}
	})
	for range 1000 {
		if _, err := os.Stat(path); err == nil {
			break
		}
		<-time.After(5 * time.Millisecond)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 4096 {
			return
		}
		_, err := wire.ParseQuestion(b)
		if r := ask(t, path, b); (r.Verdict == wire.Allow) != (err == nil) {
			t.Errorf("%v: %+v", err, r)
		}
	})
}
