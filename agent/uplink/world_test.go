package uplink_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"curfew.internal/agent/doctor"
	"curfew.internal/agent/keep"
	"curfew.internal/agent/uplink"
	"curfew.internal/clock"
	"curfew.internal/controlplane/fleet"
	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/grant"
	"curfew.internal/wire/invite"
)

const fleetName = "acme"

// A world is a control plane with a fake store, and hosts with real state,
// on loopback.
type world struct {
	*testing.T
	root, key ed25519.PrivateKey
	ca        *fleet.CA
	store     *store
	log       *journal
	clock     *setClock
	shell     *desk

	mu      sync.Mutex
	server  *fleet.Server
	address string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, root: newKey(t), key: newKey(t), log: &journal{}, clock: &setClock{}}
	w.store = &store{tokens: map[[32]byte]string{}, hosts: map[string]roster.Host{}, states: map[string]roster.State{}, kept: map[string][][]byte{}}
	var err error
	if w.ca, err = fleet.OpenCA(t.TempDir(), fleetName, w.clock); err != nil {
		t.Fatal(err)
	}
	return w
}

// serve starts the control plane, at the address where it was before.
func (w *world) serve() (stop func()) {
	w.Helper()
	address := w.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	var l net.Listener
	w.until("the address is free", func() bool {
		var err error
		l, err = (&net.ListenConfig{}).Listen(w.Context(), "tcp", address)
		return err == nil
	})
	s := fleet.New(fleet.Config{
		CA: w.ca, Store: w.store, Names: []string{"127.0.0.1"}, SSHCA: func() string { return "ssh-ed25519 AAAA ca\n" }, Shell: w.shell,
		Clock: w.clock, Log: slog.New(slog.NewTextHandler(w.log, nil)), Heartbeat: 50 * time.Millisecond, Proof: 500 * time.Millisecond,
	})
	w.mu.Lock()
	w.server, w.address = s, l.Addr().String()
	w.mu.Unlock()
	w.store.changed.Store(&s)
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, l); !errors.Is(err, context.Canceled) {
			w.Errorf("server: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	w.Cleanup(stop)
	return stop
}

// code makes a join code for a token that works once.
func (w *world) code(secret string) invite.Code {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.tokens[sha256.Sum256([]byte(secret))] = ""
	return invite.Code{
		Kind: invite.Join, URL: "https://" + w.address, CA: w.ca.Hash(), Fleet: fleetName, Secret: secret,
		Roots: []ed25519.PublicKey{w.root.Public().(ed25519.PublicKey)},
	}
}

func (w *world) join(name string) uplink.Identity {
	w.Helper()
	w.put(name, 1)
	id, err := uplink.Join(w.Context(), w.clock, w.code("secret-of-"+name), uplink.Newcomer{Name: name})
	if err != nil {
		w.Fatal(err)
	}
	return id
}

// state signs what a host is to hold.
func (w *world) state(host string, revision uint64, key ed25519.PrivateKey) roster.State {
	now := time.Now().UTC().Truncate(time.Second)
	ring := grant.Keyring{Fleet: fleetName, Version: 1, Keys: []grant.Key{{
		Public: w.key.Public().(ed25519.PublicKey), NotBefore: time.Unix(1, 0), NotAfter: now.Add(1e6 * time.Hour).Truncate(1e5 * time.Hour),
	}}}
	set := grant.Set{Fleet: fleetName, Host: host, Revision: revision, IssuedAt: time.Unix(int64(1e9+revision), 0)}
	return roster.State{
		Revision: revision,
		Keyring:  dsse.Sign(grant.KeyringType, ring.Bytes(), w.root).Bytes(),
		Set:      dsse.Sign(grant.SetType, set.Bytes(), key).Bytes(),
	}
}

// put makes a set of that revision the host's, and wakes its stream.
func (w *world) put(host string, revision uint64) { w.store.put(host, w.state(host, revision, w.key)) }

// until waits for something that happens elsewhere.
func (w *world) until(what string, is func() bool) {
	w.Helper()
	end := time.After(2 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-end:
			w.Fatalf("never: %s\n%s", what, w.log.String())
		case <-tick.C:
		}
	}
}

// A host is an agent without a machine.
type host struct {
	*world
	id      uplink.Identity
	dir     string
	keep    *keep.Keep
	client  *uplink.Client
	settled atomic.Bool
	renewed atomic.Int32
	unsure  atomic.Bool
	unread  atomic.Bool                   // its outbox
	report  atomic.Pointer[doctor.Report] // of its doctor
	answers atomic.Int32                  // of the control plane's clock, to a question
	dial    func(ctx context.Context, address string) (net.Conn, error)
	stop    func()
}

func (w *world) host(id uplink.Identity) *host {
	return &host{world: w, id: id, dir: w.TempDir()}
}

func (h *host) Accept(_ context.Context, keyring, set []byte) (uint64, error) {
	o, err := h.keep.Accept(keyring, set, time.Now())
	return o.Revision, err
}
func (h *host) Versions() (revision, keyring uint64) { return h.keep.Versions() }
func (h *host) Settled() bool                        { return h.settled.Load() }
func (h *host) Roster() uint64                       { return h.keep.Roster() }
func (h *host) TakeRosters(_ context.Context, envelopes [][]byte) error {
	return h.keep.TakeRosters(envelopes)
}

// start starts the agent; what it keeps is where it was.
func (h *host) start() *host {
	h.Helper()
	var err error
	h.keep, err = keep.Open(keep.Config{
		Dir: h.dir, Fleet: fleetName, Host: h.id.Name, Boot: "boot", Roots: h.id.Roots, Clock: clock.System{},
	})
	if err != nil {
		h.Fatal(err)
	}
	h.client, err = uplink.New(uplink.Config{
		Server: h.address, Identity: h.id, Host: h, Rosters: h, Outbox: deaf{h.keep.Outbox(), &h.unread}, Appended: h.keep.Outbox().Appended(),
		Facts: func() uplink.Facts {
			return uplink.Facts{AgentVersion: "v1", Boot: "boot", Mode: "label", Addresses: []string{"10.0.0.1:22", "bad address\n"}}
		},
		Now: time.Now, Clock: hasty{h.clock}, Log: slog.New(slog.NewTextHandler(h.log, nil)), Dial: h.dial, Again: time.Second,
		Renewed: func([]byte) error { h.renewed.Add(1); return nil },
		Unsure:  h.unsure.Load,
		Access:  func() string { return "observe" },
		Doctor: func() doctor.Report {
			if r := h.report.Load(); r != nil {
				return *r
			}
			return doctor.Report{}
		},
		Told: func(_ context.Context, at time.Time, age time.Duration) {
			if age < time.Minute && !at.IsZero() {
				h.answers.Add(1)
			}
		},
	})
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.Context())
	var parts sync.WaitGroup
	parts.Go(func() { _ = h.client.Run(ctx) })
	parts.Go(func() { _ = h.keep.Run(ctx) })
	h.stop = sync.OnceFunc(func() {
		cancel()
		parts.Wait()
		if err := h.keep.Close(); err != nil {
			h.Error(err)
		}
	})
	h.Cleanup(h.stop)
	return h
}

func (h *host) revision() uint64 { r, _ := h.keep.Versions(); return r }

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A setClock is the machine's clock, set forward or back.
type setClock struct{ by atomic.Int64 }

func (c *setClock) Now() clock.Reading {
	r := clock.System{}.Now()
	r.Wall = r.Wall.Add(time.Duration(c.by.Load()))
	return r
}

func (c *setClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// A hasty clock waits a hundredth of the time.
type hasty struct{ *setClock }

func (hasty) After(d time.Duration) <-chan time.Time { return time.After(d / 100) }

// A journal is a log that can be looked into.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func (j *journal) has(s string) bool { return strings.Contains(j.String(), s) }

// A store is the control plane's, in memory.
type store struct {
	changed atomic.Pointer[*fleet.Server]

	mu     sync.Mutex
	tokens map[[32]byte]string // what used them up
	hosts  map[string]roster.Host
	states map[string]roster.State
	kept   map[string][][]byte // by host and outbox
	lists  [][]byte            // versions of the roster of people's keys
	down   error               // what KeepRecords says while it is not nil
}

func (s *store) notify(host string) {
	if f := s.changed.Load(); f != nil {
		(*f).Changed(host)
	}
}

func (s *store) put(host string, v roster.State) {
	s.mu.Lock()
	s.states[host] = v
	s.mu.Unlock()
	s.notify(host)
}

func (s *store) alter(host string, f func(h *roster.Host)) {
	s.mu.Lock()
	h := s.hosts[host]
	f(&h)
	s.hosts[host] = h
	s.mu.Unlock()
	s.notify(host)
}

func (s *store) UseJoinToken(_ context.Context, hash [32]byte, h roster.Host, _ time.Time) (roster.Host, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	by, ok := s.tokens[hash]
	if !ok {
		return h, roster.ErrUnknown
	}
	if by != "" {
		return h, roster.ErrUsed
	}
	s.tokens[hash] = h.Name
	h.Labels = maps.Clone(h.Labels)
	s.hosts[h.Name] = h
	return h, nil
}

func (s *store) Host(_ context.Context, name string) (roster.Host, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.hosts[name]
	if !ok {
		return h, roster.ErrUnknown
	}
	return h, nil
}

func (s *store) State(_ context.Context, host string) (roster.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.states[host]
	if !ok || s.hosts[host].Decommissioned {
		return v, roster.ErrUnknown
	}
	v.Roster = uint64(len(s.lists))
	return v, nil
}

// Rosters returns one version at a time, as if each filled a message.
func (s *store) Rosters(_ context.Context, after uint64, _ int) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists[after : after+1], nil
}

// list publishes one version more of the roster.
func (s *store) list(envelope []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists = append(s.lists, envelope)
}

func (s *store) KeepRecords(_ context.Context, host, outbox string, records []roster.Record) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil && len(records) > 0 {
		return 0, s.down
	}
	name := host + "/" + outbox
	all := s.kept[name]
	for _, r := range records {
		switch upTo := uint64(len(all)); {
		case r.Seq <= upTo:
		case r.Seq == upTo+1:
			all = append(all, r.Entry)
		default:
			return 0, fmt.Errorf("record %d after %d", r.Seq, upTo)
		}
	}
	s.kept[name] = all
	return uint64(len(all)), nil
}

func (s *store) Seen(_ context.Context, host string, at time.Time, said roster.Host) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[host]
	h.Seen, h.AgentVersion, h.Addresses = at, said.AgentVersion, said.Addresses
	s.hosts[host] = h
	return nil
}

func (s *store) Applied(_ context.Context, host string, r roster.Report, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[host]
	h.Applied, h.Refused = r.Revision, r.Refused
	h.Access, h.Examined, h.Findings = r.Access, r.Examined, r.Findings
	if r.Settled {
		h.Mode = "settled"
	}
	s.hosts[host] = h
	return nil
}

func (s *store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
}

// records is all that is kept of a host, whatever the outbox.
func (s *store) records(host string) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all [][]byte
	for name, r := range s.kept {
		if strings.HasPrefix(name, host+"/") {
			all = append(all, r...)
		}
	}
	return all
}

func (s *store) host(name string) roster.Host {
	h, _ := s.Host(context.Background(), name)
	return h
}
