package pair

import (
	"bufio"
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"curfew.internal/agent/keep"
	"curfew.internal/agent/uplink"
	"curfew.internal/clock"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
	"curfew.internal/wire/invite"
)

var crashFor = flag.Duration("crash", 15*time.Second, "how long agents and servers are killed")

const crashPlace = "CURFEW_TEST_CRASH"

// crasher is what an agent that is to die needs to know.
type crasher struct {
	Dir   string   // of its state
	Ports []string // of both servers
	From  uint64   // the first entry that it tells
}

// However often agent and servers are killed, and a write of the agent's disk
// is torn: the verifier accepts the record, and finds everything in it that was
// said to be kept.
func TestCrashes(t *testing.T) {
	if c := os.Getenv(crashPlace); c != "" {
		tellUntilKilled(t, c)
	}
	w := newWorld(t, []string{"ana"}, []string{"ben"})
	c := crasher{Dir: t.TempDir(), Ports: []string{w.a.agents, w.b.agents}, From: 1}
	w.joined(t, c)
	deaths := map[string]int{}
	for begun := time.Now(); time.Since(begun) < *crashFor; {
		said := w.crash(t, c, deaths)
		c.From = max(c.From, said+1)
	}
	w.whole(t, c, deaths)
}

// joined makes the crasher a host of the fleet.
func (w *world) joined(t *testing.T, c crasher) {
	t.Helper()
	token, err := w.ada.a.CreateJoinToken(t.Context(), &api.CreateJoinTokenRequest{Labels: map[string]string{"tier": "db"}, Code: w.ada.code(t)})
	must(t, err)
	code, err := invite.Parse(invite.Join, token.Token)
	must(t, err)
	id, err := uplink.Join(t.Context(), clock.System{}, code, uplink.Newcomer{Name: "db1"})
	must(t, err)
	must(t, keep.SaveIdentity(c.Dir, keep.Identity(id)))
}

// teller is an agent that tells until it is killed.
type teller struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	said  uint64 // the last entry that it said was on its disk
}

func (c crasher) start(t *testing.T) *teller {
	t.Helper()
	text, err := json.Marshal(c)
	must(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashes$")
	cmd.Env = append(os.Environ(), crashPlace+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return &teller{cmd: cmd, lines: bufio.NewScanner(out)}
}

// hear hears up to so many lines, and reports whether there were.
func (a *teller) hear(t *testing.T, n int) bool {
	t.Helper()
	for range n {
		if !a.lines.Scan() {
			return false
		}
		// The kill may have torn the last line.
		if digits, whole := strings.CutSuffix(a.lines.Text(), "."); whole {
			n, err := strconv.ParseUint(digits, 10, 64)
			must(t, err)
			a.said = n
		}
	}
	return true
}

// kill ends it, and hears what it said before.
func (a *teller) kill(t *testing.T) {
	t.Helper()
	_ = a.cmd.Process.Kill() // it may have ended, where its disk did
	for a.hear(t, 1) {
	}
	_ = a.cmd.Wait() // it was killed
}

// crash lets an agent tell, kills what chance names, and then the agent. It
// returns the last entry that the agent said was on its disk.
func (w *world) crash(t *testing.T, c crasher, deaths map[string]int) (said uint64) {
	t.Helper()
	a := c.start(t)
	a.hear(t, 1+rand.IntN(100))
	for name, p := range map[string]*plane{"server a": w.a, "server b": w.b} {
		if rand.IntN(3) == 0 {
			p.kill()
			defer w.start(t, p)
			deaths[name]++
		}
	}
	a.hear(t, rand.IntN(100))
	a.kill(t)
	deaths["agent"]++
	if rand.IntN(2) == 0 {
		tear(t, c.Dir)
		deaths["write"]++
	}
	return a.said
}

// tear leaves what a disk has of a write that it did not finish.
func tear(t *testing.T, dir string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "outbox", "*.entries"))
	must(t, err)
	if len(all) == 0 {
		return
	}
	f, err := os.OpenFile(all[len(all)-1], os.O_WRONLY|os.O_APPEND, 0o600)
	must(t, err)
	_, err = io.CopyN(f, crand.Reader, 1+rand.Int64N(60))
	must(t, err)
	must(t, f.Close())
}

// whole sends what is left, and checks the record as an auditor does.
func (w *world) whole(t *testing.T, c crasher, deaths map[string]int) {
	t.Helper()
	last, stop := startTelling(t, c)
	must(t, last.Append(ledger.Entry{Kind: ledger.Agent, At: time.Now(), Host: "db1", Text: "the end of it"}))
	w.sent(t)
	stop()
	file := filepath.Join(t.TempDir(), "bundle")
	w.run(t, w.ada, "audit", "export", "--all", file)
	b, err := os.ReadFile(file)
	must(t, err)
	log, err := w.ada.a.GetCheckpoint(t.Context(), &api.GetCheckpointRequest{})
	must(t, err)
	key, err := ledger.ParseKey(log.Key)
	must(t, err)
	r := ledger.Verify(b, ledger.Trust{Key: key})
	for _, f := range r.Findings {
		t.Error(f)
	}
	has := map[uint64]bool{}
	bundle, err := ledger.ParseBundle(b)
	must(t, err)
	for _, record := range bundle.Records {
		leaf, err := ledger.ParseLeaf(record.Leaf)
		must(t, err)
		e, err := ledger.ParseEntry(leaf.Entry)
		must(t, err)
		if leaf.Host == "db1" && e.Kind == ledger.Exec {
			has[e.SessionSeq] = true
		}
	}
	for n := uint64(1); n < c.From; n++ {
		if !has[n] {
			t.Errorf("entry %d was said to be kept, and is not in the record", n)
		}
	}
	if len(r.Signers) != 1 || r.Signers[0].Seals == 0 || c.From < 2 {
		t.Errorf("%d entries, signed by %v", c.From-1, r.Signers)
	}
	t.Logf("%d entries were said to be kept; died: %v; %d seals, %d entries under none", c.From-1, deaths, r.Signers[0].Seals, r.Unsealed)
}

// sent waits until everything is in the record. In all that time no batch may
// have been kept whole, so that a busy machine takes minutes for it.
func (w *world) sent(t *testing.T) {
	t.Helper()
	limit := time.After(5 * time.Minute)
	for {
		found, err := w.ada.a.SearchEvents(t.Context(), &api.SearchEventsRequest{Host: "db1", Words: "the end of it"})
		must(t, err)
		if len(found.Events) == 1 {
			return
		}
		select {
		case <-limit:
			t.Fatal("in 5 minutes, what the host kept did not come into the record")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// startTelling opens what the host keeps, and sends it.
func startTelling(t *testing.T, c crasher) (*keep.Keep, func()) {
	t.Helper()
	id, err := keep.LoadIdentity(c.Dir)
	must(t, err)
	k, err := keep.Open(keep.Config{Dir: c.Dir, Fleet: id.Fleet, Host: id.Name, Boot: "boot", Roots: id.Roots, Clock: clock.System{}, Key: id.ReceiptKey})
	must(t, err)
	client, err := uplink.New(uplink.Config{
		Server: c.Ports[0], Identity: uplink.Identity(id), Host: &agent{keep: k, came: map[string]time.Time{}}, Outbox: k.Outbox(), Appended: k.Outbox().Appended(),
		Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", c.Ports[rand.IntN(len(c.Ports))])
		},
		Facts: func() uplink.Facts { return uplink.Facts{AgentVersion: "v1", Boot: "boot", Mode: "label"} },
		Now:   time.Now, Clock: clock.System{}, Again: time.Second, Renewed: func([]byte) error { return nil },
	})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	parts.Go(func() { _ = client.Run(ctx) })
	parts.Go(func() { _ = k.Run(ctx) })
	return k, func() {
		cancel()
		parts.Wait()
		must(t, k.Close())
	}
}

// tellUntilKilled tells of one session's events, and says of each when it, and
// all before it, is on disk.
func tellUntilKilled(t *testing.T, place string) {
	t.Helper()
	var c crasher
	must(t, json.Unmarshal([]byte(place), &c))
	k, _ := startTelling(t, c)
	for n := c.From; ; n++ {
		err := k.Append(ledger.Entry{Kind: ledger.Exec, At: time.Now(), Host: "db1", Boot: "boot", Session: 9, SessionSeq: n})
		if errors.Is(err, keep.ErrHeld) {
			fmt.Fprintln(os.Stdout, "held")
			continue
		}
		must(t, err)
		fmt.Fprintf(os.Stdout, "%d.\n", n)
	}
}
