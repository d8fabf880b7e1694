// Package agent keeps one host true to its grants.
//
// It wires the rooms of the host daemon together: what the control plane says
// is kept, the loop brings the host to it, the door answers PAM, and what was
// done is recorded. It never gives what no live grant calls for, and it never
// waits for the control plane to take away.
package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host"
	"curfew.internal/agent/keep"
	"curfew.internal/agent/writer"
	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// A Host is the machine as the agent sees and changes it.
type Host interface {
	// Observe returns every thing on the host that carries our mark, whoever
	// put it there and whenever.
	Observe(ctx context.Context) (enforce.State, error)
	// Apply carries out one step. It is idempotent.
	Apply(ctx context.Context, s enforce.Step) error
	// EndSessions ends what logind knows of the account, KillUID every
	// process of the account; it returns how many it ended.
	EndSessions(ctx context.Context, uid uint32) error
	KillUID(ctx context.Context, uid uint32) (int, error)
	// EndRaised ends those of the processes that can do more than the account.
	EndRaised(ctx context.Context, pids []int, uid uint32) (int, error)
	// Clear removes what the account left where it would run again or lie
	// about: jobs, and files in folders that everybody shares. It says what went.
	Clear(ctx context.Context, person string, uid uint32) (removed []string, err error)
	// RuleLeft looks for the sudo rule of an ended grant, Leftovers for what
	// an ended account may have left behind. Both say where they looked.
	RuleLeft(grant string) (looked, left []string, err error)
	Leftovers(ctx context.Context, person string, uid uint32) (looked, left []string, err error)
	// Snapshot tells, in words of its own, what the places look like that a
	// session could leave something in. Leavings looks for what one left, for
	// seconds, and removes what the trace says.
	Snapshot(ctx context.Context) ([]byte, error)
	Leavings(ctx context.Context, t host.Trace) (host.Leavings, error)
	// Managed reports whether the account on the host is one of ours.
	Managed(ctx context.Context, name string) (bool, error)
	// Tell writes a line to the terminals of processes, and says to how many;
	// later, if there are some and none took it.
	Tell(pids []int, line string) (n int, later bool)
	// Processes lists those of the account, and those whose login was its.
	Processes(uid uint32) ([]int, error)
	// Argv returns a process's arguments.
	Argv(pid int) ([]string, error)
	// Spellings returns those of the paths that lead to the same program as
	// the first, if that is one.
	Spellings(paths []string) []string
}

// Labels ties processes to sessions in the kernel.
type Labels interface {
	// Label labels the process that the pidfd names, or, where that is -1,
	// the pid.
	Label(pid, pidfd int, session, deadlineBootNS uint64) error
	LabelOf(pid int) (session uint64, ok bool, err error)
	// Extend moves a session's deadline.
	Extend(session, deadlineBootNS uint64) error
	// Guard says whether a session is kept from taking the agent away; it is,
	// until this says otherwise.
	Guard(session uint64, on bool) error
	// Living lists the living processes of every session.
	Living() (map[uint64][]int, error)
	// Kill ends every process of the sessions and returns, for each, those it
	// could not, and how many have exited since the session was over.
	Kill(ctx context.Context, sessions []uint64) (killed map[uint64]int, left map[uint64][]int, err error)
	Forget(sessions []uint64) error
}

// Keep is the agent's durable state.
type Keep interface {
	// Accept takes a keyring and a set if they may replace what is kept.
	Accept(keyring, set []byte, at time.Time) (grant.Opened, error)
	Trusted(r clock.Reading) time.Time
	// Told takes what the control plane's clock said, and says by how much that
	// raised trusted time. Earliest is the time that it is at least, by that.
	Told(r clock.Reading, at time.Time) (raised time.Duration, err error)
	Earliest(r clock.Reading) time.Time
	// Correct sets trusted time back to now or to the wall clock, whichever is
	// later, if it is further ahead than within. It says by how much.
	Correct(r clock.Reading, now time.Time, within time.Duration) (by time.Duration, err error)
	Append(entries ...ledger.Entry) error
	// Offer appends an entry if the disk takes it now.
	Offer(e ledger.Entry) error
	Sessions() ([]Session, error)
	SaveSession(s Session) error
	DropSession(id uint64) error
	Opened() (map[string]Opened, error)
	SaveOpened(o map[string]Opened) error
	Befores() ([]Before, error)
	SaveBefore(b Before) error
	DropBefore(person string) error
	// Look is the look of a grant that was begun; zero, if there is none.
	Look(grant string) (Look, error)
	SaveLook(l Look) error
	DropLook(grant string) error
}

// Identity is who this host is.
type Identity struct {
	Fleet, Name, Boot string
	ReceiptKey        ed25519.PrivateKey
}

// Agent is the host daemon.
type Agent struct {
	Identity
	Host   Host
	Labels Labels
	Keep   Keep
	Clock  clock.Clock
	Log    *slog.Logger

	// Resync is the longest time between two passes, and Retry the longest
	// after one that left work undone.
	Resync, Retry time.Duration
	// Heard says when the control plane was last heard, for leases.
	Heard func() time.Time

	// Plane takes what people on this host ask for.
	Plane Plane

	// Recording, if set, says why the record of this host does not work now.
	Recording func() error

	// Taped says whether a recorder holds the person's terminal. Unset, none
	// does.
	Taped func(person, tty string) bool

	// Writer, if set, says who touched a thing's file last, and of late.
	Writer func(t enforce.Thing) (writer.Writer, bool)

	// Barred, if set, says whether enforce mode refuses a call of sudo or su by
	// somebody without a grant, and whether this host is in it.
	Barred func(ctx context.Context, service, caller string) (barred, enforced bool, err error)

	// Unhold ends those of the processes that hold up whoever opens a file, and
	// names them; with doubted, those too that have too much open to be sure of.
	Unhold func(ctx context.Context, pids []int, doubted bool) (ended []int)
	// Holds says that the kernel keeps guarded sessions from that.
	Holds bool

	// Beside says that another agent, which hangs, has the record: what is over
	// is ended, and the receipt is left to that agent or the next.
	Beside bool

	// Passed, if set, is called after each pass.
	Passed func()

	// Parts are served as long as the agent runs: door, uplink, recorder,
	// drift. Each blocks until its context is done.
	Parts []func(ctx context.Context) error

	called chan Knock // by strangers, to be looked at

	looksUp, asks *share // of what people have this host ask for

	wake  chan struct{}
	ends  chan struct{} // leftovers are to be looked for
	ready chan struct{} // closed after the first pass
	busy  atomic.Int64  // since when a pass runs, in nanoseconds since boot; 0: none does

	beforeMu sync.Mutex // held while what was before is kept or dropped; before mu

	early atomic.Int64 // a sign of life from before time was put right, in Unix nanoseconds: it does not count once that time comes

	mu       sync.Mutex // guards what follows
	grants   []grant.Grant
	revision uint64
	opened   map[string]Opened
	sessions map[uint64]Session
	ended    map[uint64]Session // of late, so that their last events find them
	settled  bool
	lost     bool                   // what the control plane sent last could not be read, and it was not heard since
	over     map[string]grant.Grant // the last grant of each person that ended here
	killed   map[string]uint64      // processes ended so far, by grant
	said     map[string]string      // what was logged last, by what it is about
	before   map[string]Before      // what the host was like, by person
	looked   map[string]time.Time   // grants whose leftovers are recorded, with when they ended
	loosened map[string]string      // grants whose labels may have been taken away, and why

	calls uint64 // of sudo and su that were barred

	clockText  string // what is wrong with the clock, by the control plane's
	clockAhead bool   // it says that the clock is ahead
	hung       bool   // the kernel's ends of sessions are by the time that was told

	unsaved bool // opened is not on the disk as it is
}

// Opened is a grant that this host has begun to install. It is written down
// before the first step, is marked as ended when the receipt is kept, and is
// taken off when its leftovers are looked for: so that no crash leaves things
// on a host that nobody answers for.
type Opened struct {
	Grant     string    `json:"grant"`
	Person    string    `json:"person"`
	UID       uint32    `json:"uid"`
	Approvers []string  `json:"approvers"`
	NotAfter  time.Time `json:"not_after"`
	Installed bool      `json:"installed"`
	Left      []string  `json:"left,omitempty"`   // of a receipt that was not clean
	Since     time.Time `json:"since"`            // when it was written down
	Remove    []string  `json:"remove,omitempty"` // kinds of leftovers that the end removes
	Ended     time.Time `json:"ended,omitzero"`   // when the receipt was clean: its leftovers are to be looked for
	Over      bool      `json:"over,omitempty"`   // it ended by time: a clock that is put right does not bring it back
	Told      bool      `json:"told,omitempty"`   // its leftovers are recorded; it is listed as long as it is sent
	Loose     string    `json:"loose,omitempty"`  // what can't be found of it, for labels were taken away
}

// Init makes an agent ready: it reads what was kept over a restart. Unread is
// why the kept grants do not count, if they do not.
func (a *Agent) Init(kept grant.Opened, unread error) error {
	a.called = make(chan Knock, elevations)
	a.looksUp, a.asks = newShare(lookUpEvery, lookUpBurst), newShare(askEvery, askBurst)
	a.wake, a.ready, a.ends = make(chan struct{}, 1), make(chan struct{}), make(chan struct{}, 1)
	a.before, a.looked, a.loosened = map[string]Before{}, map[string]time.Time{}, map[string]string{}
	a.sessions, a.ended, a.over = map[uint64]Session{}, map[uint64]Session{}, map[string]grant.Grant{}
	a.killed, a.said = map[string]uint64{}, map[string]string{}
	a.grants, a.revision, a.lost = kept.Grants, kept.Revision, unread != nil
	if unread != nil {
		a.append(ledger.Entry{Kind: ledger.SetRefused, At: a.Clock.Now().Wall, Text: unread.Error()})
	}
	// What cannot be read counts for nothing: what it stood for is taken away,
	// or ended, as if nobody had given it.
	var err error
	if a.opened, err = a.Keep.Opened(); err != nil {
		a.forgotten("which grants were installed", err)
		a.opened = presumed(kept.Grants, a.Keep.Earliest(a.Clock.Now()))
	}
	sessions, err := a.Keep.Sessions()
	if err != nil {
		a.forgotten("which sessions were open", err)
	}
	for _, s := range sessions {
		a.sessions[s.ID] = s
	}
	before, err := a.Keep.Befores()
	if err != nil {
		a.forgotten("what the host was like before some sessions", err)
	}
	for _, b := range before {
		a.before[b.Person] = b
	}
	return nil
}

// presumed takes every grant that is kept and has begun for installed, so that
// what it put on the host is looked for when it is over.
func presumed(grants []grant.Grant, now time.Time) map[string]Opened {
	all := map[string]Opened{}
	for _, g := range grants {
		if now.Before(g.NotBefore) {
			continue
		}
		o := openedOf(g, g.NotBefore)
		o.Installed = true
		all[g.ID] = o
	}
	return all
}

func openedOf(g grant.Grant, at time.Time) Opened {
	return Opened{
		Grant: g.ID, Person: g.Person.Name, UID: g.Person.UID, Approvers: approvers(g), NotAfter: g.Drained(), Since: at, Remove: g.Role.Remove,
	}
}

func (a *Agent) forgotten(what string, err error) {
	a.Log.Error("what was kept cannot be read", "what", what, "err", err)
	a.append(ledger.Entry{Kind: ledger.Gap, At: a.Clock.Now().Wall, Text: "not known any more: " + what})
}

// Run keeps the host true until ctx is done or a part of the agent fails.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.loop(ctx) })
	for _, part := range a.Parts {
		g.Go(func() error { return part(ctx) })
	}
	return g.Wait()
}

// Wake asks for a pass. It carries no message: a pass looks at everything.
func (a *Agent) Wake() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Accept takes what the control plane says this host is to hold. What is
// refused changes nothing; the refusal is recorded.
func (a *Agent) Accept(ctx context.Context, keyring, set []byte) (uint64, error) {
	now := a.now()
	o, err := a.Keep.Accept(keyring, set, now)
	if err != nil {
		a.Log.WarnContext(ctx, "grant set refused", "err", err)
		a.append(ledger.Entry{Kind: ledger.SetRefused, At: now, Text: err.Error()})
	} else {
		for _, r := range o.Refused {
			a.Log.WarnContext(ctx, "grant refused", "err", r)
			a.append(ledger.Entry{Kind: ledger.SetRefused, At: now, Text: r.Error()})
		}
	}
	// What stands now stands, also after a refusal: a keyring that drops a key
	// ends that key's grants whatever came beside it.
	a.mu.Lock()
	a.grants, a.revision, a.settled, a.lost = o.Grants, o.Revision, false, a.lost && err != nil
	a.mu.Unlock()
	a.Wake()
	return o.Revision, err
}

// Revision is the set that is kept.
func (a *Agent) Revision() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.revision
}

// Settled reports whether the last pass left nothing to do.
func (a *Agent) Settled() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settled
}

// now is trusted time: it never goes back.
func (a *Agent) now() time.Time { return a.Keep.Trusted(a.Clock.Now()) }

// live returns the grants that stand at now: by time, and by lease.
func (a *Agent) live(now time.Time) []grant.Grant { return a.standing(a.known(), now) }

// standing returns those of the grants that stand at now.
func (a *Agent) standing(known []grant.Grant, now time.Time) []grant.Grant {
	a.mu.Lock()
	opened := a.opened // never changed, only replaced
	a.mu.Unlock()
	least := a.Keep.Earliest(a.Clock.Now())
	return slices.DeleteFunc(slices.Clone(known), func(g grant.Grant) bool {
		o, begun := opened[g.ID]
		return !g.LiveAt(now) || !begun && g.NotBefore.After(least) || o.Over || a.suspended(g, now)
	})
}

// draining returns those of the grants that are over at now, and under which
// what runs may go on. Nothing runs under one that was never on the host, or
// was ended before.
func (a *Agent) draining(known []grant.Grant, now time.Time) []grant.Grant {
	a.mu.Lock()
	opened := a.opened // never changed, only replaced
	a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(known), func(g grant.Grant) bool {
		o, ok := opened[g.ID]
		return !ok || !o.Ended.IsZero() || !g.DrainsAt(now) || a.suspended(g, now)
	})
}

// suspended reports whether the grant's lease has run out. A sign of life that
// is yet to come is from before time was put right, and none.
func (a *Agent) suspended(g grant.Grant, now time.Time) bool {
	heard := a.Heard()
	since := now.Sub(heard)
	return g.Lease > 0 && (since >= g.Lease || since < -tolerance || heard.UnixNano() == a.early.Load())
}

// of returns the grant of the person that ends last, if any.
func of(grants []grant.Grant, person string) (grant.Grant, bool) {
	var best grant.Grant
	for _, g := range grants {
		if g.Person.Name == person && g.NotAfter.After(best.NotAfter) {
			best = g
		}
	}
	return best, best.ID != ""
}

// stamp says whose entry it is.
func (a *Agent) stamp(e *ledger.Entry) {
	e.Host, e.Boot, e.Text = a.Name, a.Boot, printable(e.Text)
}

// append records entries of this host. A record that cannot be written now is
// kept by the outbox in memory, or counted as a gap; no removal waits for it.
func (a *Agent) append(entries ...ledger.Entry) {
	for i := range entries {
		a.stamp(&entries[i])
	}
	var lost *keep.LostError
	switch err := a.Keep.Append(entries...); {
	case errors.As(err, &lost) && len(lost.Of) == 0: // said before
	case err != nil:
		a.Log.Error("record not kept", "err", err, "entries", len(entries))
		if lost != nil {
			a.missed(lost.Of)
		}
	}
}
