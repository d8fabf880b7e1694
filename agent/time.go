package agent

import (
	"context"
	"fmt"
	"time"

	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// tolerance is how far clocks may be apart without a word, and how old an
// answer of the control plane's clock may be at most that puts ours right.
const tolerance = 5 * time.Second

// Told takes what the control plane's clock said, so long ago at most. Trusted
// time is never behind that: a host whose wall clock lost time, as one that was
// off, ends on time again, also when it hears no more. It is also
// the only thing that sets the highest time ever trusted back, if a wall clock
// that was set forward had raised it: never behind the wall clock, and never
// while the end of a grant is unfinished. What had ended by the higher time
// stays ended.
func (a *Agent) Told(ctx context.Context, at time.Time, age time.Duration) {
	r := a.Clock.Now()
	before, from := a.now(), a.Keep.Earliest(r)
	raised, err := a.Keep.Told(r, at)
	if err != nil {
		a.Log.WarnContext(ctx, "the time that was told is not written down: a restart forgets it until it is told again", "err", err)
	}
	a.mu.Lock()
	first := !a.hung
	a.mu.Unlock()
	if raised > 0 || first {
		a.hang(ctx)
	}
	if raised > time.Second {
		a.Wake() // the loop waits by the time of before: by less, it is late by less
	}
	if age <= tolerance && !a.unended(before) {
		a.correct(ctx, before, at.Add(age))
	}
	a.tellClock(ctx, a.now(), at, age)
	to := a.Keep.Earliest(a.Clock.Now())
	for _, g := range a.known() {
		if g.NotBefore.After(from) && !g.NotBefore.After(to) {
			a.Wake() // it waited for this
		}
	}
}

// unended reports whether the end of a grant that is over at now is not done.
func (a *Agent) unended(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.opened {
		if o.Ended.IsZero() && !now.Before(o.NotAfter) {
			return true
		}
	}
	return false
}

// correct sets trusted time to now, if it is ahead of that.
func (a *Agent) correct(ctx context.Context, before, now time.Time) {
	by, err := a.Keep.Correct(a.Clock.Now(), now, tolerance)
	if err != nil {
		a.Log.WarnContext(ctx, "the time that was put right is not written down: a restart makes it wrong again", "err", err)
	}
	if by == 0 {
		return
	}
	if heard := a.Heard(); heard.After(a.now()) {
		a.early.Store(heard.UnixNano())
	}
	text := fmt.Sprintf("trusted time, which a wall clock had set forward, was %v ahead of the control plane's and is put right: what ended meanwhile stays ended", by.Round(time.Second))
	a.Log.WarnContext(ctx, "trusted time put right", "from", before, "ahead", by)
	a.append(ledger.Entry{Kind: ledger.Agent, At: a.Clock.Now().Wall, Text: text})
	a.hang(ctx)
	a.Wake()
}

// hang sets the kernel's ends of sessions by the time that is trusted now. Those
// of sessions whose grant is over by it are the next pass's. What fails is tried
// again when the time is told next, and so is what an agent before this one may
// have left undone.
func (a *Agent) hang(ctx context.Context) {
	now, known := a.now(), a.known()
	a.mu.Lock()
	opened := a.opened // never changed, only replaced
	a.mu.Unlock()
	all, live := true, a.standing(known, now)
	for _, s := range a.sessionsNow() {
		g, ok := find(known, s.Grant)
		o := opened[s.Grant]
		if !ok || !o.Ended.IsZero() || o.Over && g.LiveAt(now) || !now.Before(g.Drained()) {
			continue
		}
		if err := a.Labels.Extend(s.ID, a.deadlineOf(s, g, live)); err != nil {
			all = false
			a.Log.WarnContext(ctx, "a session's end in the kernel is that of before", "session", s.ID, "err", err)
		}
	}
	a.mu.Lock()
	a.hung = all
	a.mu.Unlock()
}

// tellClock records that the time by which this host judges grants is not the
// control plane's, and that it is again. Words that may be old say that a clock
// is behind, and nothing of one that is ahead.
func (a *Agent) tellClock(ctx context.Context, now, at time.Time, age time.Duration) {
	text, ahead := "", now.Sub(at)-age
	isAhead := age <= tolerance && ahead > time.Minute
	if behind := at.Sub(a.Clock.Now().Wall); behind > time.Minute {
		text = fmt.Sprintf("this host's clock is %v behind the control plane's: set it right", behind.Round(time.Minute))
	} else if isAhead {
		text = fmt.Sprintf("this host's clock is %v ahead of the control plane's: its grants end as much too early until it is set right", ahead.Round(time.Minute))
	}
	a.mu.Lock()
	news := a.clockText != text && (text != "" || age <= tolerance || !a.clockAhead)
	if news {
		a.clockText, a.clockAhead = text, isAhead
	}
	a.mu.Unlock()
	if !news {
		return
	}
	if text == "" {
		text = "this host's clock agrees with the control plane's again"
	}
	a.Log.WarnContext(ctx, "clock compared", "what", text)
	a.append(ledger.Entry{Kind: ledger.Agent, At: a.Clock.Now().Wall, Text: text})
}

// ClockText says what is wrong with this host's clock; empty, if nothing is
// known to be.
func (a *Agent) ClockText() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.clockText
}

// begun leaves out grants that only a clock that is ahead says have begun, and
// says when the first of them does.
func (a *Agent) begun(known []grant.Grant, now, next time.Time) ([]grant.Grant, time.Time) {
	least := a.Keep.Earliest(a.Clock.Now())
	a.mu.Lock()
	opened := a.opened // never changed, only replaced
	a.mu.Unlock()
	var begun []grant.Grant
	for _, g := range known {
		if _, is := opened[g.ID]; is || !g.NotBefore.After(least) || g.NotBefore.After(now) {
			begun = append(begun, g) // or enforce knows when it does
			continue
		}
		if at := now.Add(g.NotBefore.Sub(least)); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return begun, next
}

// strand records, once, why a grant that was sent here has come to nothing: by
// this host's time it was over when it came.
func (a *Agent) strand(ctx context.Context, known []grant.Grant, now time.Time) {
	for _, g := range known {
		a.mu.Lock()
		_, opened := a.opened[g.ID]
		a.mu.Unlock()
		if opened || now.Before(g.Drained()) || !g.On(a.Name) {
			continue
		}
		text := "not installed: for this host it is " + now.Format("2006-01-02 15:04:05 MST") + ", and the grant is over"
		if c := a.ClockText(); c != "" {
			text += "; " + c
		}
		if !a.news(g.ID, text[:len("not installed")]) {
			continue
		}
		a.Log.WarnContext(ctx, "grant came when it was over", "grant", g.ID, "end", g.NotAfter, "now", now)
		a.append(ledger.Entry{Kind: ledger.SetRefused, At: a.Clock.Now().Wall, Grant: g.ID, Person: g.Person.Name, Approvers: approvers(g), Text: text})
	}
}

// Unsure reports whether trusted time is ahead of the wall clock, as after a
// clock that was set forward and back, or was not compared for long.
func (a *Agent) Unsure() bool {
	r := a.Clock.Now()
	ahead := a.Keep.Trusted(r).Sub(r.Wall) > tolerance
	return ahead || r.Wall.Sub(a.Keep.Earliest(r)) > time.Minute
}
