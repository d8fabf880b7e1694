package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"curfew.internal/agent/doctor"
	"curfew.internal/agent/uplink"
	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
	"curfew.internal/wire/invite"
)

// A host is played: it speaks the real protocol to the control plane, with
// keys of its own, and has no machine to change.
type host struct {
	id       uplink.Identity
	client   *uplink.Client
	appended chan struct{}
	leave    context.CancelFunc

	mu       sync.Mutex // guards what follows
	ring     grant.Keyring
	revision uint64
	live     map[string]grant.Grant
	entries  [][]byte
	programs uint64 // that were run
	wrong    []doctor.Finding
}

// found adds a host to the fleet and connects it.
func (t *town) found(ctx context.Context, name string, labels map[string]string, wrong ...doctor.Finding) (*host, error) {
	token, err := t.ada.CreateJoinToken(ctx, &api.CreateJoinTokenRequest{Labels: labels})
	if err != nil {
		return nil, err
	}
	join, err := invite.Parse(invite.Join, token.Token)
	if err != nil {
		return nil, err
	}
	h := &host{appended: make(chan struct{}, 1), live: map[string]grant.Grant{}, wrong: wrong}
	if h.id, err = uplink.Join(ctx, clock.System{}, join, uplink.Newcomer{Name: name, Labels: labels, Addresses: []string{name + ":22"}}); err != nil {
		return nil, err
	}
	server, err := uplink.Server(join.URL)
	if err != nil {
		return nil, err
	}
	h.client, err = uplink.New(uplink.Config{
		Server: server, Identity: h.id, Host: h, Outbox: h, Appended: h.appended, Clock: clock.System{},
		Facts: func() uplink.Facts {
			return uplink.Facts{AgentVersion: "1.0.0", Boot: "boot-" + name, Mode: "kernel timer, refusals"}
		},
		Unwired: h.unwired, Access: func() string { return "observe" }, Doctor: h.examined,
		Now: time.Now, Renewed: func([]byte) error { return nil },
	})
	if err != nil {
		return nil, err
	}
	ctx, h.leave = context.WithCancel(ctx)
	t.hosts[name] = h
	t.work.Go(func() error {
		if err := h.client.Run(ctx); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
	return h, within(ctx, name, func() (bool, error) { return h.client.Connected(), nil })
}

// examined is what the host's doctor says.
func (h *host) examined() doctor.Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	return doctor.Report{At: clock.System{}.Now().Wall, Findings: slices.Clone(h.wrong)}
}

// unwired is what it lacks to ask the agent.
func (h *host) unwired() (all []string) {
	for _, f := range h.examined().Findings {
		if f.Check == "wiring" {
			all = append(all, f.Says)
		}
	}
	return all
}

// finds is the host's doctor looking again.
func (h *host) finds(wrong ...doctor.Finding) {
	h.mu.Lock()
	h.wrong = wrong
	h.mu.Unlock()
	h.client.Report()
}

// Accept opens what it was sent, as a real host does, and says what it would
// have put in place and taken away.
func (h *host) Accept(_ context.Context, keyring, set []byte) (uint64, error) {
	now := clock.System{}.Now().Wall
	h.mu.Lock()
	defer h.mu.Unlock()
	ring, err := grant.OpenKeyring(keyring, h.id.Fleet, []ed25519.PublicKey{h.id.Roots[0]})
	if err != nil {
		return h.revision, err
	}
	o, err := grant.Reader{Fleet: h.id.Fleet, Host: h.id.Name, Ring: ring}.Open(set, now)
	if err != nil {
		return h.revision, err
	}
	h.ring = ring
	if err := errors.Join(o.Refused...); err != nil {
		return h.revision, err
	}
	want := map[string]grant.Grant{}
	for _, g := range o.Grants {
		want[g.ID] = g
		if _, ok := h.live[g.ID]; !ok {
			h.tell(ledger.Entry{Kind: ledger.Installed, Grant: g.ID, Person: g.Person.Name, Text: "in place"})
		}
	}
	for id, g := range h.live {
		if _, ok := want[id]; !ok {
			h.end(g, now)
		}
	}
	h.live, h.revision = want, o.Revision
	return o.Revision, nil
}

// end signs that a grant is gone; the caller holds mu.
func (h *host) end(g grant.Grant, now time.Time) {
	why := "revoked"
	if !now.Before(g.NotAfter) {
		why = "time"
	}
	r := ledger.Receipt{
		Fleet: h.id.Fleet, Host: h.id.Name, Boot: "boot-" + h.id.Name, Grant: g.ID, Person: g.Person.Name, Why: why, EndedAt: now, DoneAt: now.Add(80 * time.Millisecond),
		Removed: []string{"sudo rule", "principal", "account"}, Looked: []string{"sessions", "sudo rule", "principal", "account"},
	}
	h.tell(ledger.Entry{Kind: ledger.Removed, Grant: g.ID, Person: g.Person.Name, Text: "taken away: " + why, Receipt: r.Seal(h.id.ReceiptKey)})
}

// tell puts an entry into the outbox; the caller holds mu.
func (h *host) tell(e ledger.Entry) {
	e.At, e.Host, e.Boot = clock.System{}.Now().Wall, h.id.Name, "boot-"+h.id.Name
	h.entries = append(h.entries, e.Bytes())
	select {
	case h.appended <- struct{}{}:
	default:
	}
}

// run is the person of a live grant logging in and running programs.
func (h *host) run(id string, lines ...[]string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, ok := h.live[id]
	if !ok {
		return fmt.Errorf("%s does not stand on %s", id, h.id.Name)
	}
	h.tell(ledger.Entry{Kind: ledger.Login, Grant: g.ID, Person: g.Person.Name, Session: h.revision, Service: "sshd", Text: "logged in"})
	for i, argv := range lines {
		h.programs++
		h.tell(ledger.Entry{Kind: ledger.Exec, Grant: g.ID, Person: g.Person.Name, Session: h.revision, SessionSeq: uint64(i + 1), Process: &ledger.Process{
			PID: uint32(4000 + h.programs), Comm: "p", Path: argv[0], Argv: argv, Cwd: "/root", TTY: "pts/0",
		}})
	}
	return nil
}

// holds reports whether the grant is in place.
func (h *host) holds(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.live[id]
	return ok
}

// Versions are those that it holds.
func (h *host) Versions() (revision, keyring uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revision, h.ring.Version
}

// Settled is always so: there is no machine that could lag behind.
func (*host) Settled() bool { return true }

// Name is the outbox's.
func (h *host) Name() string { return "o-" + h.id.Name }

// Next returns what is to be reported after the number.
func (h *host) Next(after uint64, _ int) (uint64, [][]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return after + 1, slices.Clone(h.entries[min(after, uint64(len(h.entries))):]), nil
}

// Kept needs nothing: what was reported stays here until the end.
func (*host) Kept(uint64, bool) error { return nil }
