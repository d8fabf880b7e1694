package agent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"curfew.internal/agent/watch"
	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// A pass tries for so long to end what does not want to end, all of it
// together, and for a moment each: one that cannot be ended costs the others
// nothing. The next pass goes on where this one stopped.
const (
	patience = 5 * time.Second
	moment   = 200 * time.Millisecond
)

// A budget says until when, since boot, a pass goes on trying.
type budget struct {
	clock clock.Clock
	until time.Duration
}

func (a *Agent) budget() budget {
	return budget{a.Clock, a.Clock.Now().Boot + patience}
}

// turn is the time that is left for the next one.
func (b budget) turn(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, max(moment, b.until-b.clock.Now().Boot))
}

// endSessions ends every session whose grant is no longer held: it neither
// stands nor drains. All of them end at once. One that another live grant stands
// for goes on under that: the end of one grant never cuts another.
func (a *Agent) endSessions(ctx context.Context, b budget, live, held []grant.Grant) []error {
	var failed []error
	var ended, torn []Session
	for _, s := range a.sessionsNow() {
		g, stands := find(held, s.Grant)
		other, _ := s.another(live)
		switch {
		case s.Torn:
			torn = append(torn, s)
		case s.over(live, held):
			ended = append(ended, s)
		case stands:
			failed = append(failed, a.stretch(s, g, live)...)
		default:
			failed = append(failed, a.move(s, other, live)...)
		}
	}
	failed = append(failed, a.end(ctx, b, ended, "the grant ended")...)
	failed = append(failed, a.end(ctx, b, torn, "its record has a gap, and its role demands a whole one")...)
	failed = append(failed, a.endUnknown(ctx, b))
	return slices.DeleteFunc(failed, func(err error) bool { return err == nil })
}

// over reports whether a session has to end: its grant is not held any more, and
// there is no other that it goes on under.
func (s Session) over(live, held []grant.Grant) bool {
	_, stands := find(held, s.Grant)
	_, other := s.another(live)
	return !stands && !other
}

// another is a live grant that a session goes on under: a login under any of its
// person's, a sudo call under those that it was under before an extension.
func (s Session) another(live []grant.Grant) (best grant.Grant, found bool) {
	if s.Kind == LoginSession {
		return of(live, s.Person)
	}
	for _, id := range s.Past {
		if g, stands := find(live, id); stands && g.NotAfter.After(best.NotAfter) {
			best, found = g, true
		}
	}
	return best, found
}

// stretch moves a session to a grant that ends later: a login to any of its
// person's, a sudo call to one of the same role, as an extension is.
func (a *Agent) stretch(s Session, g grant.Grant, live []grant.Grant) []error {
	best := g
	for _, l := range live {
		if l.Person.Name == s.Person && l.NotAfter.After(best.NotAfter) && (s.Kind == LoginSession || reflect.DeepEqual(l.Role, g.Role)) {
			best = l
		}
	}
	if best.ID != g.ID {
		return a.move(s, best, live)
	}
	// A young one is yet to be labelled, and gets its end with that.
	if g.Lease > 0 && !a.Beside && !a.young(s) {
		return []error{a.Labels.Extend(s.ID, a.deadlineOf(s, g, live))}
	}
	return nil
}

// move has a session go on under a grant, as that one guards it and until that
// one ends: until the kernel has both, the session stays where it is, and the
// next pass tries again.
func (a *Agent) move(s Session, g grant.Grant, live []grant.Grant) []error {
	if err := a.Labels.Guard(s.ID, !g.Role.Unguarded); err != nil {
		return []error{err}
	}
	if err := a.Labels.Extend(s.ID, a.deadlineOf(s, g, live)); err != nil {
		return []error{err}
	}
	if s.Kind == SudoSession && !slices.Contains(s.Past, s.Grant) {
		s.Past = append(slices.Clone(s.Past), s.Grant)
	}
	s.Grant, s.Approvers = g.ID, approvers(g)
	return []error{a.put(s)}
}

// end ends sessions, and says why.
func (a *Agent) end(ctx context.Context, b budget, over []Session, why string) []error {
	if len(over) == 0 {
		return nil
	}
	ctx, cancel := b.turn(ctx)
	defer cancel()
	killed, left, err := a.Labels.Kill(ctx, numbers(over))
	if err != nil {
		return []error{err}
	}
	var failed []error
	var done []Session
	var entries []ledger.Entry
	now := a.Clock.Now().Wall
	for _, s := range over {
		if pids := left[s.ID]; len(pids) > 0 {
			failed = append(failed, fmt.Errorf("session %x: %d processes are still there: %v", s.ID, len(pids), pids))
			continue
		}
		a.count(s, killed[s.ID])
		done = append(done, s)
		entries = append(entries, s.entry(ledger.Logout, now, fmt.Sprintf("%s; %d processes were ended", why, killed[s.ID])))
	}
	a.append(entries...)
	return append(failed, a.drop(done...))
}

// endUnknown ends sessions that carry a label and that we know nothing of, as
// after the loss of what was kept: nobody could say when they are over. A
// session is known before its first process is labelled.
func (a *Agent) endUnknown(ctx context.Context, b budget) error {
	living, err := a.Labels.Living()
	if errors.Is(err, watch.ErrBusy) {
		return nil // a sweep beside an agent that hangs: the kernel's timer ends what is due
	}
	if err != nil {
		return fmt.Errorf("look for unknown sessions: %w", err)
	}
	var unknown []uint64
	a.mu.Lock()
	for id := range living {
		if _, known := a.sessions[id]; !known {
			unknown = append(unknown, id)
		}
	}
	a.mu.Unlock()
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	ctx, cancel := b.turn(ctx)
	defer cancel()
	if _, left, err := a.Labels.Kill(ctx, unknown); err != nil || len(left) > 0 {
		return errors.Join(fmt.Errorf("sessions that nobody knows are still there: %v", left), err)
	}
	a.Log.WarnContext(ctx, "sessions ended that nobody knows", "sessions", unknown)
	for _, id := range unknown {
		a.append(ledger.Entry{Kind: ledger.Logout, At: a.Clock.Now().Wall, Session: id, Text: "nobody knew the session any more; it was ended"})
	}
	return a.Labels.Forget(unknown)
}

func numbers(sessions []Session) []uint64 {
	ids := make([]uint64, 0, len(sessions))
	for _, s := range sessions {
		ids = append(ids, s.ID)
	}
	return ids
}

// settle ends what a grant's person still has running, and looks at what is
// left.
func (a *Agent) settle(ctx context.Context, b budget, held []grant.Grant, o Opened, now time.Time) (ledger.Receipt, error) {
	r := ledger.Receipt{
		Fleet: a.Fleet, Host: a.Name, Boot: a.Boot, Grant: o.Grant, Person: o.Person,
		Why: a.why(o, now), EndedAt: now, Killed: a.killedOf(o.Grant),
	}
	if now.After(o.NotAfter) {
		r.EndedAt = o.NotAfter
	}
	var failed []error
	for _, s := range a.sessionsNow() {
		if s.Grant == o.Grant {
			r.Left = append(r.Left, fmt.Sprintf("session %x", s.ID))
		}
	}
	r.Looked = []string{"labelled processes"}
	look := func(looked, left []string, err error) {
		failed = append(failed, err)
		if err != nil {
			left = append(left, "not all could be looked at: "+err.Error())
		}
		r.Looked, r.Left = append(r.Looked, looked...), append(r.Left, left...)
	}
	look(a.Host.RuleLeft(o.Grant))
	if _, other := of(held, o.Person); other {
		look(a.lower(ctx, b, o))
		r.Killed = a.killedOf(o.Grant)
	} else {
		var n int
		var err error
		n, r.Removed, err = a.clear(ctx, b, o)
		r.Killed += uint64(n) //nolint:gosec // not negative
		failed = append(failed, err)
		look(a.Host.Leftovers(ctx, o.Person, o.UID))
	}
	for _, list := range [][]string{r.Left, r.Removed} {
		for i := range list {
			list[i] = printable(list[i])
		}
	}
	r.DoneAt = a.Clock.Now().Wall
	return r, errors.Join(failed...)
}

// looksForRaised is how often a login is looked through at most.
const looksForRaised = 5

// lower ends what, in logins that go on under another grant, can do more than
// their account: a shell of a setuid file, say, that the grant which has ended
// was good for. The process that holds a login, as sshd's does, is root's and
// no work of hers.
func (a *Agent) lower(ctx context.Context, b budget, o Opened) (looked, left []string, err error) {
	ctx, cancel := b.turn(ctx)
	defer cancel()
	for _, s := range a.sessionsNow() {
		if s.Person != o.Person || s.Kind != LoginSession {
			continue
		}
		for look := 1; ; look++ {
			living, err := a.Labels.Living()
			if err != nil {
				return nil, nil, fmt.Errorf("look through a login: %w", err)
			}
			n, err := a.Host.EndRaised(ctx, slices.DeleteFunc(living[s.ID], func(pid int) bool { return pid == s.PID }), o.UID)
			a.count(Session{Grant: o.Grant}, n)
			if err != nil {
				return nil, nil, err
			}
			if n == 0 {
				break
			}
			if look == looksForRaised {
				left = append(left, fmt.Sprintf("privileged processes in session %x, which come again and again", s.ID))
				break
			}
		}
	}
	return []string{"privileged processes of logins that go on"}, left, nil
}

// clear ends every process of an account that holds no grant any more, and
// removes what is its own.
func (a *Agent) clear(ctx context.Context, b budget, o Opened) (killed int, removed []string, err error) {
	ctx, cancel := b.turn(ctx)
	defer cancel()
	killed, err = a.Host.KillUID(ctx, o.UID)
	err = errors.Join(err, a.Host.EndSessions(ctx, o.UID))
	removed, failed := a.Host.Clear(ctx, o.Person, o.UID)
	return killed, removed, errors.Join(err, failed)
}

// byTime is why most grants end.
const byTime = "time"

// why says what ended the grant, as far as the host knows.
func (a *Agent) why(o Opened, now time.Time) string {
	if !now.Before(o.NotAfter) {
		return byTime
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	g, known := find(a.grants, o.Grant)
	switch {
	case known && (g.Lease > 0 && !a.lost || a.suspended(g, now)): // the control plane may be heard again since the pass began
		return "lease"
	case known || a.lost:
		// It was not among those that this pass began with: they could not be
		// read, and have come anew meanwhile at most.
		return "lost"
	}
	return "revoked"
}

// receipt records the host's signed word.
func (a *Agent) receipt(ctx context.Context, o Opened, r ledger.Receipt) {
	a.Log.InfoContext(ctx, "grant ended", "grant", o.Grant, "person", o.Person, "why", r.Why, "killed", r.Killed, "left", r.Left)
	a.append(ledger.Entry{
		Kind: ledger.Removed, At: r.DoneAt, Grant: o.Grant, Person: o.Person, Approvers: o.Approvers,
		Took: max(0, r.DoneAt.Sub(r.EndedAt)), Receipt: r.Seal(a.ReceiptKey),
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over[o.Person] = grant.Grant{ID: o.Grant, NotAfter: r.EndedAt}
	delete(a.killed, o.Grant)
	delete(a.said, o.Grant)
}

func find(grants []grant.Grant, id string) (grant.Grant, bool) {
	i := slices.IndexFunc(grants, func(g grant.Grant) bool { return g.ID == id })
	if i < 0 {
		return grant.Grant{}, false
	}
	return grants[i], true
}
