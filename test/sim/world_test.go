package sim

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing/synctest"
	"time"

	"curfew.internal/agent"
	"curfew.internal/agent/enforce"
	"curfew.internal/agent/keep"
	"curfew.internal/clock"
	"curfew.internal/controlplane/fleet"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// A process of the simulated host.
type process struct {
	uid     uint32
	session uint64 // its label; 0: none
}

// An end is what the agent told the kernel of a session.
type end struct {
	deadline time.Duration // since boot; 0: none
	dying    bool
}

// crash is what a machine or an agent that dies in the middle throws.
type crash struct{}

// A world is everything but the agent: time, network, disk, host, kernel. One
// source of chance drives it, so that a seed is a run.
type world struct {
	chance *rand.Rand
	bug    string // planted
	trace  hash.Hash
	lines  []string

	now    time.Duration // true time since noon
	skew   time.Duration // of the wall clock
	bootAt time.Duration // when the machine was started
	boots  int
	marked time.Duration // when an agent last wrote the time down
	off    time.Duration // for how long nobody could know that time went by

	dir      string // the disk
	things   enforce.State
	procs    map[int]process
	kernel   map[uint64]end
	sessions map[uint64]agent.Session
	befores  map[string]agent.Before // in /run
	junk     map[string]string       // files that sessions left, and whose
	littered []string                // all that ever were
	pid      int
	calm     bool // no faults any more
	fuse     int  // the change at which the agent dies; 0: none

	turns
	link
	ctx     context.Context // of the world
	end     context.CancelFunc
	server  *server
	fleet   *fleet.Server
	cut     bool
	reached uint64 // the highest revision that the host took
	said    []ledger.Entry

	agent *agent.Agent
	keep  *keep.Keep
	next  time.Duration // when the loop makes its next pass
	clean bool          // the last pass left nothing undone
}

func newWorld(seed uint64, dir, bug string) *world {
	w := &world{
		chance: rand.New(rand.NewPCG(seed, 1)), bug: bug, trace: sha256.New(), dir: dir, boots: 1, bootAt: -time.Hour,
		things: enforce.State{}, procs: map[int]process{}, kernel: map[uint64]end{}, sessions: map[uint64]agent.Session{},
		befores: map[string]agent.Before{}, junk: map[string]string{}, server: &server{revision: 1, lost: map[string]bool{}, shelf: shelf{by: map[string][][]byte{}}}, pid: 100,
	}
	w.sign = -1
	w.ctx, w.end = context.WithCancel(context.Background())
	w.server.publish(w.true())
	w.serve()
	return w
}

// close ends all that goes on.
func (w *world) close() {
	w.stop()
	w.end()
	synctest.Wait()
}

func (w *world) tell(format string, args ...any) {
	line := fmt.Sprintf("%8.1fs  ", w.now.Seconds()) + fmt.Sprintf(format, args...)
	w.lines = append(w.lines, line)
	fmt.Fprintln(w.trace, line)
}

func (w *world) true() time.Time { return noon.Add(w.now) }

// change is one change to the world; the agent may die instead of making it.
func (w *world) change() {
	if w.fuse == 0 {
		return
	}
	if w.fuse--; w.fuse == 0 {
		panic(crash{})
	}
}

// alive runs a part of the agent. If it dies on the way, it is gone.
func (w *world) alive(what string, do func()) {
	if w.agent == nil {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			w.tell("the agent dies during %s", what)
			w.stop()
		}
	}()
	do()
}

// stop takes the agent away, whatever it was doing.
func (w *world) stop() {
	w.fuse = 0
	if w.agent != nil {
		w.marked, w.written = w.now, w.agent.Heard()
		w.die()
		w.unplug()
		synctest.Wait()
	}
	if w.keep != nil {
		_ = w.keep.Close() // gives its lock back, as the kernel does
	}
	w.agent, w.keep = nil, nil
}

// start starts an agent on what the disk, the kernel and /run hold.
func (w *world) start() error {
	w.stop()
	k, err := keep.Open(keep.Config{
		Dir: w.dir, Fleet: fleetName, Host: host, Boot: fmt.Sprintf("boot-%d", w.boots), Roots: roots,
		Clock: clockOf{w}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	w.keep = k
	revision, _ := k.Versions()
	w.reached = max(w.reached, revision) // one that died may have taken more than it said
	w.agent = &agent.Agent{
		Identity: agent.Identity{Fleet: fleetName, Name: host, Boot: fmt.Sprintf("boot-%d", w.boots), ReceiptKey: receiptKey},
		Host:     hostOf{w}, Labels: labelsOf{w}, Keep: keptOf{w, k}, Clock: clockOf{w}, Log: slog.New(slog.DiscardHandler),
		Resync: resync, Retry: time.Second,
	}
	opened, unread := k.Kept()
	if unread != nil {
		w.tell("kept grants do not count: %v", unread)
	}
	w.tell("an agent starts; it is %v for it", k.Trusted(clockOf{w}.Now()).Sub(noon))
	w.next = w.now
	if err := w.connectable(); err != nil {
		return err
	}
	return w.agent.Init(opened, unread)
}

// clockOf is the host's clock.
type clockOf struct{ *world }

func (c clockOf) Now() clock.Reading {
	return clock.Reading{Wall: c.true().Add(c.skew), Boot: c.now - c.bootAt}
}

func (clockOf) After(time.Duration) <-chan time.Time { return nil }

// keptOf is the real keep, with what lies in /run beside it.
type keptOf struct {
	w *world
	*keep.Keep
}

const openedName = "opened"

func (k keptOf) folder() keep.Folder { return keep.Folder{Dir: k.w.dir + "/state"} }

func (k keptOf) Trusted(r clock.Reading) time.Time {
	switch k.w.bug {
	case "a minute more":
		return k.Keep.Trusted(r).Add(-time.Minute)
	case "the wall clock alone":
		return r.Wall
	}
	return k.Keep.Trusted(r)
}

func (k keptOf) Correct(r clock.Reading, now time.Time, within time.Duration) (time.Duration, error) {
	k.w.checkPutRight(now)
	if k.w.bug == "put right too far" {
		now, r.Wall = now.Add(-10*time.Minute), r.Wall.Add(-10*time.Minute)
	}
	return k.Keep.Correct(r, now, within)
}

func (k keptOf) Earliest(r clock.Reading) time.Time {
	if k.w.bug == "begins by the wall clock" {
		return k.Trusted(r)
	}
	return k.Keep.Earliest(r)
}

func (k keptOf) Accept(keyring, set []byte, at time.Time) (grant.Opened, error) {
	k.w.change()
	o, err := k.Keep.Accept(keyring, set, at)
	if err != nil && k.w.bug == "older sets count" {
		if ring, rerr := grant.OpenKeyring(keyring, fleetName, roots); rerr == nil {
			if old, oerr := (grant.Reader{Fleet: fleetName, Host: host, Ring: ring}).Open(set, at); oerr == nil {
				return old, nil
			}
		}
	}
	k.w.change()
	return o, err
}

func (k keptOf) Append(entries ...ledger.Entry) error {
	k.w.change()
	err := k.Keep.Append(entries...)
	if err == nil {
		k.w.said = append(k.w.said, entries...)
	}
	k.w.change()
	return err
}

func (k keptOf) Sessions() ([]agent.Session, error) {
	return slices.Collect(maps.Values(k.w.sessions)), nil
}

func (k keptOf) SaveSession(s agent.Session) error {
	k.w.change()
	k.w.sessions[s.ID] = s
	k.w.change()
	return nil
}

func (k keptOf) DropSession(id uint64) error {
	k.w.change()
	delete(k.w.sessions, id)
	return nil
}

func (k keptOf) Opened() (map[string]agent.Opened, error) {
	o := map[string]agent.Opened{}
	_, err := k.folder().Load(openedName, &o)
	return o, err
}

func (k keptOf) SaveOpened(o map[string]agent.Opened) error {
	k.w.change()
	if k.w.bug == "leftovers forgotten" {
		o = maps.Clone(o)
		maps.DeleteFunc(o, func(_ string, g agent.Opened) bool { return !g.Ended.IsZero() })
	}
	err := k.folder().Save(openedName, o)
	k.w.change()
	return err
}

// hostOf is the simulated host.
type hostOf struct{ *world }

func (h hostOf) Observe(context.Context) (enforce.State, error) { return maps.Clone(h.things), nil }

func (h hostOf) Apply(_ context.Context, s enforce.Step) error {
	h.change()
	switch {
	case s.Op == enforce.Put:
		h.things[s.Thing] = s.Content
	case h.bug == "rules stay" && s.Thing.Kind == enforce.SudoRule:
	case h.bug == "rules drain too" && s.Thing.Kind == enforce.SudoRule && h.grant(s.Thing.Name) != nil && h.lasts(h.grant(s.Thing.Name)):
	default:
		delete(h.things, s.Thing)
	}
	h.change()
	return nil
}

func (h hostOf) EndSessions(context.Context, uint32) error { return nil }

func (hostOf) EndRaised(context.Context, []int, uint32) (int, error) { return 0, nil }

func (h hostOf) KillUID(_ context.Context, uid uint32) (int, error) {
	h.change()
	n := 0
	for pid, p := range h.procs {
		if p.uid == uid && h.bug != "nobody is killed" {
			delete(h.procs, pid)
			n++
		}
	}
	return n, nil
}

func (h hostOf) Processes(uid uint32) (pids []int, err error) {
	for pid, p := range h.procs {
		if p.uid == uid {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func (hostOf) Clear(context.Context, string, uint32) ([]string, error) { return nil, nil }
func (hostOf) Tell([]int, string) (int, bool)                          { return 0, false }
func (hostOf) Argv(int) ([]string, error)                              { return []string{"sudo", "id"}, nil }
func (hostOf) Spellings(paths []string) []string                       { return paths }

func (h hostOf) RuleLeft(id string) (looked, left []string, err error) {
	if _, ok := h.things[enforce.Thing{Kind: enforce.SudoRule, Name: id}]; ok && h.bug == "" {
		left = []string{"sudo rule " + id}
	}
	return []string{"sudo rule"}, left, nil
}

func (h hostOf) Leftovers(_ context.Context, person string, uid uint32) (looked, left []string, err error) {
	for t := range h.things {
		if t.Name == person {
			left = append(left, t.String())
		}
	}
	for _, p := range h.procs {
		if p.uid == uid && h.bug == "" {
			left = append(left, "a process")
		}
	}
	slices.Sort(left)
	return []string{"account"}, left, nil
}

func (h hostOf) Managed(_ context.Context, name string) (bool, error) {
	_, ok := h.things[enforce.Thing{Kind: enforce.Account, Name: name}]
	return ok, nil
}

// labelsOf is the simulated kernel.
type labelsOf struct{ *world }

func (l labelsOf) Label(pid, _ int, session, deadline uint64) error {
	l.change()
	l.kernel[session] = end{deadline: l.deadline(session, deadline)}
	p := l.procs[pid]
	p.session = session
	l.procs[pid] = p
	l.change()
	return nil
}

// deadline is what the kernel is told, with the bugs that are planted in it.
func (l labelsOf) deadline(session, told uint64) time.Duration {
	switch g := l.grant(l.sessions[session].Grant); {
	case l.bug == "sessions without an end":
		return 0
	case l.bug == "a lease is the loop's alone" && g != nil:
		return l.now - l.bootAt + g.Drained().Sub(l.true())
	}
	return time.Duration(told)
}

func (l labelsOf) LabelOf(pid int) (uint64, bool, error) {
	p, ok := l.procs[pid]
	return p.session, ok && p.session != 0, nil
}

var errNoSession = errors.New("no such session")

func (labelsOf) Guard(uint64, bool) error { return nil }

func (l labelsOf) Extend(session, deadline uint64) error {
	l.change()
	e, ok := l.kernel[session]
	if !ok {
		return errNoSession
	}
	e.deadline = l.deadline(session, deadline)
	l.kernel[session] = e
	return nil
}

func (l labelsOf) Living() (map[uint64][]int, error) {
	living := map[uint64][]int{}
	for pid, p := range l.procs {
		if p.session != 0 {
			living[p.session] = append(living[p.session], pid)
		}
	}
	return living, nil
}

func (l labelsOf) Kill(_ context.Context, sessions []uint64) (killed map[uint64]int, left map[uint64][]int, err error) {
	l.change()
	for _, s := range sessions {
		e := l.kernel[s]
		e.dying = true
		l.kernel[s] = e
	}
	l.endDue()
	l.change()
	return nil, nil, nil
}

func (l labelsOf) Forget(sessions []uint64) error {
	l.change()
	for _, s := range sessions {
		delete(l.kernel, s)
	}
	return nil
}

// endDue is the kernel's lock: it needs no agent.
func (w *world) endDue() {
	for pid, p := range w.procs {
		e, ok := w.kernel[p.session]
		if p.session != 0 && ok && (e.dying || e.deadline > 0 && w.now-w.bootAt >= e.deadline) && w.bug != "nobody is killed" {
			delete(w.procs, pid)
		}
	}
}
