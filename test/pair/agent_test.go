package pair

import (
	"context"
	"net"
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

// agent is an agent without a machine: its own uplink, and what it keeps.
type agent struct {
	keep   *keep.Keep
	client *uplink.Client

	mu      sync.Mutex // guards what follows
	to      *plane
	conns   []net.Conn
	came    map[string]time.Time // each grant, when it came first
	refused []error
}

// join makes a host of the name, which connects to the server.
func (w *world) join(t *testing.T, name string, to *plane) *agent {
	t.Helper()
	token, err := w.ada.a.CreateJoinToken(t.Context(), &api.CreateJoinTokenRequest{Labels: map[string]string{"tier": "db"}, Code: w.ada.code(t)})
	must(t, err)
	code, err := invite.Parse(invite.Join, token.Token)
	must(t, err)
	id, err := uplink.Join(t.Context(), clock.System{}, code, uplink.Newcomer{Name: name})
	must(t, err)
	a := &agent{to: to, came: map[string]time.Time{}}
	a.keep, err = keep.Open(keep.Config{Dir: t.TempDir(), Fleet: "lab", Host: name, Boot: "boot", Roots: id.Roots, Clock: clock.System{}})
	must(t, err)
	a.client, err = uplink.New(uplink.Config{
		Server: w.a.agents, Identity: id, Host: a, Outbox: a.keep.Outbox(), Appended: a.keep.Outbox().Appended(), Dial: a.dial,
		Facts: func() uplink.Facts { return uplink.Facts{AgentVersion: "v1", Boot: "boot", Mode: "label"} },
		Now:   time.Now, Clock: clock.System{}, Again: time.Second, Renewed: func([]byte) error { return nil },
	})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	parts.Go(func() { _ = a.client.Run(ctx) })
	parts.Go(func() { _ = a.keep.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		parts.Wait()
		must(t, a.keep.Close())
	})
	until(t, name+" is connected", a.client.Connected)
	return a
}

func (a *agent) dial(ctx context.Context, _ string) (net.Conn, error) {
	a.mu.Lock()
	to := a.to.agents
	a.mu.Unlock()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", to)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns = append(a.conns, c)
	return c, err
}

// move has the agent lose its connection, and find the other server.
func (a *agent) move(to *plane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.to = to
	for _, c := range a.conns {
		if c != nil {
			_ = c.Close()
		}
	}
	a.conns = nil
}

// Accept implements [uplink.Acceptor].
func (a *agent) Accept(_ context.Context, keyring, set []byte) (uint64, error) {
	now := time.Now()
	o, err := a.keep.Accept(keyring, set, now)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.refused = append(a.refused, err)
		return o.Revision, err
	}
	for _, g := range o.Grants {
		if _, ok := a.came[g.ID]; !ok {
			a.came[g.ID] = now
		}
	}
	return o.Revision, nil
}

// Versions implements [uplink.Acceptor].
func (a *agent) Versions() (revision, keyring uint64) { return a.keep.Versions() }

// Settled implements [uplink.Acceptor].
func (a *agent) Settled() bool { return true }

// when is when the grant came; zero, if it did not yet.
func (a *agent) when(id string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.came[id]
}

func (a *agent) refusals() []error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

// holds are the grants that the agent holds now.
func (a *agent) holds(t *testing.T) map[string]bool {
	t.Helper()
	o, err := a.keep.Kept()
	must(t, err)
	all := map[string]bool{}
	for _, g := range o.Grants {
		all[g.ID] = true
	}
	return all
}

// tell puts an entry into the agent's outbox.
func (a *agent) tell(t *testing.T, host, text string) {
	t.Helper()
	must(t, a.keep.Append(ledger.Entry{Kind: ledger.Agent, At: time.Now(), Host: host, Text: text}))
}
