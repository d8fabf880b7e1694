package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host"
	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// A world is everything that outlives an agent: its host, the kernel's
// labels, the disk, and the time. It can fail at its n-th change.
type world struct {
	now      time.Time
	things   enforce.State
	tasks    map[int]uint64 // pid -> session
	owner    map[int]uint32 // pid -> uid
	sessions map[uint64]Session
	opened   map[string]Opened
	entries  []ledger.Entry
	offered  grant.Opened
	failAt   int // at this change, and at all after it; 0: never
	changes  int
	accounts map[string]bool // of the host's own
	befores  map[string]Before
	looks    map[string]Look
	junk     map[string]string // what sessions left, and whose it is
	planted  []string          // all that they ever left
	searches int               // looks for it
	freed    map[uint64]bool   // sessions that are not guarded
	ends     map[uint64]uint64 // of sessions, as the kernel has them
	deaf     bool              // the kernel takes no word on that
}

var (
	errCrash = errors.New("the power is gone")
	noon     = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
)

func newWorld() *world {
	return &world{
		now: noon, things: enforce.State{}, tasks: map[int]uint64{}, owner: map[int]uint32{}, sessions: map[uint64]Session{},
		opened: map[string]Opened{}, accounts: map[string]bool{},
		befores: map[string]Before{}, looks: map[string]Look{}, junk: map[string]string{}, freed: map[uint64]bool{}, ends: map[uint64]uint64{},
	}
}

// change counts a change to the world, which may be the one that fails.
func (w *world) change() error {
	w.changes++
	if w.failAt > 0 && w.changes >= w.failAt {
		return errCrash
	}
	return nil
}

// agent is an agent that starts in this world.
func (w *world) agent(t testing.TB) *Agent {
	t.Helper()
	a := &Agent{
		Identity: Identity{Fleet: "example", Name: "db1", Boot: "b", ReceiptKey: ed25519.NewKeyFromSeed(make([]byte, 32))},
		Host:     fakeHost{w}, Labels: fakeLabels{w}, Keep: fakeKeep{w}, Clock: fakeClock{w}, Log: slog.New(slog.DiscardHandler),
		Resync: time.Minute, Retry: time.Second, Heard: func() time.Time { return w.now },
	}
	if err := a.Init(w.offered, nil); err != nil {
		t.Fatal(err)
	}
	return a
}

type fakeClock struct{ *world }

func (c fakeClock) Now() clock.Reading {
	return clock.Reading{Wall: c.now, Boot: c.now.Sub(noon) + time.Hour}
}

func (fakeClock) After(time.Duration) <-chan time.Time { return make(chan time.Time) }

type fakeHost struct{ *world }

func (h fakeHost) Observe(context.Context) (enforce.State, error) { return maps.Clone(h.things), nil }

func (h fakeHost) Apply(_ context.Context, s enforce.Step) error {
	if s.Op == enforce.Put && h.accounts[s.Thing.Name] {
		return errors.New("this host has it already")
	}
	if err := h.change(); err != nil {
		return err
	}
	if s.Op == enforce.Remove {
		delete(h.things, s.Thing)
	} else {
		h.things[s.Thing] = s.Content
	}
	return nil
}

func (h fakeHost) EndSessions(context.Context, uint32) error { return nil }

func (h fakeHost) KillUID(_ context.Context, uid uint32) (int, error) {
	n := 0
	for pid, o := range h.owner {
		if o == uid {
			delete(h.owner, pid)
			delete(h.tasks, pid)
			n++
		}
	}
	return n, nil
}

func (h fakeHost) Processes(uid uint32) (pids []int, err error) {
	for pid, o := range h.owner {
		if o == uid {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// EndRaised ends those whose owner is another.
func (h fakeHost) EndRaised(_ context.Context, pids []int, uid uint32) (int, error) {
	n := 0
	for _, pid := range pids {
		if o, ok := h.owner[pid]; ok && o != uid {
			delete(h.owner, pid)
			delete(h.tasks, pid)
			n++
		}
	}
	return n, nil
}

func (h fakeHost) Clear(context.Context, string, uint32) ([]string, error) { return nil, nil }
func (h fakeHost) Tell([]int, string) (int, bool)                          { return 0, false }
func (h fakeHost) Snapshot(context.Context) ([]byte, error)                { return []byte(`"quiet"`), nil }

// Leavings finds the junk of the person's, and removes it where it may.
func (h fakeHost) Leavings(_ context.Context, t host.Trace) (found host.Leavings, err error) {
	h.searches++
	found.Looked = []string{"everywhere"}
	var begun, names []string
	_ = json.Unmarshal(t.Begun, &begun)
	for _, name := range slices.Sorted(maps.Keys(h.junk)) {
		if h.junk[name] == t.Person {
			names = append(names, name)
		}
	}
	for _, name := range begun {
		if !slices.Contains(names, name) {
			found.Removed = append(found.Removed, name)
		}
	}
	if !t.Own() {
		found.Left = names
		return found, nil
	}
	plan, err := json.Marshal(append(begun, names...))
	if err != nil {
		return found, err
	}
	t.Begin(plan)
	for _, name := range names {
		if h.change() != nil {
			found.Left = append(found.Left, name)
			continue
		}
		delete(h.junk, name)
		found.Removed = append(found.Removed, name)
	}
	return found, nil
}

func (h fakeHost) RuleLeft(id string) (looked, left []string, err error) {
	if _, ok := h.things[enforce.Thing{Kind: enforce.SudoRule, Name: id}]; ok {
		left = append(left, "sudo rule "+id)
	}
	return []string{"sudo rule"}, left, nil
}

func (h fakeHost) Leftovers(_ context.Context, person string, _ uint32) (looked, left []string, err error) {
	for t := range h.things {
		if t.Name == person {
			left = append(left, t.String())
		}
	}
	return []string{"account"}, left, nil
}

func (h fakeHost) Managed(_ context.Context, name string) (bool, error) {
	_, ok := h.things[enforce.Thing{Kind: enforce.Account, Name: name}]
	return ok, nil
}

func (fakeHost) Argv(int) ([]string, error) { return []string{"sudo", "-n", "id"}, nil }

// Spellings takes programs of one name for one file.
func (fakeHost) Spellings(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return path.Base(p) != path.Base(paths[0]) })
}

type fakeLabels struct{ *world }

func (l fakeLabels) Label(pid, _ int, session, end uint64) error {
	if err := l.change(); err != nil {
		return err
	}
	l.tasks[pid], l.ends[session] = session, end
	return nil
}

func (l fakeLabels) LabelOf(pid int) (uint64, bool, error) {
	s, ok := l.tasks[pid]
	return s, ok, nil
}

func (l fakeLabels) Extend(session, end uint64) error {
	if _, known := l.ends[session]; !known {
		return errors.New("no such session")
	}
	l.ends[session] = end
	return nil
}

func (fakeLabels) Forget([]uint64) error { return nil }

func (l fakeLabels) Guard(session uint64, on bool) error {
	if l.deaf {
		return errCrash
	}
	l.freed[session] = !on
	return nil
}

func (l fakeLabels) Living() (map[uint64][]int, error) {
	living := map[uint64][]int{}
	for pid, s := range l.tasks {
		living[s] = append(living[s], pid)
	}
	return living, nil
}

func (l fakeLabels) Kill(_ context.Context, sessions []uint64) (killed map[uint64]int, left map[uint64][]int, err error) {
	if err := l.change(); err != nil {
		return nil, nil, err
	}
	killed = map[uint64]int{}
	for pid, s := range l.tasks {
		if slices.Contains(sessions, s) {
			delete(l.tasks, pid)
			killed[s]++
		}
	}
	return killed, nil, nil
}

type fakeKeep struct{ *world }

// pending counts the grants that something is still to be done for.
func (w *world) pending() int {
	n := 0
	for _, o := range w.opened {
		if !o.Told {
			n++
		}
	}
	return n
}

func (k fakeKeep) Accept(_, set []byte, _ time.Time) (grant.Opened, error) {
	if string(set) == "bad" {
		return k.offered, errors.New("signature is false")
	}
	return k.offered, nil
}
func (k fakeKeep) Trusted(r clock.Reading) time.Time { return r.Wall }

func (k fakeKeep) Earliest(r clock.Reading) time.Time { return k.Trusted(r) }

func (fakeKeep) Told(clock.Reading, time.Time) (time.Duration, error) { return 0, nil }

func (fakeKeep) Correct(clock.Reading, time.Time, time.Duration) (time.Duration, error) {
	return 0, nil
}

func (k fakeKeep) Append(entries ...ledger.Entry) error {
	if err := k.change(); err != nil {
		return err
	}
	k.entries = append(k.entries, entries...)
	return nil
}

func (k fakeKeep) Offer(e ledger.Entry) error { return k.Append(e) }

func (k fakeKeep) Sessions() ([]Session, error) {
	var all []Session
	for _, s := range k.sessions {
		all = append(all, s)
	}
	return all, nil
}

func (k fakeKeep) SaveSession(s Session) error {
	if err := k.change(); err != nil {
		return err
	}
	k.sessions[s.ID] = s
	return nil
}

func (k fakeKeep) DropSession(id uint64) error {
	if err := k.change(); err != nil {
		return err
	}
	delete(k.sessions, id)
	return nil
}

func (k fakeKeep) Opened() (map[string]Opened, error) { return maps.Clone(k.opened), nil }

func (k fakeKeep) SaveOpened(o map[string]Opened) error {
	if err := k.change(); err != nil {
		return err
	}
	k.opened = maps.Clone(o)
	return nil
}

func (k fakeKeep) Befores() ([]Before, error) { return slices.Collect(maps.Values(k.befores)), nil }

func (k fakeKeep) SaveBefore(b Before) error {
	if err := k.change(); err != nil {
		return err
	}
	k.befores[b.Person] = b
	return nil
}

func (k fakeKeep) DropBefore(person string) error {
	if err := k.change(); err != nil {
		return err
	}
	delete(k.befores, person)
	return nil
}

func (k fakeKeep) Look(id string) (Look, error) { return k.looks[id], nil }

func (k fakeKeep) SaveLook(l Look) error {
	if err := k.change(); err != nil {
		return err
	}
	k.looks[l.Grant] = l
	return nil
}

func (k fakeKeep) DropLook(id string) error {
	if err := k.change(); err != nil {
		return err
	}
	delete(k.looks, id)
	return nil
}

func held(id, person string, from, to time.Duration) grant.Grant {
	return grant.Grant{
		ID: id, Fleet: "example", Person: grant.Person{Name: person, UID: grant.UIDMin + uint32(len(person))}, Hosts: []string{"db1"},
		NotBefore: noon.Add(from), NotAfter: noon.Add(to),
		Role:      grant.Role{Name: "ops", RunAs: []string{"root"}, Commands: []grant.Command{{Path: "/usr/bin/id"}}},
		Approvals: []grant.Evidence{{Person: "ben", Factor: "totp", At: noon}},
	}
}

// excess lists what is on the host beyond what the grants that stand call for.
func (w *world) excess() []string {
	want, _ := enforce.Want(w.offered.Grants, "db1", w.now)
	var more []string
	for t := range w.things {
		if _, ok := want[t]; !ok {
			more = append(more, t.String())
		}
	}
	return more
}

func (w *world) told(k ledger.Kind) []ledger.Entry {
	var found []ledger.Entry
	for _, e := range w.entries {
		if e.Kind == k {
			found = append(found, e)
		}
	}
	return found
}

func words(entries []ledger.Entry) string {
	var all []string
	for _, e := range entries {
		all = append(all, e.Text)
	}
	return strings.Join(all, "\n")
}
