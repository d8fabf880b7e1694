package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"curfew.internal/agent"
	"curfew.internal/agent/enforce"
	"curfew.internal/ledger"
)

// slack is how late an end may be: a step of the simulation, and the time
// that the machine was off while its wall clock was behind, of which nobody on
// the machine can know until it is told the time.
func (w *world) slack() time.Duration { return time.Second + w.off }

// tolerance is how far a clock may be off without a word (agent/time.go).
const tolerance = 5 * time.Second

// stands reports whether a grant may still have effect on the host: by true
// time, unless the host took a set without it, and by its lease, which may be
// so much late.
func (w *world) stands(g *issued, late time.Duration) bool {
	return w.true().Before(g.NotAfter.Add(w.slack())) && w.holds(g, late)
}

// lasts reports whether what runs under a grant may still run on the host: it
// stands, or it drains.
func (w *world) lasts(g *issued) bool {
	return w.true().Before(g.Drained().Add(w.slack())) && w.holds(g, tolerance)
}

func (w *world) holds(g *issued, late time.Duration) bool {
	return !w.true().Before(g.NotBefore) && (g.revoked == 0 || g.revoked > w.reached) && w.leased(g, late)
}

func (w *world) mayAct(person string, late time.Duration) bool {
	return slices.ContainsFunc(w.server.grants, func(g *issued) bool { return g.Person.Name == person && w.stands(g, late) })
}

func (w *world) mayRun(person string) bool {
	return slices.ContainsFunc(w.server.grants, func(g *issued) bool { return g.Person.Name == person && w.lasts(g) })
}

func (w *world) grant(id string) *issued {
	for _, g := range w.server.grants {
		if g.ID == id {
			return g
		}
	}
	return nil
}

// check holds the world to what is promised at each instant.
func (w *world) check() error {
	w.endDue()
	if w.agent != nil && w.now >= w.next {
		w.round()
	}
	if w.wrong != nil {
		return w.wrong
	}
	if w.agent != nil && w.keep.Earliest(clockOf{w}.Now()).After(w.true()) {
		return errors.New("it is later than the control plane said that it is at least")
	}
	for _, person := range people {
		if err := w.checkDoor(person); err != nil {
			return err
		}
	}
	for _, p := range w.procs {
		if err := w.checkProcess(p); err != nil {
			return err
		}
	}
	return w.checkThings()
}

func (w *world) checkDoor(person string) error {
	var err error
	w.alive("a question", func() {
		fuse := w.fuse
		w.fuse = 0
		a := w.agent.Knock(context.Background(), agent.Knock{Service: "sshd", User: person, FD: -1})
		w.fuse = fuse
		if a.Allow && !w.mayAct(person, tolerance) {
			err = fmt.Errorf("the door lets %s in, who holds no grant", person)
		}
	})
	return err
}

// checkProcess: what carries a label is ended in time with no agent there;
// what has only the account's uid, by an agent that made its pass.
func (w *world) checkProcess(p process) error {
	passed := w.agent != nil && w.clean && w.next > w.now
	if p.session == 0 {
		if p.uid != 0 && passed && !w.mayRunUID(p.uid) {
			return fmt.Errorf("a process of uid %d outlived its grants", p.uid)
		}
		return nil
	}
	s, known := w.sessions[p.session]
	if !known {
		return nil // dying
	}
	for _, g := range w.server.grants {
		if g.Person.Name != s.Person {
			continue
		}
		late := w.true().Sub(g.Drained()) > w.slack() || !w.leased(g, tolerance)
		if over := passed && !w.holds(g, tolerance); !late && !over {
			return nil
		}
	}
	return fmt.Errorf("a process of a session of %s outlived its grants", s.Person)
}

func (w *world) mayRunUID(uid uint32) bool {
	return slices.ContainsFunc(people, func(p string) bool { return uidOf(p) == uid && w.mayRun(p) })
}

// checkThings: after a pass that left nothing undone, nothing is on the host
// that no grant calls for, and nothing was widened.
func (w *world) checkThings() error {
	if w.agent == nil || !w.clean || w.next <= w.now {
		return nil
	}
	for t, content := range w.things {
		switch t.Kind {
		case enforce.SudoRule:
			g := w.grant(t.Name)
			if g == nil || !w.stands(g, tolerance) {
				return fmt.Errorf("rule %s is there, and no grant", t.Name)
			}
			if content != enforce.Sudoers(g.Grant) {
				return fmt.Errorf("rule %s says %q", t.Name, content)
			}
		case enforce.EndTimer:
			if g := w.grant(t.Name); g == nil || !w.lasts(g) || content != g.Drained().Format(time.DateTime) {
				return fmt.Errorf("end timer %s is there for %s, and no grant", t.Name, content)
			}
		case enforce.Network, enforce.Group, enforce.Account, enforce.Marker, enforce.Home:
			if !w.mayRun(t.Name) {
				return fmt.Errorf("%v is there, and no grant", t)
			}
		case enforce.Principals:
			if !w.mayAct(t.Name, tolerance) {
				return fmt.Errorf("%v is there, and no grant", t)
			}
		}
	}
	return nil
}

// settle stops all faults, lets every grant end, and looks at what is left
// and at what is on record.
func (w *world) settle() error {
	w.tell("faults stop")
	w.fuse, w.cut, w.skew, w.calm, w.server.full = 0, false, 0, true, false
	w.startAgain()
	w.goOn()
	w.pass(3 * time.Minute)
	if err := w.check(); err != nil {
		return err
	}
	if w.reached != w.server.revision {
		return fmt.Errorf("the host is at revision %d, the server at %d", w.reached, w.server.revision)
	}
	if err := w.checkGiven(); err != nil {
		return err
	}
	w.pass(w.lastEnd().Sub(w.true()) + time.Minute)
	w.lookAfter()
	w.pass(time.Minute)
	if err := w.check(); err != nil {
		return err
	}
	if len(w.things) > 0 || w.procsOfOurs() > 0 {
		return fmt.Errorf("all grants are over, and there are %v and %d processes", w.things, w.procsOfOurs())
	}
	if err := w.checkTold(); err != nil {
		return err
	}
	return w.checkRecord()
}

// lastEnd is when the last of all grants is over.
func (w *world) lastEnd() time.Time {
	var last time.Time
	for _, g := range w.server.grants {
		if g.Drained().After(last) {
			last = g.Drained()
		}
	}
	return last
}

// checkGiven: with no fault left, a new grant opens the door, also on a host
// whose wall clock was ahead.
func (w *world) checkGiven() error {
	w.server.issue("ana", w.true(), w.true().Add(10*time.Minute), 0, 0)
	w.send()
	w.pass(time.Second)
	a := w.agent.Knock(context.Background(), agent.Knock{Service: "sshd", User: "ana", FD: -1})
	if !a.Allow {
		return fmt.Errorf("ana holds a grant, and the door says %q", a.Message)
	}
	return nil
}

func (w *world) procsOfOurs() int {
	n := 0
	for _, p := range w.procs {
		if p.session != 0 || p.uid != 0 {
			n++
		}
	}
	return n
}

// checkRecord: who was let in was seen out, by a receipt that says that nothing
// is left.
func (w *world) checkRecord() error {
	installed, receipts := map[string]bool{}, map[string]bool{}
	looks := tally{map[string]bool{}, map[string]ledger.Entry{}}
	for _, e := range w.said {
		switch e.Kind { //nolint:exhaustive // the others prove nothing here
		case ledger.Installed:
			installed[e.Grant] = true
		case ledger.Removed:
			r, err := ledger.OpenReceipt(e.Receipt, public(receiptKey))
			if err != nil {
				return err
			}
			receipts[e.Grant] = receipts[e.Grant] || r.Clean()
		case ledger.Leftovers:
			if err := looks.count(e); err != nil {
				return err
			}
		}
	}
	for id := range installed {
		if !receipts[id] {
			return fmt.Errorf("%s was installed, and no clean receipt says that it is gone", id)
		}
		if _, ok := looks.last[id]; !ok {
			return fmt.Errorf("%s was installed, and nobody looked after it", id)
		}
	}
	return w.checkLitter(looks)
}
