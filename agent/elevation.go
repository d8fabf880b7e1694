package agent

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"curfew.internal/agent/host"
	"curfew.internal/agent/writer"
)

// lookElevation is how often the agent looks who may use sudo and su without a
// grant.
const lookElevation = 15 * time.Second

const elevationName = "elevation"

// elevation records whoever changes that. The change stands, for it is root's
// word, and somebody is to look at it. What was so before is kept on disk: a
// change while no agent runs is one as well.
func (a *Agent) elevation(ctx context.Context, p *parts) error {
	p.marked(p.Config)
	var was host.Elevation
	known, err := p.kept.state.Load(elevationName, &was)
	if err != nil {
		a.forgotten("who might use sudo without a grant", err)
	}
	for {
		now, err := p.host.Elevation(ctx)
		switch {
		case err != nil && a.news(elevationName, err.Error()):
			a.Log.WarnContext(ctx, "who may use sudo without a grant is not known", "err", err)
		case err == nil:
			changes := elevationChanges(was, now)
			if known && len(changes) > 0 {
				w, ok := p.writers.Take(p.host.WiringFile())
				a.elevationChanged(ctx, changes, w, ok)
			}
			if !known || len(changes) > 0 {
				if err := p.kept.state.Save(elevationName, now); err != nil {
					a.Log.WarnContext(ctx, "who may use sudo without a grant is not written down", "err", err)
				}
			}
			was, known = now, true
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.Clock.After(lookElevation):
		}
	}
}

// elevationChanged records changes, as something of ours that was changed and
// stands.
func (a *Agent) elevationChanged(ctx context.Context, changes []string, w writer.Writer, known bool) {
	for _, c := range changes {
		e := a.drifted("who may use sudo and su without a grant was changed", c, w, known)
		a.Log.ErrorContext(ctx, "sudo without a grant", "what", e.Text)
		a.append(e)
	}
}

// elevationChanges says what is another than it was.
func elevationChanges(was, now host.Elevation) []string {
	var all []string
	mode := func(e host.Elevation) string {
		switch {
		case !e.Wired:
			return "none, for it is not wired"
		case e.Wiring.Enforce:
			return Enforce
		}
		return Observe
	}
	if b, n := mode(was), mode(now); b != n {
		all = append(all, "the mode of this host is "+n+"; it was "+b)
	}
	if b, n := was.Wiring.Breakglass, now.Wiring.Breakglass; b != n {
		all = append(all, "the break-glass group is "+cmp.Or(n, "none")+"; it was "+cmp.Or(b, "none"))
	}
	for _, c := range []struct {
		from, to []string
		what     string
	}{{was.Members, now.Members, "put into"}, {now.Members, was.Members, "taken out of"}} {
		var names []string
		for _, m := range c.to {
			if !slices.Contains(c.from, m) {
				names = append(names, m)
			}
		}
		if len(names) > 0 {
			all = append(all, strings.Join(names, ", ")+" "+c.what+" the break-glass group")
		}
	}
	return all
}
