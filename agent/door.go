package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"curfew.internal/agent/doctor"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// A Knock is what the PAM module asks.
type Knock struct {
	Open    bool // a session is about to begin; else: may the account act at all
	Close   bool // a session is over
	Service string
	User    string // the account; for su, the one that is entered
	RUser   string // who calls sudo or su
	TTY     string
	From    string
	PID     int         // the caller, as the kernel says
	FD      int         // a pidfd of it, or -1 where the kernel gives none
	Gone    func() bool // whether the caller has ended, so that its pid may be another's
}

// An Answer is the door's. The zero Answer is no.
type Answer struct {
	Allow    bool
	Stranger bool // no account of ours is concerned: PAM goes on as if we were not there
	Message  string
}

// Knock decides. It does not trust the loop: it asks LiveAt itself at each
// knock. Every account of ours that the knock concerns needs a live grant.
func (a *Agent) Knock(ctx context.Context, k Knock) Answer {
	if k.Close {
		return a.closed(ctx, k)
	}
	now := a.now()
	live := a.live(now)
	var mine []grant.Grant
	for _, name := range subjects(k) {
		ours, err := a.ours(ctx, name)
		if err != nil {
			a.Log.ErrorContext(ctx, "door cannot tell whose account it is", "err", err)
			return Answer{Message: "curfew: this host cannot check its accounts now: ask an administrator to run `curfew-agent status`"}
		}
		if !ours {
			continue
		}
		g, ok := of(live, name)
		if !ok {
			return a.refuse(ctx, k, name)
		}
		mine = append(mine, g)
	}
	if len(mine) == 0 {
		return a.stranger(k)
	}
	if !k.Open {
		return Answer{Allow: true}
	}
	return a.openSession(ctx, k, mine[0], live)
}

// stranger answers for accounts that are not ours. The doctor, who asks as one
// of them, is told that it came through.
func (a *Agent) stranger(k Knock) Answer {
	a.elevates(k)
	answer := Answer{Stranger: true}
	if k.TTY == doctor.TTY && !k.Open {
		answer.Message = doctor.Answer
	}
	return answer
}

// subjects are the accounts that a knock concerns, the one that acts first.
func subjects(k Knock) []string {
	var names []string
	for _, n := range []string{k.RUser, k.User} {
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// ours reports whether the account is one that we gave, now or before: an
// account that is just being removed is not a stranger's.
func (a *Agent) ours(ctx context.Context, name string) (bool, error) {
	managed, err := a.Host.Managed(ctx, name)
	if managed || err != nil {
		return managed, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(slices.Collect(maps.Values(a.sessions)), func(s Session) bool { return s.Person == name }), nil
}

func (a *Agent) refuse(ctx context.Context, k Knock, person string) Answer {
	a.mu.Lock()
	last, known := a.over[person]
	for _, g := range a.grants {
		if g.Person.Name == person && (!known || g.NotAfter.After(last.NotAfter)) {
			last, known = g, true
		}
	}
	a.mu.Unlock()
	text := "no grant stands for you on this host"
	switch now := a.now(); {
	case known && now.Before(last.NotBefore):
		text = "your grant begins " + last.NotBefore.Format("15:04 MST")
	case known && !now.Before(last.NotAfter):
		text = "your grant ended " + last.NotAfter.Format("15:04 MST")
	case known:
		text = "your grant is suspended: this host has not heard from the control plane for too long"
	}
	role := "ROLE"
	if last.Role.Name != "" {
		role = last.Role.Name
	}
	a.Log.InfoContext(ctx, "door refused", "person", person, "service", k.Service, "why", text)
	a.append(ledger.Entry{
		Kind: ledger.Refused, At: a.Clock.Now().Wall, Grant: last.ID, Person: person, Service: k.Service, Text: text,
		Process: &ledger.Process{PID: uint32(max(0, k.PID)), TTY: valid(k.TTY)}, //nolint:gosec // a pid fits
	})
	return Answer{Message: fmt.Sprintf("curfew: %s; ask with `curfew request %s --on %s --for 1h`", text, role, a.Name)}
}

const notRecorded = "curfew: the session could not be put under record, so it is not opened: ask an administrator to run `curfew-agent status`"

// openSession labels the caller before its user's first command can run.
func (a *Agent) openSession(ctx context.Context, k Knock, g grant.Grant, live []grant.Grant) Answer {
	no := Answer{Message: notRecorded}
	s := newSession(g)
	s.Kind, s.Service, s.TTY, s.From, s.PID, s.Opened = LoginSession, k.Service, valid(k.TTY), valid(k.From), k.PID, a.Clock.Now().Wall
	if k.RUser == g.Person.Name && k.User != k.RUser {
		s.Kind = SudoSession
		g = a.under(k, g.Person.Name, live)
		s.Grant, s.Approvers = g.ID, approvers(g)
	}
	if answer, done := a.beforehand(ctx, k, s, g.Role); done {
		return answer
	}
	a.remember(ctx, s.Person) // it takes a moment, the first time
	now := a.Clock.Now()
	s.Opened, s.Begun = now.Wall, now.Boot
	if err := a.put(s); err != nil {
		a.Log.ErrorContext(ctx, "session not opened", "err", err)
		return no
	}
	if ctx.Err() != nil || k.Gone != nil && k.Gone() {
		_ = a.drop(s) // nobody waits for the answer: nothing is opened
		return no
	}
	err := a.Labels.Label(k.PID, k.FD, s.ID, a.deadlineOf(s, g, live))
	if err == nil && g.Role.Unguarded {
		err = a.Labels.Guard(s.ID, false)
	}
	if err != nil {
		a.Log.ErrorContext(ctx, "session not labelled", "err", err, "pid", k.PID)
		_ = a.drop(s) // nothing runs under it
		return no
	}
	if _, stands := find(a.live(a.now()), g.ID); !stands {
		a.Wake() // it ended meanwhile, and its last pass may not have seen this session
		return a.refuse(ctx, k, s.Person)
	}
	text := s.Kind
	if s.From != "" {
		text += " from " + s.From
	}
	a.append(s.entry(ledger.Login, s.Opened, text))
	return Answer{Allow: true}
}

// beforehand answers for sessions that are not to be opened, for want of a
// record that the role demands, or that are one with the session that they are
// called for in.
func (a *Agent) beforehand(ctx context.Context, k Knock, s Session, r grant.Role) (answer Answer, done bool) {
	if r.Audit != grant.AuditAsCan && a.Recording != nil {
		if err := a.Recording(); err != nil {
			return a.unrecorded(ctx, s, err), true
		}
	}
	if r.Strict && s.Kind == SudoSession && (a.Taped == nil || !a.Taped(s.Person, s.TTY)) {
		return a.untaped(ctx, s, r.Name), true
	}
	in, err := a.inside(k)
	switch {
	case err != nil:
		a.Log.ErrorContext(ctx, "session not opened", "err", err)
		return Answer{Message: notRecorded}, true
	case in.ID != 0 && in.Person != s.Person:
		return a.trespass(ctx, k, in, s.Person), true
	case in.ID != 0 && (in.Kind == SudoSession || s.Kind == LoginSession):
		return Answer{Allow: true}, true // it stays what it is, and ends with that
	}
	return Answer{}, false
}

// closed notes the end of a session. Its processes may live on, and keep
// their label: the session is forgotten at the end of its grant.
func (a *Agent) closed(_ context.Context, k Knock) Answer {
	id, ok, err := a.Labels.LabelOf(k.PID)
	if err != nil || !ok {
		return Answer{Stranger: true}
	}
	if s, known := a.session(id); known && s.PID == k.PID {
		a.append(s.entry(ledger.Logout, a.Clock.Now().Wall, "closed"))
	}
	return Answer{Allow: true}
}
