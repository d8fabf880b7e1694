package watch

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/ledger"
	"curfew.internal/test/need"
)

// bpffs mounts a bpffs of the test's own.
func bpffs(t *testing.T) string {
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
	w, err := Open(Config{PinDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// record collects what a watch tells.
type record struct {
	mu      sync.Mutex
	entries []ledger.Entry
}

func (r *record) all() []ledger.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.entries)
}

func run(t *testing.T, w *Watch) *record {
	t.Helper()
	r := &record{}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- w.Run(ctx, clock.System{}, func(es []ledger.Entry) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.entries = append(r.entries, es...)
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// until waits for what has to come about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("in ten seconds there was no %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// shell starts a shell that waits for a line, labels it, and lets it go on.
func shell(t *testing.T, w *Watch, session uint64, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/bash", "-c", "read go; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.Label(cmd.Process.Pid, session, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(in, "go"); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func execs(es []ledger.Entry, words ...string) []ledger.Entry {
	return slices.DeleteFunc(es, func(e ledger.Entry) bool {
		if e.Kind != ledger.Exec {
			return true
		}
		line := strings.Join(e.Process.Argv, " ")
		return slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
	})
}

func TestEverythingALabelledTreeRunsIsTold(t *testing.T) {
	need.Root(t)
	w := open(t, bpffs(t))
	r := run(t, w)
	dir := t.TempDir()
	long := strings.Repeat("x", 100_000)
	cmd := shell(t, w, 7, `cd `+dir+`
/bin/echo one "" three
setsid /bin/echo apart
( ( exec /bin/echo twice & ) & )
printf '#!/bin/sh\nexit 3\n' > s; chmod +x s; ./s
long=$(head -c 100000 /dev/zero | tr '\0' x); /bin/echo $long $long | wc -c
exit 5`)
	if err := cmd.Wait(); err == nil {
		t.Fatal("the shell says 0")
	}
	exec.CommandContext(t.Context(), "/bin/echo", "not ours").Run()
	until(t, "record of the shell's exit", func() bool {
		return slices.ContainsFunc(r.all(), func(e ledger.Entry) bool {
			return e.Kind == ledger.Exit && e.Process.PID == uint32(cmd.Process.Pid)
		})
	})
	until(t, "exec of the double fork", func() bool { return len(execs(r.all(), "twice")) == 1 })
	one := execs(r.all(), "echo", "one")
	if len(one) != 1 || !slices.Equal(one[0].Process.Argv, []string{"/bin/echo", "one", "", "three"}) {
		t.Fatalf("%+v", one)
	}
	p := one[0].Process
	if p.Cwd != dir || filepath.Base(p.Path) != "echo" || p.PPID != uint32(cmd.Process.Pid) || p.Inode == 0 || p.Links == 0 {
		t.Errorf("%+v", p)
	}
	if d := time.Since(one[0].At); d < -time.Second || d > time.Minute {
		t.Errorf("told to be at %v", one[0].At)
	}
	if len(execs(r.all(), "setsid")) == 0 || len(execs(r.all(), "apart")) == 0 {
		t.Error("setsid was not told")
	}
	if len(execs(r.all(), "not ours")) > 0 {
		t.Error("somebody else's command was told")
	}
	if big := execs(r.all(), long); len(big) != 1 || len(big[0].Process.Argv) != 3 || big[0].Process.ArgvCut != 0 {
		t.Errorf("%d long ones", len(big))
	}
	for _, e := range r.all() {
		if e.Kind == ledger.Exit && e.Process.PID == uint32(cmd.Process.Pid) && e.Process.ExitCode != 5 {
			t.Errorf("exit %+v", e.Process)
		}
		if e.Kind == ledger.Gap {
			t.Errorf("a hole: %+v", e)
		}
	}
}

func TestKillLeavesNobody(t *testing.T) {
	need.Root(t)
	w := open(t, bpffs(t))
	cmd := shell(t, w, 9, `trap '' TERM HUP INT
nohup sleep 1000 >/dev/null 2>&1 &
setsid sleep 1000 &
( ( sleep 1000 & ) & )
(trap '' TERM; while :; do :; done) &
(while :; do /bin/true; done) &
wait`)
	until(t, "tree of processes", func() bool {
		tasks, err := w.Tasks(9)
		return err == nil && len(tasks) >= 6
	})
	other := shell(t, w, 10, "sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	killed, left, err := w.Kill(ctx, 9)
	if err != nil || len(left) > 0 || killed == 0 {
		t.Errorf("killed %d, left %v, %v", killed, left, err)
	}
	_ = cmd.Wait()
	if tasks, _ := w.Tasks(10); len(tasks) == 0 {
		t.Error("another session was ended too")
	}
	if _, left, err := w.Kill(ctx, 10); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	_ = other.Wait()
}

func TestASessionThatIsOverCannotFork(t *testing.T) {
	need.Root(t)
	w := open(t, bpffs(t))
	now := clock.System{}.Now().Boot
	cmd := shell(t, w, 11, `while :; do /bin/true; done`)
	if err := w.Extend(11, uint64((now + 100*time.Millisecond).Nanoseconds())); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the loop outlived its deadline; nothing of ours was needed to end it")
	}
}

func TestTheNextAgentTakesOver(t *testing.T) {
	need.Root(t)
	dir := bpffs(t)
	w := open(t, dir)
	cmd := shell(t, w, 12, `read again; /bin/echo while nobody reads; read more; /bin/echo afterwards`)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = open(t, dir)
	if w.Fresh {
		t.Error("nothing was taken over")
	}
	if s, ok, err := w.LabelOf(cmd.Process.Pid); err != nil || !ok || s != 12 {
		t.Errorf("label %d %v %v", s, ok, err)
	}
	found, err := generations(dir)
	if err != nil || len(found) != 3 {
		t.Errorf("pins: %v %v", found, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, left, err := w.Kill(ctx, 12); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	_ = cmd.Wait()
}

func TestTheBacklogIsRead(t *testing.T) {
	need.Root(t)
	dir := bpffs(t)
	w := open(t, dir)
	cmd := shell(t, w, 13, `for i in 1 2 3 4 5; do /bin/echo backlog; done`)
	_ = cmd.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := run(t, open(t, dir))
	until(t, "backlog", func() bool { return len(execs(r.all(), "backlog")) == 5 })
}

func TestWhatIsLostIsCounted(t *testing.T) {
	need.Root(t)
	w := open(t, bpffs(t))
	// Nobody reads: 16 MiB fill up with arguments.
	cmd := shell(t, w, 14, `big=$(head -c 120000 /dev/zero | tr '\0' y); for i in $(seq 200); do /bin/true $big; done`)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	sent, lost, err := w.Lost()
	if err != nil || lost == 0 || sent == 0 {
		t.Fatalf("sent %d, lost %d, %v", sent, lost, err)
	}
	r := run(t, w)
	until(t, "gap or cut in the record", func() bool {
		return slices.ContainsFunc(r.all(), func(e ledger.Entry) bool {
			return e.Kind == ledger.Gap && e.Lost > 0 || e.Kind == ledger.Exec && e.Process.ArgvCut > 0
		})
	})
}

func FuzzRead(f *testing.F) {
	f.Add(make([]byte, 512))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReader(time.Time{})
		for len(b) > 0 {
			n := min(len(b), int(b[0])*4+1)
			_, _ = r.read(b[:n], time.Time{})
			b = b[n:]
		}
		_ = r.overdue(time.Time{}.Add(time.Hour))
	})
}
