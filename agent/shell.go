package agent

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"curfew.internal/agent/door"
	"curfew.internal/agent/uplink"
	"curfew.internal/grant"
	"curfew.internal/wire/shell"
)

// A Plane takes what people on this host ask for.
type Plane interface {
	Offer(ctx context.Context, t uplink.Typed) ([]uplink.Offer, error)
	Ask(ctx context.Context, w uplink.Wish, tell func(uplink.Told)) error
	TakeBack(ctx context.Context, person, key string) (uplink.Told, error)
}

// A Visit is a shell in which somebody typed sudo.
type Visit struct {
	UID  uint32
	PID  int
	Gone func() bool
	Hear func(context.Context) (shell.Line, error)
	Tell func(context.Context, shell.Reply) error
}

// Bounds of a talk.
const (
	typedWithin   = 2 * time.Second
	chosenWithin  = 10 * time.Minute // to write a reason
	installWithin = 20 * time.Second
	lookEvery     = 20 * time.Millisecond
	askAgain      = 2 * time.Second
	askTries      = 5 // to have a first answer
)

// visit puts the door's visitor to the agent.
func (a *Agent) visit(ctx context.Context, v *door.Visitor) {
	err := a.Elevate(ctx, Visit{UID: v.UID, PID: v.PID, Gone: v.Gone, Hear: v.Hear, Tell: v.Tell})
	if err != nil && ctx.Err() == nil {
		a.Log.InfoContext(ctx, "talk with a shell ended", "uid", v.UID, "err", err)
	}
}

// Elevate hears somebody out who typed sudo, and has her asked for what she
// lacks. It opens nothing: what it ends with is that sudo may be tried, and
// sudo asks the door.
func (a *Agent) Elevate(ctx context.Context, v Visit) error {
	tell := func(r shell.Reply) error {
		r.Host = a.Name
		return v.Tell(ctx, r)
	}
	typed, err := hear(ctx, v, typedWithin)
	if err != nil {
		return err
	}
	if typed.Typed == nil {
		return shell.ErrForm
	}
	t, err := a.typed(v, *typed.Typed)
	if err != nil {
		return tell(shell.Reply{No: err.Error()})
	}
	if t.Person == "" || a.mayTry(t) {
		return tell(shell.Reply{Run: &shell.Run{}})
	}
	offers, err := a.offers(ctx, t)
	if err != nil {
		return tell(shell.Reply{No: "no grant of yours on " + a.Name + " allows this, and nobody was asked for one: " + why(err)})
	}
	if err := tell(shell.Reply{Offers: shown(offers)}); err != nil {
		return err
	}
	line, err := hear(ctx, v, chosenWithin)
	if err != nil || line.Choice == nil {
		return err // she thought better of it
	}
	c := line.Choice
	if !a.asks.take(t.Person, a.Clock.Now()) {
		return tell(shell.Reply{No: "nobody was asked: " + errTooOften.Text})
	}
	w := uplink.Wish{Typed: t, Role: c.Role, Reason: c.Reason, Ticket: c.Ticket, Code: c.Code, For: c.For, Key: crand.Text()}
	return tell(a.asked(ctx, v, w, tell))
}

// offers are the roles that would allow what was typed.
func (a *Agent) offers(ctx context.Context, t uplink.Typed) ([]uplink.Offer, error) {
	if !a.looksUp.take(t.Person, a.Clock.Now()) {
		return nil, errTooOften
	}
	offers, err := a.Plane.Offer(ctx, t)
	if err == nil && len(offers) == 0 {
		err = &uplink.Refusal{Text: "no role that you may ask for would allow it either: `curfew roles` lists them"}
	}
	return offers, err
}

func hear(ctx context.Context, v Visit, within time.Duration) (shell.Line, error) {
	ctx, done := context.WithTimeout(ctx, within)
	defer done()
	return v.Hear(ctx)
}

// why is a refusal for the person's screen. What lies behind no answer is in
// the agent's log.
func why(err error) string {
	if r := (*uplink.Refusal)(nil); errors.As(err, &r) {
		return r.Text
	}
	return "the control plane cannot be reached from this host; what you hold goes on. Try again, or ask with `curfew request` from a computer of yours"
}

func shown(offers []uplink.Offer) []shell.Offer {
	var all []shell.Offer
	for _, o := range offers {
		all = append(all, shell.Offer{
			Role: o.Role, Description: o.Description, Most: o.Most, Reason: o.Reason, Ticket: o.Ticket, Approvers: o.Approvers, Needed: o.Needed,
		})
	}
	return all
}

var errShell = errors.New("this shell is no session that curfew opened for you, so it can ask for nothing: log in with `curfew ssh`")

// personOf names the person whose account it is by the grants of this host. An
// account in our range may be somebody else's.
func (a *Agent) personOf(uid uint32) (name string) {
	if uid < grant.UIDMin || uid > grant.UIDMax {
		return ""
	}
	for _, g := range a.known() {
		if g.Person.UID == uid {
			name = g.Person.Name
		}
	}
	return name
}

var errNoProgram = errors.New("there is no such program on this host")

// typed says whose shell it is: by the kernel's word on the account and by the
// label that the shell inherited from its login, which have to agree. Of
// nobody of ours the name is empty.
func (a *Agent) typed(v Visit, q shell.Typed) (uplink.Typed, error) {
	t := uplink.Typed{RunAs: q.RunAs, Args: q.Args, Shell: q.Shell, Directory: q.Directory}
	person := a.personOf(v.UID)
	if person == "" {
		return t, nil // sudo knows what to make of it
	}
	id, ok, err := a.Labels.LabelOf(v.PID)
	if err != nil || !ok || v.Gone() {
		return t, errShell
	}
	if s, ok := a.session(id); !ok || s.Person != person {
		return t, errShell
	}
	t.Person, t.Session = person, id
	// A role names one spelling of a program, and whoever approves is shown
	// that one: each has to be the file that was typed.
	if !q.Shell {
		if t.Paths = a.Host.Spellings(q.Paths); len(t.Paths) == 0 {
			return t, errNoProgram
		}
	}
	return t, nil
}

// mayTry reports whether a grant that stands allows what was typed.
func (a *Agent) mayTry(t uplink.Typed) bool {
	return slices.ContainsFunc(a.live(a.now()), func(g grant.Grant) bool {
		if g.Person.Name != t.Person {
			return false
		}
		if t.Shell {
			return g.Role.AnyCommand && slices.Contains(g.Role.RunAs, t.RunAs)
		}
		return slices.ContainsFunc(t.Paths, func(path string) bool { return g.Role.Allows(t.RunAs, append([]string{path}, t.Args...)) })
	})
}

// asked makes the request, and is the last word on it: that sudo may be tried,
// or why not.
func (a *Agent) asked(ctx context.Context, v Visit, w uplink.Wish, tell func(shell.Reply) error) shell.Reply {
	now, gaveUp, err := a.wait(ctx, v, w, tell)
	lost := errors.Is(err, errLost)
	if gaveUp || lost {
		return shell.Reply{No: a.takeBack(ctx, w, now, lost)}
	}
	switch {
	case now.ID == "":
		return shell.Reply{No: "nobody was asked: " + why(err)}
	case err != nil:
		return shell.Reply{No: fmt.Sprintf("request %s: %s", now.ID, why(err))}
	case now.State != "issued":
		return shell.Reply{No: ended(now)}
	}
	return a.onHost(ctx, now, w)
}

// ended says why there is no grant.
func ended(now uplink.Told) string {
	text := "request " + now.ID + " was " + now.State
	if now.By != "" {
		text += " by " + now.By
	}
	if now.Note != "" {
		text += ": " + now.Note
	}
	return text
}

// errLost means that an answer was lost on the way, and with it whether there
// is a request.
var errLost = errors.New("an answer was lost")

// wait has the request made, and tells how it stands until it is decided or
// its person gives up. Somebody who leaves has given up.
func (a *Agent) wait(ctx context.Context, v Visit, w uplink.Wish, tell func(shell.Reply) error) (now uplink.Told, gaveUp bool, err error) {
	waiting, leave := context.WithCancel(ctx)
	defer leave()
	made := make(chan struct{}) // closed once the control plane has said something, or will not
	answered := sync.OnceFunc(func() { close(made) })
	var g errgroup.Group
	g.Go(func() error {
		// Whatever is said now gives up, and so does to say nothing and leave.
		if _, _ = v.Hear(waiting); waiting.Err() != nil {
			return nil
		}
		gaveUp = true
		// What is being made is let come to be, so that it can be taken back.
		select {
		case <-made:
		case <-waiting.Done():
		}
		leave()
		return nil
	})
	lost := false
	for tries := 1; ; tries++ {
		err = a.Plane.Ask(waiting, w, func(t uplink.Told) {
			now = t
			answered()
			if t.State == "asked" {
				_ = tell(shell.Reply{State: state(t, false)}) // a shell that does not hear it has left, which Hear says
			}
		})
		answered()
		lost = lost || errors.Is(err, uplink.ErrAway) || err == nil && now.ID == ""
		if waiting.Err() != nil || !a.asksAgain(now, err, tries) {
			break
		}
		_ = tell(shell.Reply{State: state(now, true)}) // as above
		select {
		case <-waiting.Done():
		case <-a.Clock.After(askAgain):
		}
	}
	leave()
	gaveUp = g.Wait() == nil && gaveUp
	if lost && now.ID == "" {
		err = errors.Join(errLost, err)
	}
	return now, gaveUp, err
}

// asksAgain says whether it is worth it after so many tries: while the request
// may wait, and a few times to learn whether there is one.
func (a *Agent) asksAgain(now uplink.Told, err error, tries int) bool {
	if !errors.Is(err, uplink.ErrAway) {
		return false
	}
	if now.ID == "" {
		return tries < askTries
	}
	return !a.now().After(now.Lapses)
}

func state(t uplink.Told, away bool) *shell.State {
	return &shell.State{Request: t.ID, WaitsFor: t.WaitsFor, Lapses: t.Lapses.UTC(), Approved: t.Approved, Away: away}
}

// takeBack withdraws what was asked, and says what has become of it. That
// nobody was asked it says only where the control plane has said so.
func (a *Agent) takeBack(ctx context.Context, w uplink.Wish, last uplink.Told, lost bool) string {
	now, err := a.Plane.TakeBack(context.WithoutCancel(ctx), w.Person, w.Key)
	none := (*uplink.Refusal)(nil)
	switch {
	case err != nil && last.ID != "":
		return fmt.Sprintf("given up, but request %s could not be withdrawn (%s): take it back with `curfew withdraw %s`", last.ID, why(err), last.ID)
	case err != nil && !lost:
		return "given up; nobody was asked"
	case errors.As(err, &none):
		return "the control plane's answer was lost on the way, and it knows of no request of yours from this shell now: try again, and see `curfew requests` on a computer of yours"
	case err != nil:
		return "the control plane's answer was lost on the way, and somebody may have been asked: `curfew requests` on a computer of yours shows it, and `curfew withdraw` takes it back"
	case now.State == "withdrawn":
		return "request " + now.ID + " is withdrawn"
	case now.State == "issued":
		return fmt.Sprintf("too late: request %s was approved before it could be withdrawn. Nothing was run; `curfew revoke %s` ends the grant", now.ID, now.Grant)
	}
	return ended(now)
}

// onHost waits until the grant is on this host.
func (a *Agent) onHost(ctx context.Context, now uplink.Told, w uplink.Wish) shell.Reply {
	ctx, done := context.WithTimeout(ctx, installWithin)
	defer done()
	for {
		a.mu.Lock()
		is := a.opened[now.Grant].Installed
		a.mu.Unlock()
		if is {
			run := &shell.Run{Grant: now.Grant, Role: w.Role, Approved: now.Approved}
			for _, g := range a.known() {
				if g.ID == now.Grant {
					run.Until = g.NotAfter
				}
			}
			return shell.Reply{Run: run}
		}
		select {
		case <-ctx.Done():
			return shell.Reply{No: fmt.Sprintf("request %s was approved, and its grant %s is not on this host yet: try again in a moment", now.ID, now.Grant)}
		case <-a.Clock.After(lookEvery):
		}
	}
}
