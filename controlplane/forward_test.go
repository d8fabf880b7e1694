package controlplane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/leodido/go-syslog/v4"
	"github.com/leodido/go-syslog/v4/octetcounting"
	"github.com/leodido/go-syslog/v4/rfc5424"

	"curfew.internal/clock"
	"curfew.internal/controlplane/forward"
	"curfew.internal/controlplane/roster"
)

const serveConfig = "CURFEW_TEST_SERVE"

func TestMain(m *testing.M) {
	if file := os.Getenv(serveConfig); file != "" {
		fmt.Fprintln(os.Stderr, serveUntilKilled(file))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serveUntilKilled(file string) error {
	c, err := ReadConfig(file)
	if err != nil {
		return err
	}
	ctx := context.Background()
	s, err := Open(ctx, c, Options{Clock: clock.System{}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Version: "test"})
	if err != nil {
		return err
	}
	return s.Run(ctx, nil)
}

// arrivals are the numbers of entries, as they came to a receiver.
type arrivals struct {
	mu   sync.Mutex // guards what follows
	all  []uint64
	more chan struct{} // holds one when some came
}

func (a *arrivals) take(number string) {
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		n = 0 // no entry has that: inOrder fails
	}
	a.mu.Lock()
	a.all = append(a.all, n)
	a.mu.Unlock()
	select {
	case a.more <- struct{}{}:
	default:
	}
}

// until waits until so many messages came.
func (a *arrivals) until(t *testing.T, n int) {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for a.count() < n {
		select {
		case <-a.more:
		case <-limit:
			t.Fatalf("%d messages came in 2 min, not %d", a.count(), n)
		}
	}
}

func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.all)
}

// upTo is the last entry up to which everything came, each for the first time
// in its order.
func (a *arrivals) upTo(t *testing.T) (last uint64, doubles int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.all {
		switch {
		case n == last+1:
			last++
		case n == 0 || n > last:
			t.Fatalf("entry %d came after %d", n, last)
		default:
			doubles++
		}
	}
	return last, doubles
}

// A server that is killed again and again, at any moment, while it forwards to
// a syslog server that also breaks off in the middle: everything arrives, in
// order.
func TestKilledWhileItForwards(t *testing.T) {
	w := newTown(t)
	socket := filepath.Join(t.TempDir(), "log")
	w.plan.Config.Forward = []forward.Target{{Name: "siem", Form: forward.FormSyslog, To: "unix-stream://" + socket}}
	b, err := yaml.Marshal(w.plan.Config)
	must(t, err)
	must(t, os.WriteFile(w.plan.ConfigFile, b, 0o600))
	p, err := open(t.Context(), w.plan.Config, clock.System{})
	must(t, err)
	for i := range 1500 {
		must(t, p.store.Tell(t.Context(), roster.Act{By: "ada", At: time.Unix(int64(i), 0)}, "did \"%d\" things", i))
	}
	must(t, p.close())

	came := &arrivals{more: make(chan struct{}, 1)}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		came.serve(l)
	}()
	for round := range 8 {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), serveConfig+"="+w.plan.ConfigFile)
		var said logBook
		child.Stderr = &said
		must(t, child.Start())
		came.until(t, came.count()+1+97*round)
		must(t, child.Process.Kill())
		if err := child.Wait(); err == nil {
			t.Fatal("the child ended by itself", said.String())
		}
	}

	w.start(t)
	last, err := w.server.store.LastEvent(t.Context())
	must(t, err)
	until(t, "everything forwarded", func() bool { return w.server.forward.Behind(last)["siem"] == 0 })
	_, ops := w.get(t, "/metrics")
	if !strings.Contains(ops, `curfew_forward_behind{target="siem"} 0`) {
		t.Error("the figure does not say that nothing is behind:", ops)
	}
	w.stop(t)
	must(t, l.Close())
	<-done
	all, doubles := came.upTo(t)
	if all != last {
		t.Errorf("%d of %d arrived", all, last)
	}
	if doubles == 0 {
		t.Error("nothing came twice: no kill fell into a batch")
	}
}

// serve reads messages; each third connection it breaks off.
func (a *arrivals) serve(l net.Listener) {
	for n := 0; ; n++ {
		c, err := l.Accept()
		if err != nil {
			return
		}
		var from io.Reader = bufio.NewReader(c)
		if n%3 == 1 {
			from = io.LimitReader(c, int64(20_000+999*n))
		}
		octetcounting.NewParser(syslog.WithListener(func(r *syslog.Result) {
			if m, ok := r.Message.(*rfc5424.SyslogMessage); ok && r.Error == nil {
				a.take((*m.StructuredData)["curfew@32473"]["entry"])
			}
		})).Parse(from)
		_ = c.Close()
	}
}

func TestForwardIsChecked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "server.yaml")
	must(t, os.WriteFile(file, []byte("fleet: lab\nurl: https://c.example:7443\ndata_dir: /d\npolicy_dir: /p\nforward:\n  - {name: siem, form: cef, to: 'tcp://a:1'}\n"), 0o600))
	if _, err := ReadConfig(file); err == nil || !strings.Contains(err.Error(), "forward siem: form: write syslog, ocsf or otlp") {
		t.Error(errors.Join(errors.New("it was taken, or not for that"), err))
	}
}
