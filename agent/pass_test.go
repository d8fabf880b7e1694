package agent_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"curfew.internal/agent"
	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host"
	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// halfSeen is a host of which a part cannot be looked at, with a rule that
// may be stuck.
type halfSeen struct {
	seen  enforce.State
	err   error
	stuck bool
	blind error // what keeps it from looking for what an account left
	steps []string
}

func (h *halfSeen) Observe(context.Context) (enforce.State, error) { return maps.Clone(h.seen), h.err }

func (h *halfSeen) Apply(_ context.Context, s enforce.Step) error {
	h.steps = append(h.steps, s.String())
	if s.Op == enforce.Remove && s.Thing.Kind == enforce.SudoRule && h.stuck {
		return errors.New("something is mounted there")
	}
	if s.Op == enforce.Put {
		h.seen[s.Thing] = s.Content
	} else {
		delete(h.seen, s.Thing)
	}
	return nil
}

func (h *halfSeen) RuleLeft(id string) (looked, left []string, err error) {
	if _, there := h.seen[enforce.Thing{Kind: enforce.SudoRule, Name: id}]; there {
		left = []string{"sudo rule " + id}
	}
	return []string{"sudo rule"}, left, nil
}

func (*halfSeen) EndSessions(context.Context, uint32) error    { return nil }
func (*halfSeen) KillUID(context.Context, uint32) (int, error) { return 0, nil }
func (*halfSeen) EndRaised(context.Context, []int, uint32) (int, error) {
	return 0, nil
}
func (*halfSeen) Spellings(paths []string) []string        { return paths }
func (*halfSeen) Snapshot(context.Context) ([]byte, error) { return nil, nil }
func (*halfSeen) Leavings(context.Context, host.Trace) (host.Leavings, error) {
	return host.Leavings{}, nil
}
func (*halfSeen) Clear(context.Context, string, uint32) ([]string, error) { return nil, nil }
func (*halfSeen) Tell([]int, string) (int, bool)                          { return 0, false }
func (*halfSeen) Managed(context.Context, string) (bool, error) {
	return true, nil
}
func (*halfSeen) Processes(uint32) ([]int, error) { return nil, nil }
func (*halfSeen) Argv(int) ([]string, error)      { return nil, nil }
func (h *halfSeen) Leftovers(context.Context, string, uint32) (looked, left []string, err error) {
	return []string{"account"}, nil, h.blind
}

// noLabels are the labels of a host on which nothing runs.
type noLabels struct{}

func (noLabels) Guard(uint64, bool) error             { return nil }
func (noLabels) Label(int, int, uint64, uint64) error { return nil }
func (noLabels) LabelOf(int) (uint64, bool, error)    { return 0, false, nil }
func (noLabels) Extend(uint64, uint64) error          { return nil }
func (noLabels) Living() (map[uint64][]int, error)    { return nil, nil }
func (noLabels) Kill(context.Context, []uint64) (killed map[uint64]int, left map[uint64][]int, err error) {
	return nil, nil, nil
}
func (noLabels) Forget([]uint64) error { return nil }

// memory keeps state in memory.
type memory struct {
	entries []ledger.Entry
	opened  map[string]agent.Opened
	at      time.Time
}

func (m *memory) Accept([]byte, []byte, time.Time) (grant.Opened, error) { return grant.Opened{}, nil }
func (m *memory) Trusted(clock.Reading) time.Time                        { return m.at }
func (m *memory) Earliest(clock.Reading) time.Time                       { return m.at }

func (*memory) Told(clock.Reading, time.Time) (time.Duration, error) { return 0, nil }

func (*memory) Correct(clock.Reading, time.Time, time.Duration) (time.Duration, error) { return 0, nil }

func (m *memory) Append(e ...ledger.Entry) error     { m.entries = append(m.entries, e...); return nil }
func (m *memory) Offer(e ledger.Entry) error         { return m.Append(e) }
func (m *memory) Sessions() ([]agent.Session, error) { return nil, nil }
func (m *memory) SaveSession(agent.Session) error    { return nil }
func (m *memory) DropSession(uint64) error           { return nil }
func (m *memory) Opened() (map[string]agent.Opened, error) {
	o := map[string]agent.Opened{}
	maps.Copy(o, m.opened)
	return o, nil
}

func (m *memory) Befores() ([]agent.Before, error)           { return nil, nil }
func (m *memory) SaveBefore(agent.Before) error              { return nil }
func (m *memory) DropBefore(string) error                    { return nil }
func (m *memory) Look(string) (agent.Look, error)            { return agent.Look{}, nil }
func (m *memory) SaveLook(agent.Look) error                  { return nil }
func (m *memory) DropLook(string) error                      { return nil }
func (m *memory) SaveOpened(o map[string]agent.Opened) error { m.opened = maps.Clone(o); return nil }

// receipts are what the host signed.
func (m *memory) receipts(t *testing.T, key ed25519.PrivateKey) []ledger.Receipt {
	t.Helper()
	var all []ledger.Receipt
	for _, e := range m.entries {
		if e.Kind == ledger.Removed {
			r, err := ledger.OpenReceipt(e.Receipt, key.Public().(ed25519.PublicKey))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
	}
	return all
}

var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

func of(id, person string, uid uint32, ends time.Time) grant.Grant {
	return grant.Grant{
		ID: id, Person: grant.Person{Name: person, UID: uid}, Hosts: []string{"db1"}, NotBefore: noon, NotAfter: ends,
		Role: grant.Role{RunAs: []string{"root"}, AnyCommand: true},
	}
}

func agentOf(t *testing.T, h agent.Host, m *memory, grants ...grant.Grant) *agent.Agent {
	t.Helper()
	a := &agent.Agent{
		Identity: agent.Identity{Fleet: "f", Name: "db1", Boot: "b", ReceiptKey: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))},
		Host:     h, Labels: noLabels{}, Keep: m, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
		Heard: func() time.Time { return m.at },
	}
	if err := a.Init(grant.Opened{Grants: grants, Revision: 1}, nil); err != nil {
		t.Fatal(err)
	}
	return a
}

// The reason on a signed receipt is one that the host knows.
func TestWhyAGrantEnded(t *testing.T) {
	leased, plain := of("g-a", "ana", grant.UIDMin, noon.Add(time.Hour)), of("g-a", "ana", grant.UIDMin, noon.Add(time.Hour))
	leased.Lease = time.Minute
	for _, c := range []struct {
		name   string
		kept   []grant.Grant
		unread error
		after  time.Duration
		want   string
	}{
		{"time", []grant.Grant{plain}, nil, 2 * time.Hour, "time"},
		{"not called for any more", nil, nil, time.Minute, "revoked"},
		{"the control plane is not heard", []grant.Grant{leased}, nil, 2 * time.Minute, "lease"},
		{"what was kept is not readable", nil, errors.New("damaged"), time.Minute, "lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &memory{at: noon.Add(c.after), opened: map[string]agent.Opened{"g-a": {Grant: "g-a", Person: "ana", UID: grant.UIDMin, NotAfter: plain.NotAfter, Installed: true}}}
			a := &agent.Agent{
				Identity: agent.Identity{Fleet: "f", Name: "db1", Boot: "b", ReceiptKey: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))},
				Host:     &halfSeen{seen: enforce.State{}}, Labels: noLabels{}, Keep: m, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
				Heard: func() time.Time { return noon },
			}
			if err := a.Init(grant.Opened{Grants: c.kept, Revision: 1}, c.unread); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Pass(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			r := m.receipts(t, a.ReceiptKey)
			if len(r) != 1 || r[0].Why != c.want {
				t.Errorf("%+v, want %s", r, c.want)
			}
		})
	}
}

func TestWhatWasSeenIsTakenAwayWhenTheRestWasNot(t *testing.T) {
	ana, ben := of("g-ana", "ana", grant.UIDMin, noon.Add(time.Hour)), of("g-ben", "ben", grant.UIDMin+1, noon.Add(time.Hour))
	seen, _ := enforce.Want([]grant.Grant{ana}, "db1", noon)
	rule := enforce.Thing{Kind: enforce.SudoRule, Name: "g-ana"}
	seen[rule] = "ana ALL=(ALL) ALL"
	seen[enforce.Thing{Kind: enforce.SudoRule, Name: "g-old"}] = "old ALL=(ALL) ALL"
	h := &halfSeen{seen: seen, err: errors.New("a folder is a file")}
	a := agentOf(t, h, &memory{at: noon}, ana, ben)
	if _, err := a.Pass(t.Context(), true); err == nil {
		t.Error("it is not said")
	}
	if want := []string{"remove sudo rule g-old", "put sudo rule g-ana"}; !slices.Equal(h.steps, want) {
		t.Errorf("%q", h.steps)
	}
	// Once all can be seen, the rest is given.
	h.err = nil
	if _, err := a.Pass(t.Context(), true); err != nil || h.seen[enforce.Thing{Kind: enforce.SudoRule, Name: "g-ben"}] == "" {
		t.Error(err, h.seen)
	}
}

// A receipt says that the rule is gone only after a look, also for a person
// who holds another grant.
func TestAReceiptLooksForTheRule(t *testing.T) {
	for name, others := range map[string][]grant.Grant{
		"the last grant": nil,
		"one of two":     {of("g-two", "ana", grant.UIDMin, noon.Add(2*time.Hour))},
	} {
		t.Run(name, func(t *testing.T) {
			h, m := &halfSeen{seen: enforce.State{}}, &memory{at: noon}
			a := agentOf(t, h, m, append(others, of("g-ana", "ana", grant.UIDMin, noon.Add(time.Hour)))...)
			if _, err := a.Pass(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			m.at, h.stuck = noon.Add(time.Hour), true
			if _, err := a.Pass(t.Context(), true); err == nil {
				t.Error("it is not said")
			}
			h.stuck = false
			if _, err := a.Pass(t.Context(), true); err != nil {
				t.Error(err)
			}
			r := m.receipts(t, a.ReceiptKey)
			if len(r) != 2 || !slices.Equal(r[0].Left, []string{"sudo rule g-ana"}) || !r[1].Clean() {
				t.Fatalf("%+v", r)
			}
			if !strings.Contains(strings.Join(r[1].Looked, ","), "sudo rule") {
				t.Error(r[1].Looked)
			}
		})
	}
}

// What goes on to be left is told once, whatever it is called.
func TestAReceiptThatIsNotCleanIsMadeOnce(t *testing.T) {
	h, m := &halfSeen{seen: enforce.State{}, blind: errors.New("one thing\nand another")}, &memory{at: noon}
	a := agentOf(t, h, m, of("g-ana", "ana", grant.UIDMin, noon.Add(time.Hour)))
	if _, err := a.Pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	m.at = noon.Add(time.Hour)
	for range 3 {
		if _, err := a.Pass(t.Context(), true); err == nil {
			t.Error("it is not said")
		}
	}
	if r := m.receipts(t, a.ReceiptKey); len(r) != 1 || r[0].Clean() {
		t.Errorf("%+v", r)
	}
}

// stuckLabels are the labels of sessions that nothing ends.
type stuckLabels struct {
	noLabels
	tried map[uint64]bool
}

func (l stuckLabels) Kill(ctx context.Context, sessions []uint64) (killed map[uint64]int, left map[uint64][]int, err error) {
	<-ctx.Done()
	left = map[uint64][]int{}
	for _, s := range sessions {
		l.tried[s], left[s] = true, []int{7}
	}
	return nil, left, nil
}

// bubble is the clock of a synctest bubble.
type bubble struct{ began time.Time }

func (b bubble) Now() clock.Reading {
	return clock.Reading{Wall: time.Now().UTC(), Boot: time.Since(b.began)}
}
func (bubble) After(d time.Duration) <-chan time.Time { return time.After(d) }

// crowd is a memory of many sessions whose grants are over.
type crowd struct{ memory }

func (crowd) Sessions() ([]agent.Session, error) {
	var all []agent.Session
	for i := range uint64(60) {
		all = append(all, agent.Session{ID: i + 1, Grant: "gone", Person: "ana"})
	}
	return all, nil
}

func TestSessionsThatDoNotEndLeaveTimeForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &crowd{memory{at: noon}}
		labels := stuckLabels{tried: map[uint64]bool{}}
		a := agentOf(t, &halfSeen{seen: enforce.State{}}, &m.memory)
		a.Keep, a.Labels, a.Clock = m, labels, bubble{time.Now()}
		if err := a.Init(grant.Opened{Revision: 1}, nil); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err := a.Pass(t.Context(), true)
		if took := time.Since(began); err == nil || took > 20*time.Second {
			t.Errorf("the pass took %v of the bubble's time and says %v", took, err)
		}
		if len(labels.tried) != 60 {
			t.Errorf("it tried to end %d of 60 sessions", len(labels.tried))
		}
	})
}
