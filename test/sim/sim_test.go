// Package sim runs the real agent in a simulated world: fake time, network,
// host and kernel, and every fault between them, from one seed.
package sim

import (
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"curfew.internal/agent"
	"curfew.internal/agent/enforce"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run this seed alone, and tell what happens")
	seeds   = flag.Int("seeds", 1000, "how many seeds to run")
)

var (
	receiptKey = keyOf("receipt")
	roots      = []ed25519.PublicKey{public(root)}
)

const (
	resync = 30 * time.Second
	events = 60
)

// A move is something that may happen, and how often.
type move struct {
	weight int
	do     func(*world)
}

var moves = []move{
	{30, func(w *world) { w.pass(time.Duration(w.chance.IntN(90_000)) * time.Millisecond) }},
	{8, (*world).issue},
	{4, (*world).revoke},
	{10, (*world).login},
	{6, (*world).sudo},
	{4, (*world).fork},
	{5, func(w *world) { w.fuse = 1 + w.chance.IntN(12) }},
	{3, func(w *world) { w.tell("the agent is killed"); w.stop() }},
	{6, (*world).startAgain},
	{2, (*world).powerCut},
	{3, (*world).jump},
	{3, func(w *world) { w.cut = !w.cut; w.tell("network cut: %v", w.cut) }},
	{3, (*world).snap},
	{2, (*world).restart},
	{2, func(w *world) { w.server.full = !w.server.full; w.tell("the database is full: %v", w.server.full) }},
	{4, (*world).forge},
	{5, (*world).replay},
	{4, (*world).meddle},
	{2, (*world).backup},
}

func (w *world) move() {
	total := 0
	for _, m := range moves {
		total += m.weight
	}
	n := w.chance.IntN(total)
	for _, m := range moves {
		if n -= m.weight; n < 0 {
			m.do(w)
			return
		}
	}
}

func (w *world) who() string { return people[w.chance.IntN(len(people))] }

func (w *world) issue() {
	if w.server.restored {
		return // nobody asks before the revisions go on
	}
	length := time.Duration(1+w.chance.IntN(600)) * time.Second
	var lease time.Duration
	if w.chance.IntN(4) == 0 {
		lease = time.Minute
	}
	var drain time.Duration
	if w.chance.IntN(3) == 0 {
		drain = time.Duration(1+w.chance.IntN(240)) * time.Second
	}
	from := w.true()
	if w.chance.IntN(4) == 0 {
		from = from.Add(time.Duration(w.chance.IntN(600)) * time.Second)
	}
	g := w.server.issue(w.who(), from, from.Add(length), lease, drain)
	w.tell("%s gets %s in %v for %v, lease %v, drain %v, revision %d", g.Person.Name, g.ID[14:], from.Sub(w.true()), length, lease, drain, w.server.revision)
	w.send()
}

func (w *world) revoke() {
	if n := len(w.server.held); n > 0 && !w.server.restored {
		g := w.server.held[w.chance.IntN(n)]
		w.server.revoke(g)
		w.tell("%s is revoked, revision %d", g.ID[14:], w.server.revision)
		w.send()
	}
}

// send makes what the server holds the host's set. The word that wakes the
// stream may be lost: the next heartbeat looks again.
func (w *world) send() {
	w.server.publish(w.true())
	if w.calm || w.chance.IntN(6) > 0 {
		w.fleet.Changed(host)
		synctest.Wait()
	}
	w.play()
}

// forge has the control plane send what no host may take, as from somebody who
// broke into it.
func (w *world) forge() {
	set := w.server.set(host, thief, w.true())
	switch w.chance.IntN(3) {
	case 0:
		set = w.server.set("web1", signer, w.true())
	case 1:
		set = w.server.set(host, signer, w.true())
		set[w.chance.IntN(len(set))] ^= 1 << w.chance.IntN(8)
	}
	w.tell("somebody forges a set")
	w.slip(set)
}

// replay sends a set of the past again.
func (w *world) replay() {
	w.tell("somebody sends an old set")
	w.slip(w.server.sets[w.chance.IntN(len(w.server.sets))])
}

// backup keeps what the server knows, or brings back what it knew.
func (w *world) backup() {
	s := w.server
	switch {
	case s.restored:
		w.goOn()
	case s.backedUp > 0 && w.chance.IntN(2) == 0:
		w.tell("the server is restored to revision %d", s.backedUp)
		s.lose()
		s.held, s.revision, s.shelf, s.restored = slices.Clone(s.backup), s.backedUp, s.copied.clone(), true
		s.current = s.set(host, signer, w.true())
		w.restart()
	default:
		s.backup, s.backedUp, s.copied = slices.Clone(s.held), s.revision, s.shelf.clone()
	}
}

// goOn is an administrator who makes the revisions go on behind all that were
// sent.
func (w *world) goOn() {
	s := w.server
	w.tell("the revisions go on")
	s.revision, s.ahead, s.restored = s.highest+1, 0, false
	for _, g := range s.grants {
		if g.revoked > 0 {
			s.held = without(s.held, g)
		}
	}
	w.send()
}

func (w *world) login() {
	person := w.who()
	w.alive("a login", func() {
		pid := w.spawn()
		a := w.agent.Knock(context.Background(), agent.Knock{Open: true, Service: "sshd", User: person, PID: pid, FD: -1})
		w.tell("%s logs in: %v", person, a.Allow)
		if !a.Allow {
			delete(w.procs, pid)
			return
		}
		w.procs[pid] = process{uidOf(person), w.procs[pid].session}
		w.litter(person)
		if w.procs[pid].session == 0 {
			panic("let in without a label")
		}
	})
}

func (w *world) sudo() {
	person := w.who()
	w.alive("sudo", func() {
		pid := w.spawn()
		a := w.agent.Knock(context.Background(), agent.Knock{Open: true, Service: "sudo", User: "root", RUser: person, PID: pid, FD: -1})
		w.tell("%s calls sudo: %v", person, a.Allow)
		if !a.Allow {
			delete(w.procs, pid)
		}
	})
}

// spawn starts a process of root's, as sshd or sudo is.
func (w *world) spawn() int {
	w.pid++
	w.procs[w.pid] = process{}
	return w.pid
}

// fork makes a child of somebody's process; one in three gets rid of its
// label, as by systemd-run, and keeps the uid.
func (w *world) fork() {
	pids := slices.Sorted(maps.Keys(w.procs))
	if len(pids) == 0 {
		return
	}
	p := w.procs[pids[w.chance.IntN(len(pids))]]
	if p.uid != 0 && w.chance.IntN(3) == 0 {
		p.session = 0
	}
	w.pid++
	w.procs[w.pid] = p
}

func (w *world) startAgain() {
	if w.agent == nil {
		if err := w.start(); err != nil {
			panic(err)
		}
	}
}

// powerCut takes all that is in memory.
func (w *world) powerCut() {
	w.pull()
	w.stop()
	length := time.Duration(1+w.chance.IntN(300)) * time.Second
	w.tell("the power is gone for %v", length)
	w.tear()
	clear(w.things)
	clear(w.procs)
	clear(w.kernel)
	clear(w.sessions)
	clear(w.befores)
	w.pass(length)
	// A wall clock that is behind cannot tell that time went by since an agent
	// last wrote the time down.
	w.off += w.now - w.marked
	if w.boots > 1 { // the next boot may be taken for this one going on
		w.off += w.marked - w.bootAt
	}
	w.boots, w.bootAt = w.boots+1, w.now
	if w.chance.IntN(2) == 0 {
		w.startAgain()
	}
}

// tear leaves on the disk what was about to be written: the half of an entry at
// the end of the outbox, and of a file that was to take another's place.
func (w *world) tear() {
	half := make([]byte, 1+w.chance.IntN(40))
	for i := range half {
		half[i] = byte(w.chance.IntN(256))
	}
	if files, _ := filepath.Glob(w.dir + "/outbox/*.entries"); len(files) > 0 && w.chance.IntN(2) == 0 {
		f, err := os.OpenFile(slices.Max(files), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.Write(half)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			panic(err)
		}
	}
	if w.chance.IntN(2) == 0 {
		if err := os.WriteFile(w.dir+"/.grants"+strconv.Itoa(w.boots), half, 0o600); err != nil {
			panic(err)
		}
	}
}

// jump sets the host's wall clock.
func (w *world) jump() {
	w.skew = time.Duration(w.chance.IntN(7200)-3600) * time.Second
	w.tell("the wall clock is off by %v", w.skew)
}

// meddle is somebody with a shell as root and no idea.
func (w *world) meddle() {
	things := make([]enforce.Thing, 0, len(w.things))
	for t := range w.things {
		things = append(things, t)
	}
	slices.SortFunc(things, func(a, b enforce.Thing) int { return strings.Compare(a.String(), b.String()) })
	switch {
	case len(things) > 0 && w.chance.IntN(2) == 0:
		t := things[w.chance.IntN(len(things))]
		w.things[t] += "# wider"
		w.tell("somebody edits %v", t.Kind)
	case len(things) > 0:
		t := things[w.chance.IntN(len(things))]
		delete(w.things, t)
		w.tell("somebody deletes %v", t.Kind)
	default:
		w.things[enforce.Thing{Kind: enforce.SudoRule, Name: "g-mine"}] = "ALL"
		w.tell("somebody adds a rule")
	}
	w.next = w.now // as fsnotify wakes the loop
}

// pass lets time go by: messages arrive, the kernel ends what is due, the loop
// makes its passes.
func (w *world) pass(d time.Duration) {
	for until := w.now + d; w.now < until; {
		step := min(until-w.now, 250*time.Millisecond)
		w.now += step
		w.age(step)
		w.endDue()
		w.play()
		if w.agent != nil && w.now >= w.next {
			w.round()
		}
	}
}

func (w *world) keepTime() time.Time { return keptOf{w, w.keep}.Trusted(clockOf{w}.Now()) }

// round is one pass of the loop.
func (w *world) round() {
	w.clean = false
	w.alive("a pass", func() {
		next, err := w.agent.Pass(context.Background(), true)
		w.clean, w.passed = err == nil, true
		w.next = w.now + resync
		if err != nil {
			w.next = w.now + time.Second
		}
		if !next.IsZero() {
			w.next = min(w.next, w.now+max(0, next.Sub(w.keepTime())))
		}
	})
	w.mayLookAfter()
	w.play()
}

// run plays one seed and returns what went wrong.
func run(t *testing.T, seed uint64, bug string) (w *world, err error) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "curfew-sim-") //nolint:usetesting // in memory: a disk would be the slowest part
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(*testing.T) {
		w = newWorld(seed, dir, bug)
		defer w.close()
		err = w.live()
	})
	return w, errors.Join(err, os.RemoveAll(dir))
}

// live is a run from its beginning to the end of all grants. It begins once the
// host was told the time: until then, a host goes by its wall clock.
func (w *world) live() error {
	w.begin()
	for range events {
		w.move()
		if err := w.check(); err != nil {
			return err
		}
	}
	return w.settle()
}

// begin has the agent start and connect, with no fault yet.
func (w *world) begin() {
	w.calm = true
	w.startAgain()
	w.pass(time.Second)
	w.calm = false
}

func TestMain(m *testing.M) {
	if err := enrol(); err != nil {
		panic(err)
	}
	m.Run()
}

func TestNoSeedFindsPrivilegeAfterTheEnd(t *testing.T) {
	first, n := uint64(1), uint64(*seeds)
	if *oneSeed > 0 {
		first, n = *oneSeed, 1
	}
	for seed := first; seed < first+n; seed++ {
		w, err := run(t, seed, "")
		if err != nil {
			t.Fatalf("seed %d: %v\nto see it again: go test ./test/sim -run NoSeed -seed %d\n%s", seed, err, seed, strings.Join(w.lines, "\n"))
		}
		if *oneSeed > 0 {
			t.Log(strings.Join(w.lines, "\n"))
		}
	}
}

func TestASeedIsARun(t *testing.T) {
	for seed := range uint64(20) {
		var traces []string
		for range 2 {
			w, err := run(t, seed+1, "")
			traces = append(traces, fmt.Sprintf("%x %v", w.trace.Sum(nil), err))
		}
		if traces[0] != traces[1] {
			t.Errorf("seed %d: %v", seed+1, traces)
		}
	}
}

func TestPlantedBugsAreFound(t *testing.T) {
	for _, bug := range []string{
		"a minute more", "the wall clock alone", "older sets count", "rules stay", "nobody is killed", "sessions without an end",
		"leftovers forgotten", "removals untold", "rules drain too", "put right too far", "begins by the wall clock",
		"every word is an answer", "what is refused is held", "any word renews a lease", "goes on from what it sent", "what is sent is dropped",
		"a lease is the loop's alone",
	} {
		t.Run(bug, func(t *testing.T) {
			for seed := uint64(1); seed <= 1000; seed++ {
				if _, err := run(t, seed, bug); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("no seed of 1,000 finds it")
		})
	}
}
