package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"curfew.internal/agent/enforce"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// loop makes a pass at once, and again after each wake-up, until ctx is done.
func (a *Agent) loop(ctx context.Context) error {
	first := true
	for {
		a.busy.Store(int64(a.Clock.Now().Boot))
		next, err := a.Pass(ctx, true)
		a.busy.Store(0)
		if first {
			close(a.ready)
			first = false
		}
		pause := a.until(next)
		if err != nil && ctx.Err() == nil {
			pause = min(pause, a.Retry)
			if a.news("", err.Error()) {
				a.Log.ErrorContext(ctx, "pass left work undone", "err", err)
			}
		} else {
			a.news("", "")
		}
		if a.Passed != nil {
			a.Passed()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.wake:
		case <-a.Clock.After(pause):
		}
	}
}

// news reports whether the text is other than the last one about the thing:
// what goes on failing in the same way is said once.
func (a *Agent) news(about, text string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.said[about] == text {
		return false
	}
	a.said[about] = text
	return text != ""
}

// until is the time to the next change by time, or the resync if that comes
// first.
func (a *Agent) until(next time.Time) time.Duration {
	if next.IsZero() {
		return a.Resync
	}
	return min(a.Resync, max(0, next.Sub(a.now())))
}

// Pass brings the host to what its grants say now, or, without give, takes
// away what they no longer say. It takes away before it gives, and goes on
// after a failed step: one account that cannot be removed must not keep a
// sudo rule alive.
func (a *Agent) Pass(ctx context.Context, give bool) (time.Time, error) {
	now, known := a.now(), a.known() // once: what is accepted meanwhile is for the next pass
	live := a.standing(known, now)
	held := append(a.draining(known, now), live...)
	begun, next := a.begun(known, now, time.Time{})
	_, change := enforce.Want(begun, a.Name, now)
	next = sooner(sooner(next, change), a.leased(held, now))
	a.strand(ctx, known, now)
	want, _ := enforce.Want(held, a.Name, now) // without those that their lease suspends
	b := a.budget()
	failed := a.endSessions(ctx, b, live, held)
	seen, err := a.Host.Observe(ctx)
	removals, gifts := split(enforce.Plan(want, seen))
	removed, errs := a.withdraw(ctx, b, removals, held)
	a.foreign(removed)
	failed = append(failed, errs...)
	failed = append(failed, a.close(ctx, b, held, removed, now)...)
	if err != nil {
		// What was seen is taken away all the same, and what somebody changed
		// is put right; nothing is given that could be there already.
		_, _, errs = a.apply(ctx, slices.DeleteFunc(gifts, func(s enforce.Step) bool { _, ok := seen[s.Thing]; return !give || !ok }), live)
		return next, errors.Join(append(append(failed, errs...), fmt.Errorf("observe host: %w", err))...)
	}
	if !give {
		return next, errors.Join(failed...)
	}
	if err := a.open(live); err != nil {
		// Nothing is given that could not be written down as given.
		return next, errors.Join(append(failed, err)...)
	}
	given, barred, errs := a.apply(ctx, gifts, live)
	failed = append(failed, errs...)
	failed = append(failed, a.installed(ctx, live, given, barred)...)
	a.reap(ctx)
	a.mu.Lock()
	a.settled = len(failed) == 0
	a.mu.Unlock()
	return next, errors.Join(failed...)
}

// sooner is the earlier of two times; zero stands for never.
func sooner(x, y time.Time) time.Time {
	if x.IsZero() || !y.IsZero() && y.Before(x) {
		return y
	}
	return x
}

// leased is when to look next at the leases of grants that stand at now: well
// before the first of them is over, so that the kernel hears in time of one that
// goes on, and when it is over.
func (a *Agent) leased(standing []grant.Grant, now time.Time) (next time.Time) {
	for _, g := range standing {
		if g.Lease > 0 {
			left := a.Heard().Add(g.Lease).Sub(now)
			next = sooner(next, now.Add(max(left/2, min(left, time.Second))))
		}
	}
	return next
}

// known is every grant that is kept.
func (a *Agent) known() []grant.Grant {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.grants)
}

func split(steps []enforce.Step) (removals, gifts []enforce.Step) {
	for _, s := range steps {
		if s.Op == enforce.Remove {
			removals = append(removals, s)
		} else {
			gifts = append(gifts, s)
		}
	}
	return removals, gifts
}

// apply carries out steps and returns those done. After a gift that failed,
// its person is given nothing more: what limits an account comes before what
// opens it.
func (a *Agent) apply(ctx context.Context, steps []enforce.Step, live []grant.Grant) (done []enforce.Thing, barred map[string]error, failed []error) {
	barred = map[string]error{}
	for _, s := range steps {
		who := s.Thing.Name
		if g, ok := find(live, who); ok {
			who = g.Person.Name
		}
		// What limits her is put all the same: she may have broken the other.
		if s.Op == enforce.Put && barred[who] != nil && s.Thing.Kind != enforce.Network {
			continue
		}
		if err := a.Host.Apply(ctx, s); err != nil {
			barred[who] = err
			failed = append(failed, fmt.Errorf("%v: %w", s, err))
			continue
		}
		done = append(done, s.Thing)
	}
	return done, barred, failed
}

// open writes down the grants whose things are about to be put on the host.
func (a *Agent) open(live []grant.Grant) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := maps.Clone(a.opened)
	fresh := false
	for _, g := range live {
		// One that ended, as by its lease, and stands again: what is left is
		// looked for at its next end.
		if o, ok := next[g.ID]; !ok || !o.Ended.IsZero() {
			next[g.ID], fresh = openedOf(g, a.Clock.Now().Wall), true
		}
	}
	if !fresh {
		return nil
	}
	if err := a.Keep.SaveOpened(next); err != nil {
		return fmt.Errorf("write down what is to be installed: %w", err)
	}
	a.opened = next
	return nil
}

// installed records the grants that are on the host whole for the first time,
// and what somebody had changed of the others.
func (a *Agent) installed(ctx context.Context, live []grant.Grant, given []enforce.Thing, barred map[string]error) []error {
	a.mu.Lock()
	next := maps.Clone(a.opened)
	a.mu.Unlock()
	var fresh []grant.Grant
	for _, g := range live {
		o := next[g.ID]
		mine := func(t enforce.Thing) bool { return t.Name == g.ID || t.Name == g.Person.Name }
		if i := slices.IndexFunc(given, mine); i >= 0 && o.Installed && given[i].Kind != enforce.Principals {
			w, ok := a.writer(given[i])
			e := a.drifted(given[i].String()+" was changed or removed", "it was put right", w, ok)
			e.Grant, e.Person, e.Approvers = g.ID, g.Person.Name, approvers(g)
			a.append(e)
		}
		if err := barred[g.Person.Name]; err != nil && !o.Installed && a.news(g.ID, err.Error()) {
			a.append(ledger.Entry{
				Kind: ledger.SetRefused, At: a.Clock.Now().Wall, Grant: g.ID, Person: g.Person.Name, Approvers: approvers(g),
				Text: "not installed: " + err.Error(),
			})
		}
		if !o.Installed && barred[g.Person.Name] == nil {
			o.Installed = true
			next[g.ID] = o
			fresh = append(fresh, g)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := a.Keep.SaveOpened(next); err != nil {
		return []error{err}
	}
	a.mu.Lock()
	a.opened = next
	a.mu.Unlock()
	for _, g := range fresh {
		a.Log.InfoContext(ctx, "grant installed", "grant", g.ID, "person", g.Person.Name, "until", g.NotAfter)
		a.append(ledger.Entry{
			Kind: ledger.Installed, At: a.Clock.Now().Wall, Grant: g.ID, Person: g.Person.Name, Approvers: approvers(g),
			Text: "account, login and sudo rule are in place until " + g.NotAfter.Format("15:04:05 MST"),
		})
	}
	return nil
}

// close finishes the grants that were opened and no longer stand: what their
// people still have running is ended, and the host's signed word on it goes
// to the record. A receipt that is not clean leaves the grant open, so that
// the next pass tries again. Leftovers are looked for later, beside the loop.
func (a *Agent) close(ctx context.Context, b budget, held []grant.Grant, removed []enforce.Thing, now time.Time) []error {
	a.mu.Lock()
	opened, saved := maps.Clone(a.opened), !a.unsaved
	a.mu.Unlock()
	var failed []error
	next := maps.Clone(opened)
	a.slack(next)
	done := a.discharge(next)
	for _, id := range slices.Sorted(maps.Keys(next)) {
		o := next[id]
		if _, stands := find(held, id); stands || !o.Ended.IsZero() {
			continue
		}
		r, err := a.settle(ctx, b, held, o, now)
		if err != nil {
			failed = append(failed, fmt.Errorf("end of %s: %w", id, err))
		}
		if a.Beside {
			continue
		}
		r.Removed = append(about(removed, o), r.Removed...)
		if len(r.Left) > 0 && slices.Equal(r.Left, o.Left) {
			continue // said already
		}
		a.receipt(ctx, o, r)
		if o.Left = r.Left; len(r.Left) > 0 {
			next[id] = o
			failed = append(failed, fmt.Errorf("end of %s: left: %s", id, strings.Join(r.Left, "; ")))
			continue
		}
		o.Ended, o.Over = r.DoneAt, r.Why == byTime
		next[id] = o
	}
	if a.Beside || saved && maps.EqualFunc(next, opened, func(x, y Opened) bool {
		return slices.Equal(x.Left, y.Left) && x.Ended.Equal(y.Ended) && x.Told == y.Told && x.Loose == y.Loose
	}) {
		a.discharged(ctx, done)
		return failed
	}
	// Removal never waits for this write. Where it fails until the agent ends,
	// the receipt is made twice, and both are true.
	err := a.Keep.SaveOpened(next)
	a.mu.Lock()
	a.opened, a.unsaved = next, err != nil
	a.mu.Unlock()
	if err != nil {
		failed = append(failed, err)
	} else {
		a.discharged(ctx, done)
	}
	select {
	case a.ends <- struct{}{}:
	default: // told already
	}
	return failed
}

// about picks the removed things that belong to the grant or its person.
func about(removed []enforce.Thing, o Opened) []string {
	var mine []string
	for _, t := range removed {
		if t.Name == o.Grant || t.Name == o.Person {
			mine = append(mine, t.String())
		}
	}
	return mine
}

func approvers(g grant.Grant) []string {
	var names []string
	for _, e := range g.Approvals {
		names = append(names, e.Person)
	}
	return names
}
