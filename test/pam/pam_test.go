// Package pam tests the PAM module as programs use it: through libpam.
package pam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/msteinert/pam/v2"

	"curfew.internal/agent/door"
	"curfew.internal/test/need"
	wire "curfew.internal/wire/door"
)

// module builds pam_curfew.so, and a PAM configuration that asks the socket.
func module(t *testing.T, socket, args string) (confdir string) {
	t.Helper()
	need.Root(t)
	need.Program(t, "cc")
	dir := t.TempDir()
	so := filepath.Join(dir, "pam_curfew.so")
	if out, err := exec.CommandContext(t.Context(), "../../pammod/build.sh", so).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// As on a host: ours, and then what was there.
	ours := fmt.Sprintf("required %s door=%s %s\n", so, socket, args)
	conf := "account " + ours + "account required pam_permit.so\nsession required pam_permit.so\nsession " + ours
	for _, service := range []string{"sshd", "sudo"} {
		if err := os.WriteFile(filepath.Join(dir, service), []byte(conf), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// knock runs the account phase, and the session phase where that passes.
func knock(t *testing.T, confdir, service, user, ruser string) (said string, err error) {
	t.Helper()
	tx, err := pam.StartConfDir(service, user, pam.ConversationFunc(func(_ pam.Style, msg string) (string, error) {
		said += msg
		return "", nil
	}), confdir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { err = errors.Join(err, tx.End()) }()
	if err := tx.SetItem(pam.Ruser, ruser); err != nil {
		t.Fatal(err)
	}
	if err := tx.AcctMgmt(0); err != nil {
		return said, err
	}
	if err := tx.OpenSession(0); err != nil {
		return said, err
	}
	return said, tx.CloseSession(0)
}

// agent serves a real door.
func agent(t *testing.T, decide door.Decider) string {
	t.Helper()
	need.Root(t)
	socket := filepath.Join(t.TempDir(), "run", "door.sock")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	s := door.Server{Path: socket, Decide: decide, Log: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Serve(ctx) }()
	appears(t, socket)
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return socket
}

func TestVerdicts(t *testing.T) {
	live := map[string]bool{"cfw-ana": true}
	var mu sync.Mutex
	var asked []wire.Question
	socket := agent(t, func(_ context.Context, q wire.Question, who door.Caller) wire.Reply {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, q)
		switch {
		case who.PID != os.Getpid():
			return wire.Reply{Message: fmt.Sprintf("pid %d", who.PID)}
		case live[q.User] || live[q.RUser]:
			return wire.Reply{Verdict: wire.Allow}
		case q.User == "cfw-bob":
			return wire.Reply{Message: "your grant ended 14:02 UTC"}
		}
		return wire.Reply{Verdict: wire.Stranger}
	})
	open := module(t, socket, "")
	for _, c := range []struct {
		name, conf, service, user, ruser string
		pass                             bool
		says                             string
	}{
		{"a live grant", open, "sshd", "cfw-ana", "", true, ""},
		{"a grant that ended", open, "sshd", "cfw-bob", "", false, "14:02"},
		{"sudo under a live grant", open, "sudo", "root", "cfw-ana", true, ""},
		{"a stranger", open, "sshd", "cfw-stranger", "", true, ""},
		{"a stranger's sudo", open, "sudo", "root", "cfw-stranger", true, ""},
		{"an escape in a name", open, "sshd", "cfw-\x1b[2J", "", true, ""},
		{"64 kB of a name", open, "sshd", strings.Repeat("x", 65536), "", true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			said, err := knock(t, c.conf, c.service, c.user, c.ruser)
			if (err == nil) != c.pass || !strings.Contains(said, c.says) {
				t.Errorf("%v, said %q", err, said)
			}
		})
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) < 5 || asked[0].Service != "sshd" || asked[0].Kind != wire.Account || asked[1].Kind != wire.Open || asked[2].Kind != wire.Close {
		t.Errorf("asked %+v", asked)
	}
}

// rogue is an agent that misbehaves.
func rogue(t *testing.T, behave func(c *net.UnixConn)) string {
	t.Helper()
	need.Root(t)
	socket := filepath.Join(t.TempDir(), "door.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = c.Read(make([]byte, 1024))
				behave(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return socket
}

func TestABadAnswerIsANo(t *testing.T) {
	need.Root(t)
	yes := wire.Reply{Verdict: wire.Allow}.Bytes()
	escape := append([]byte{}, yes...)
	copy(escape[8:], "\x1b[2J") // the agent's own encoder would not write it
	send := func(bs ...[]byte) func(*net.UnixConn) {
		return func(c *net.UnixConn) {
			for _, b := range bs {
				_, _ = c.Write(b)
			}
		}
	}
	managed(t, "cfw-test")
	for name, socket := range map[string]string{
		"short":          rogue(t, send(yes[:len(yes)-1])),
		"long":           rogue(t, send(append(append([]byte{}, yes...), 0))),
		"two answers":    rogue(t, send(yes, yes)),
		"garbage":        rogue(t, send([]byte(strings.Repeat("x", wire.ReplySize)))),
		"an odd verdict": rogue(t, send(wire.Reply{Verdict: 1}.Bytes())),
		"an escape":      rogue(t, send(escape)),
		"a late second":  rogue(t, func(c *net.UnixConn) { _, _ = c.Write(yes); <-time.After(20 * time.Millisecond); _, _ = c.Write(yes) }),
		"never hangs up": rogue(t, func(c *net.UnixConn) { _, _ = c.Write(yes); _, _ = c.Read(make([]byte, 1)) }),
		"dies":           rogue(t, func(*net.UnixConn) {}),
		"silent":         rogue(t, func(c *net.UnixConn) { _, _ = c.Read(make([]byte, 1)) }),
		"no socket":      filepath.Join(t.TempDir(), "none.sock"),
		"a long path":    "/" + strings.Repeat("x", 200),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			said, err := knock(t, module(t, socket, ""), "sshd", "cfw-test", "")
			if !errors.Is(err, pam.ErrPermDenied) {
				t.Errorf("%v", err)
			}
			if name != "an odd verdict" && !strings.Contains(said, "does not answer") {
				t.Errorf("said %q", said)
			}
			if d := time.Since(begun); name == "silent" && d > 10*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

func TestRootIsNeverAsked(t *testing.T) {
	dir := module(t, "/nonexistent/door.sock", "enforce")
	if said, err := knock(t, dir, "sshd", "root", ""); err != nil || said != "" {
		t.Errorf("%v, said %q", err, said)
	}
}

// The person is told, though the agent itself hangs.
func TestASlowDecisionIsANoWithItsReason(t *testing.T) {
	socket := agent(t, func(ctx context.Context, _ wire.Question, _ door.Caller) wire.Reply {
		<-ctx.Done()
		return wire.Reply{Verdict: wire.Allow}
	})
	managed(t, "cfw-slow")
	said, err := knock(t, module(t, socket, ""), "sshd", "cfw-slow", "")
	if !errors.Is(err, pam.ErrPermDenied) || !strings.Contains(said, "too slow") {
		t.Errorf("%v, said %q", err, said)
	}
}

// Who calls sudo decides, whatever the process is: it may have become root by
// the time it asks.
func TestEnforceMode(t *testing.T) {
	strangers := agent(t, func(context.Context, wire.Question, door.Caller) wire.Reply {
		return wire.Reply{Verdict: wire.Stranger}
	})
	for name, socket := range map[string]string{"agent alive": strangers, "agent dead": "/nonexistent/door.sock"} {
		dir := module(t, socket, "enforce breakglass=daemon") // a group that every Debian has, and its one member's name
		for _, c := range []struct {
			service, ruser string
			pass           bool
		}{
			{"sudo", "cfw-stranger", false},
			{"sudo", "root", true},
			{"sudo", "daemon", true},
			{"sshd", "", true},
		} {
			t.Run(name+" "+c.service+" "+c.ruser, func(t *testing.T) {
				user := "cfw-stranger"
				if c.service == "sudo" {
					user = "root"
				}
				said, err := knock(t, dir, c.service, user, c.ruser)
				if (err == nil) != c.pass || c.pass != (said == "") {
					t.Errorf("%v, said %q", err, said)
				}
			})
		}
	}
}

func TestManyCallersLeaveNothingBehind(t *testing.T) {
	socket := agent(t, func(context.Context, wire.Question, door.Caller) wire.Reply { return wire.Reply{Verdict: wire.Allow} })
	dir := module(t, socket, "")
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	knocks := func(callers, each int) {
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range each {
					if _, err := knock(t, dir, "sshd", "cfw-ana", ""); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	before := count()
	knocks(200, 1)
	knocks(1, 10000)
	// The agent hangs up a moment after its caller has.
	for range 200 {
		if count() <= before+4 {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Errorf("%d descriptors before, %d after", before, count())
}

// managed marks an account as one of ours for a test.
func managed(t *testing.T, name string) {
	t.Helper()
	marker := "/run/curfew/managed/" + name
	if err := os.MkdirAll(filepath.Dir(marker), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(marker) })
}

// A process that is not root cannot stand in for the agent.
func TestOnlyRootAnswers(t *testing.T) {
	if socket := os.Getenv("CURFEW_TEST_ROGUE"); socket != "" {
		serve(t, socket)
		return
	}
	need.Root(t)
	dir, err := os.MkdirTemp("/tmp", "cfw-rogue-") //nolint:usetesting // the other user has to reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe, socket := filepath.Join(dir, "rogue"), filepath.Join(dir, "door.sock")
	if err := errors.Join(os.Chmod(dir, 0o777), os.WriteFile(exe, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, exe, "-test.run=^TestOnlyRootAnswers$")
	cmd.Env = []string{"CURFEW_TEST_ROGUE=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
	})
	appears(t, socket)
	managed(t, "cfw-rogue")
	said, err := knock(t, module(t, socket, ""), "sshd", "cfw-rogue", "")
	if !errors.Is(err, pam.ErrPermDenied) || !strings.Contains(said, "does not answer") {
		t.Errorf("%v, said %q", err, said)
	}
}

// serve says yes to everybody, as whoever runs it.
func serve(t *testing.T, socket string) {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		_, _ = c.Write(wire.Reply{Verdict: wire.Allow}.Bytes())
	}
}

func appears(t *testing.T, file string) {
	t.Helper()
	for range 1000 {
		if _, err := os.Stat(file); err == nil {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatalf("%s did not appear", file)
}

// A module that is not there, or no module, keeps nobody out under the control
// that `curfew-agent install` writes; one that says no still does.
func TestALostModuleKeepsNobodyOut(t *testing.T) {
	const control = "[success=ok new_authtok_reqd=ok ignore=ignore module_unknown=ignore default=bad]"
	socket := agent(t, func(context.Context, wire.Question, door.Caller) wire.Reply { return wire.Reply{Message: "no"} })
	for name, c := range map[string]struct {
		spoil func(so string) error
		pass  bool
	}{
		"as built": {func(string) error { return nil }, false},
		"deleted":  {os.Remove, true},
		"emptied":  {func(so string) error { return os.Truncate(so, 0) }, true},
		"text":     {func(so string) error { return os.WriteFile(so, []byte("x\n"), 0o644) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := module(t, socket, "enforce")
			for _, service := range []string{"sshd", "sudo"} {
				file := filepath.Join(dir, service)
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				text := strings.ReplaceAll(string(b), "required "+dir, control+" "+dir)
				if strings.Count(text, control) != 2 {
					t.Fatal(text)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.spoil(filepath.Join(dir, "pam_curfew.so")); err != nil {
				t.Fatal(err)
			}
			for _, service := range []string{"sshd", "sudo"} {
				if _, err := knock(t, dir, service, "nobody", "cfw-ana"); (err == nil) != c.pass {
					t.Errorf("%s: %v", service, err)
				}
			}
		})
	}
}
