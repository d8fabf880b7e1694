package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host"
	"curfew.internal/agent/writer"
	"curfew.internal/ledger"
)

// program is what the kernel calls us.
const program = "curfew-agent"

// drifted is the entry for something of ours that was changed, with who did
// it as far as that is known. What no grant calls for stands with the grant
// of whoever wrote it.
func (a *Agent) drifted(what, then string, w writer.Writer, known bool) ledger.Entry {
	e := ledger.Entry{Kind: ledger.Drift, At: a.Clock.Now().Wall}
	by := "somebody"
	if known {
		e.Process, e.Session = &w.Process, w.Session
		by = fmt.Sprintf("process %d", w.Process.PID)
		if w.Process.Comm != "" {
			by = fmt.Sprintf("%s (process %d, uid %d)", w.Process.Comm, w.Process.PID, w.Process.IDs.EUID)
		}
		if s, ok := a.session(w.Session); ok {
			e.Grant, e.Person, e.Approvers = s.Grant, s.Person, s.Approvers
			by += fmt.Sprintf(" in a session of %s", s.Person)
		}
		switch {
		case w.Ours():
			by += ", which this agent started"
		case w.Process.Comm == program:
			by += ", which this agent did not start" // anybody may call itself that
		}
	}
	e.Text = what + " by " + by + "; " + then
	return e
}

// writer says who touched the thing's file last.
func (a *Agent) writer(t enforce.Thing) (writer.Writer, bool) {
	if a.Writer == nil {
		return writer.Writer{}, false
	}
	return a.Writer(t)
}

// unwatched says why nobody tells of changes of our files, or, with nothing,
// that somebody does.
func (a *Agent) unwatched(ctx context.Context, err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	if a.news("watch", why) {
		a.Log.ErrorContext(ctx, "nobody tells of changes: what is ours is looked at each second", "err", err)
	}
}

// rules looks as soon as somebody changes our rules of nftables. Where the
// kernel does not tell, that is for each look.
func (a *Agent) rules(ctx context.Context, p *parts) error {
	numbered := host.Numbered()
	err := p.host.Rules(ctx, func(pid int) {
		if !numbered {
			pid = 0
		}
		p.writers.Note(p.host.Scopes(), pid)
		a.Wake()
	})
	if ctx.Err() == nil {
		a.Log.WarnContext(ctx, "nobody tells who changes nftables: its rules are looked at each resync", "err", err)
		<-ctx.Done()
	}
	return context.Cause(ctx)
}

// foreign records what was taken away that no grant of this host explains:
// somebody put it among our things.
func (a *Agent) foreign(removed []enforce.Thing) {
	a.mu.Lock()
	var strange []enforce.Thing
	for _, t := range removed {
		known := false
		for _, o := range a.opened {
			known = known || t.Name == o.Grant || t.Name == o.Person
		}
		if !known {
			strange = append(strange, t)
		}
	}
	a.mu.Unlock()
	for _, t := range strange {
		if w, ok := a.writer(t); ok {
			a.append(a.drifted(t.String()+", which no grant calls for, was put there", "it was removed", w, ok))
		}
	}
}

// unwired is what the host's sshd, sudo and PAM lack to ask the agent.
type unwired struct {
	mu      sync.Mutex // guards what follows
	missing []string
}

// is notes what is missing, and reports whether that is news.
func (u *unwired) is(missing []string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	news := !slices.Equal(u.missing, missing)
	u.missing = missing
	return news
}

func (u *unwired) list() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.missing
}

// mends is how often in a row the wiring is put right, while somebody goes on
// changing it.
const mends = 3

// wiring puts right by what sshd, sudo and PAM come to ask us, and systemd to
// run us, and reports
// whether what they lack is another than it was. Log and record tell of both.
func (a *Agent) wiring(ctx context.Context, p *parts) (news bool) {
	tell := func(e ledger.Entry) {
		a.Log.ErrorContext(ctx, "wiring has changed", "what", e.Text)
		a.append(e)
	}
	var missing []string
	for range mends {
		mended, left, err := p.host.Mend(ctx)
		missing = left
		if err != nil && a.news("wiring", err.Error()) {
			a.Log.ErrorContext(ctx, "wiring not put right", "err", err)
		}
		for _, m := range mended {
			w, ok := p.writers.Take(m)
			tell(a.drifted(m+" was changed or removed", "it was put right", w, ok))
		}
		if len(mended) == 0 {
			break
		}
	}
	a.mendTrust(ctx, p, tell)
	changes, err := p.host.MendUnits(ctx, &p.units)
	if err != nil && a.news("units", err.Error()) {
		a.Log.ErrorContext(ctx, "units not put right", "err", err)
	}
	for _, c := range changes {
		then := "it stands: see `systemctl cat` and `systemctl is-enabled`"
		if c.Mended {
			then = "it was put right"
		}
		w, ok := p.writers.Take(c.File)
		tell(a.drifted(c.File+" "+c.What, then, w, ok))
	}
	if !p.unwired.is(missing) {
		return false
	}
	e := ledger.Entry{Kind: ledger.Drift, At: a.Clock.Now().Wall, Text: "sshd, sudo and PAM ask the agent again"}
	if len(missing) > 0 {
		w, ok := p.writers.Take(missing[0])
		e = a.drifted("not asked any more by way of "+strings.Join(missing, ", ")+", changed", "`curfew-agent doctor` says what mends it", w, ok)
	}
	tell(e)
	p.examined.ask()
	return true
}
