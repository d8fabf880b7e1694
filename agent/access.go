package agent

import (
	"context"
	"fmt"
	"time"

	"curfew.internal/ledger"
)

// What a host does with sudo and su of those who have no grant. The module
// refuses them in enforce mode, with the agent dead as well; the agent says
// whom that is, or would be.
const (
	Observe = "observe"
	Enforce = "enforce"
)

// elevations holds what the door was asked and is yet to be looked at: nobody
// waits for that.
const elevations = 64

// again is how long one caller of one service is not looked at again.
const again = 10 * time.Minute

// A caller of sudo or su, and how often she was barred since it was recorded.
type barred struct {
	at    time.Duration // since boot, when it was looked at
	is    bool
	calls uint64
}

// maxBarred is how many callers are remembered; then all are forgotten.
const maxBarred = 1000

// elevates notes a stranger's call for the loop that looks at it. One that
// finds no room is not looked at: the next is.
func (a *Agent) elevates(k Knock) {
	if a.Barred == nil || k.Open {
		return
	}
	select {
	case a.called <- k:
	default:
	}
}

// access records who calls sudo or su without a grant, as far as enforce mode
// refuses it, or would.
func (a *Agent) access(ctx context.Context) error {
	seen := map[[2]string]barred{}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case k := <-a.called:
			if len(seen) >= maxBarred {
				clear(seen)
			}
			key := [2]string{k.Service, k.RUser}
			seen[key] = a.look(ctx, k, seen[key])
		}
	}
}

// look decides about one call, once in a while for each caller.
func (a *Agent) look(ctx context.Context, k Knock, last barred) barred {
	now := a.Clock.Now()
	if last.at > 0 && now.Boot-last.at < again {
		if last.is {
			last.calls++
			a.tally()
		}
		return last
	}
	is, enforced, err := a.Barred(ctx, k.Service, k.RUser)
	if err != nil {
		if a.news("access", err.Error()) {
			a.Log.WarnContext(ctx, "who calls sudo without a grant is not known", "err", err)
		}
		return barred{}
	}
	next := barred{at: max(1, now.Boot), is: is}
	if !is {
		return next
	}
	a.tally()
	e := ledger.Entry{
		Kind: ledger.WouldRefuse, At: now.Wall, Service: k.Service,
		Process: &ledger.Process{PID: uint32(max(0, k.PID)), TTY: valid(k.TTY)}, //nolint:gosec // a pid fits
		Text:    fmt.Sprintf("%s called %s without a grant; let through, since this host only observes", valid(k.RUser), valid(k.Service)),
	}
	if enforced {
		e.Kind = ledger.Refused
		e.Text = fmt.Sprintf("%s called %s without a grant; refused, since this host is in enforce mode", valid(k.RUser), valid(k.Service))
	}
	if last.calls > 0 {
		e.Text += fmt.Sprintf("; %d more times since the entry before", last.calls)
	}
	a.Log.InfoContext(ctx, "sudo without a grant", "what", e.Text)
	a.append(e)
	return next
}

func (a *Agent) tally() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
}

// BarredCalls is how many calls of sudo and su were without a grant since the
// start, and refused, or would have been in enforce mode.
func (a *Agent) BarredCalls() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}
