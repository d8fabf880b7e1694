package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/watch"
	"curfew.internal/ledger"
)

// What is said of a grant under which the kernel's labels were taken away, or
// could have been, as a granted root can where nothing is refused to her.
const (
	taken   = "processes that were labelled once and have another login now: labels were taken away at %s"
	holding = "processes that were labelled once and have another login now: a session took hold of BPF objects at %s, and may have taken labels away"
)

func loose(why string, at time.Time) string { return fmt.Sprintf(why, at.UTC().Format("15:04:05Z")) }

// loosen notes what processes did by which labels can be taken away, for the
// receipts of their grants.
func (a *Agent) loosen(entries []ledger.Entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range entries {
		if e.Kind == ledger.Act && e.Grant != "" && a.loosened[e.Grant] == "" && strings.HasPrefix(e.Text, watch.TookHold) {
			a.loosened[e.Grant] = loose(holding, e.At)
			a.Wake()
		}
	}
}

// slack puts what was noted with the grants. What ended stays as it was told.
func (a *Agent) slack(opened map[string]Opened) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, why := range a.loosened {
		if o, ok := opened[id]; ok && o.Loose == "" && !o.Told {
			o.Loose = why
			opened[id] = o
		} else if !ok {
			delete(a.loosened, id)
		}
	}
}

// regain gives their labels again to what ran in the sessions that were kept
// and of which the kernel, on the same boot, knows nothing. What runs under the
// account, or came by its login, is found; what wrote itself another login is
// not, and the receipt says so. Logins come before what was called in them.
func (a *Agent) regain() {
	living, err := a.Labels.Living()
	if err != nil {
		a.Log.Error("sessions are not looked for", "err", err)
		return
	}
	gone := slices.DeleteFunc(a.sessionsNow(), func(s Session) bool { return len(living[s.ID]) > 0 })
	if len(gone) == 0 {
		return
	}
	found := map[uint64]int{}
	for _, s := range gone {
		found[s.ID] = a.relabel(s, func(pid int) bool { return pid == s.PID })
	}
	for _, s := range gone {
		found[s.ID] += a.relabel(s, func(pid int) bool { _, has, err := a.Labels.LabelOf(pid); return err == nil && !has })
	}
	now := a.Clock.Now().Wall
	for _, s := range gone {
		if o, ok := a.opened[s.Grant]; ok {
			o.Loose = loose(taken, now)
			a.opened[s.Grant] = o
		}
		e := []ledger.Entry{s.entry(ledger.Gap, now, fmt.Sprintf("the labels of its processes were taken away; %d were found again", found[s.ID]))}
		a.tear(e)
		a.append(e...)
	}
	a.unsaved = a.Keep.SaveOpened(a.opened) != nil
}

// relabel labels those of the processes of a session's person that are meant,
// and what they started, and says how many were.
func (a *Agent) relabel(s Session, meant func(pid int) bool) (n int) {
	deadline, unguarded := uint64(1), false // what nobody knows the end of is over
	uid := a.opened[s.Grant].UID
	if g, ok := find(a.grants, s.Grant); ok {
		uid, deadline, unguarded = g.Person.UID, a.deadline(g), g.Role.Unguarded
	}
	pids, failed := a.Host.Processes(uid)
	for _, pid := range pids {
		if !meant(pid) {
			continue
		}
		switch err := a.Labels.Label(pid, -1, s.ID, deadline); {
		case err == nil:
			n++
		case !errors.Is(err, unix.ESRCH): // else it has ended meanwhile
			failed = errors.Join(failed, err)
		}
	}
	if n > 0 && unguarded {
		failed = errors.Join(failed, a.Labels.Guard(s.ID, false))
	}
	if failed != nil {
		a.Log.Error("not all processes of a session got their label again", "session", s.ID, "person", s.Person, "err", failed)
	}
	return n
}
