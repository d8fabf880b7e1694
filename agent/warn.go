package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"curfew.internal/grant"
)

// marks are how long before the end of a grant its person is told, the last
// one first. A grant that is shorter than a mark has none there.
var marks = []time.Duration{5 * time.Minute, 15 * time.Minute}

// glance is how often the ends are looked at.
const glance = 5 * time.Second

// A warning is what one person's terminals are told.
type warning struct {
	grant    grant.Grant
	mark     time.Duration
	sessions []uint64
	text     string
}

// due lists the warnings whose time it is and that were not told. Only the
// grant that ends last counts: sessions go on under it.
func due(live []grant.Grant, sessions []Session, told map[string]time.Duration, now time.Time) []warning {
	byGrant := map[string]*warning{}
	var all []*warning
	for _, s := range sessions {
		g, ok := of(live, s.Person)
		if !ok {
			continue
		}
		mark, ok := markOf(g, now)
		if last, before := told[g.ID]; !ok || before && last <= mark {
			continue
		}
		w := byGrant[g.ID]
		if w == nil {
			w = &warning{grant: g, mark: mark, text: text(g, now)}
			byGrant[g.ID] = w
			all = append(all, w)
		}
		w.sessions = append(w.sessions, s.ID)
	}
	list := make([]warning, 0, len(all))
	for _, w := range all {
		list = append(list, *w)
	}
	return list
}

// markOf is the mark that a grant has passed last, if any.
func markOf(g grant.Grant, now time.Time) (time.Duration, bool) {
	for _, m := range marks {
		if g.NotAfter.Sub(now) <= m && g.NotAfter.Sub(g.NotBefore) > m {
			return m, true
		}
	}
	return 0, false
}

func text(g grant.Grant, now time.Time) string {
	left := g.NotAfter.Sub(now).Round(time.Minute)
	minutes := fmt.Sprintf("%d minutes", int(left.Minutes()))
	if left <= time.Minute {
		minutes = "a minute"
	}
	return fmt.Sprintf("curfew: your grant as %s ends in %s, at %s, and with it what you run here. To go on: curfew extend %s --for 1h --why REASON",
		g.Role.Name, minutes, g.NotAfter.Format("15:04:05 MST"), g.ID)
}

// warn tells people at their terminals that the end is near. What an agent
// before this one told is told again.
func (a *Agent) warn(ctx context.Context) error {
	told := map[string]time.Duration{}
	for {
		now := a.now()
		live := a.live(now)
		for _, w := range due(live, a.sessionsNow(), told, now) {
			if a.tell(ctx, w) {
				told[w.grant.ID] = w.mark
			}
		}
		for id := range told {
			if _, stands := find(live, id); !stands {
				delete(told, id)
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.Clock.After(glance):
		}
	}
}

// tell reports whether that was all: it was not, if all her terminals are stopped.
func (a *Agent) tell(ctx context.Context, w warning) bool {
	living, err := a.Labels.Living()
	if err != nil {
		a.Log.WarnContext(ctx, "nobody told of the end", "grant", w.grant.ID, "err", err)
		return true
	}
	var pids []int
	for _, s := range w.sessions {
		pids = append(pids, living[s]...)
	}
	n, later := a.Host.Tell(pids, strings.ToValidUTF8(w.text, "?"))
	if later {
		return false
	}
	a.Log.InfoContext(ctx, "end is near", "grant", w.grant.ID, "person", w.grant.Person.Name, "end", w.grant.NotAfter, "terminals", n)
	return true
}
