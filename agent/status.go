package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"curfew.internal/agent/keep"
	"curfew.internal/agent/uplink"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// A Status is what a running agent says of itself.
type Status struct {
	Fleet     string        `json:"fleet"`
	Host      string        `json:"host"`
	At        time.Time     `json:"at"`
	Mode      string        `json:"mode"`
	Connected bool          `json:"connected"`
	Refused   string        `json:"refused,omitempty"` // by the control plane, and why
	Revision  uint64        `json:"revision"`
	Settled   bool          `json:"settled"`
	Grants    []grant.Grant `json:"grants"`
	Sessions  []Session     `json:"sessions"`
	Sent      uint64        `json:"events_sent"`
	Lost      uint64        `json:"events_lost"`
	Unwired   []string      `json:"unwired"`
}

const statusName = "status"

// publish writes the status where `curfew-agent status` finds it, after each
// pass and in between.
func (a *Agent) publish(ctx context.Context, p *parts, client *uplink.Client, passed <-chan struct{}) error {
	folder := keep.Folder{Dir: p.Run}
	for {
		counts, err := p.watch.Counts()
		if err != nil {
			a.Log.WarnContext(ctx, "event counts not read", "err", err)
		}
		if a.wiring(ctx, p) {
			client.Report()
		}
		now := a.now()
		err = folder.Save(statusName, Status{
			Fleet: a.Fleet, Host: a.Name, At: now, Mode: p.watch.Mode(), Connected: client.Connected(), Refused: client.Refused(), Revision: a.Revision(),
			Settled: a.Settled(), Grants: a.live(now), Sessions: a.sessionsNow(), Sent: counts.Made - counts.Lost, Lost: counts.Lost, Unwired: p.unwired.list(),
		})
		if err != nil {
			a.Log.WarnContext(ctx, "status not written", "err", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-passed:
		case <-a.Clock.After(2 * time.Second):
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

// wiring puts right by what sshd, sudo and PAM come to ask us, and reports
// whether what they lack is another than it was. Log and record tell of both.
func (a *Agent) wiring(ctx context.Context, p *parts) (news bool) {
	drift := func(text string) {
		a.Log.ErrorContext(ctx, "wiring has changed", "what", text)
		a.append(ledger.Entry{Kind: ledger.Drift, At: a.Clock.Now().Wall, Text: text})
	}
	mended, err := p.host.Mend(ctx)
	if err != nil && a.news("wiring", err.Error()) {
		a.Log.ErrorContext(ctx, "wiring not put right", "err", err)
	}
	for _, m := range mended {
		drift(m + " was changed or removed by somebody; it was put right")
	}
	missing := p.host.Unwired()
	if !p.unwired.is(missing) {
		return false
	}
	if len(missing) > 0 {
		drift("not asked any more by way of " + strings.Join(missing, ", ") + ": `curfew-agent install` mends it")
	} else {
		drift("sshd, sudo and PAM ask the agent again")
	}
	return true
}

// ReadStatus returns what the agent of this host said last.
func ReadStatus(f Folders) (Status, error) {
	var s Status
	found, err := keep.Folder{Dir: f.Run}.Load(statusName, &s)
	if err == nil && !found {
		err = errors.New("the agent has not run since this host started: see `systemctl status curfew-agent`")
	}
	return s, err
}
