package agent

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"curfew.internal/ledger"
)

// heldUp is how long a pass may take before what is over is ended beside it.
const heldUp = 3 * time.Second

// release keeps a granted root from having the whole host wait for her before it
// opens a file (fanotify(7), leases): nothing that it does needs one. The loop could not
// go on, systemd would end this agent for its silence, and could start none. Where
// the kernel refuses it, only who had it before is left: the loop is stuck then.
func (a *Agent) release(ctx context.Context) error {
	var said []ledger.Entry
	stuck := false
	for tick := 1; ; tick++ {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.Clock.After(glance / 5):
		}
		since, was := time.Duration(a.busy.Load()), stuck
		stuck = since != 0 && a.Clock.Now().Boot-since >= heldUp
		if stuck {
			a.endOver(ctx)
		}
		if a.seeks(tick, stuck, was) {
			said = append(said, a.free(ctx, stuck, len(said) > 0)...)
		}
		if since == 0 && len(said) > 0 {
			a.append(said...) // to write it down is to open a file
			said = nil
		}
	}
}

// seeks reports whether it is time to look who holds up the host: at once when
// the loop is stuck, and now and then. It costs, and may be why a pass takes long.
func (a *Agent) seeks(tick int, stuck, was bool) bool {
	if stuck && !was {
		return true
	}
	return tick%5 == 0 && (stuck || !a.Holds)
}

// endOver ends what is over. Receipts are for the loop, once it goes on.
func (a *Agent) endOver(ctx context.Context) {
	now, known := a.now(), a.known()
	live := a.standing(known, now)
	held := append(a.draining(known, now), live...)
	ended := slices.DeleteFunc(a.sessionsNow(), func(s Session) bool { return !s.over(live, held) })
	a.endNow(ctx, numbers(ended))
}

// free ends those processes of guarded sessions, and of all while the loop is
// stuck, that are asked before files are opened; where it comes to that again,
// their sessions. It says whose they were.
func (a *Agent) free(ctx context.Context, stuck, again bool) (said []ledger.Entry) {
	if len(a.sessionsNow()) == 0 {
		return nil
	}
	living, err := a.Labels.Living()
	if err != nil {
		a.Log.ErrorContext(ctx, "whoever holds up the host is not looked for", "err", err)
	}
	known := a.known()
	// Somebody may have so much open that the look does not come to all.
	look, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	ids := slices.Collect(maps.Keys(living))
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] }) //nolint:gosec // no secret
	for _, id := range ids {
		s, _ := a.session(id)
		if g, _ := find(known, s.Grant); g.Role.Unguarded && !stuck {
			continue
		}
		ended := a.Unhold(look, living[id], stuck)
		if again && len(ended) > 0 {
			a.endNow(ctx, []uint64{id})
		}
		for _, pid := range ended {
			a.Log.WarnContext(ctx, "a process of a session held up the host and was ended", "pid", pid, "person", s.Person)
			e := s.entry(ledger.Act, a.Clock.Now().Wall, "process had this host wait for it before files were opened (fanotify, a lease), and was ended")
			e.Session, e.Process = id, &ledger.Process{PID: uint32(pid)} //nolint:gosec // a pid fits
			said = append(said, e)
		}
	}
	return said
}

// endNow ends what runs in sessions.
func (a *Agent) endNow(ctx context.Context, sessions []uint64) {
	if len(sessions) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	if _, _, err := a.Labels.Kill(ctx, sessions); err != nil {
		a.Log.ErrorContext(ctx, "sessions are not ended beside the loop", "err", err)
	}
}
