package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"curfew.internal/agent/host"
	"curfew.internal/ledger"
)

// Bounds of a look for leftovers, and of the snapshot that the first session
// waits for at the door.
const (
	longest = 60 * time.Second
	glimpse = 2 * time.Second // and two more where nobody answers: the door has six
	tries   = 10              // looks that agents did not come to the end of
)

// A Before is what a host looked like before the first session of a person
// who held no grant. It is kept in /run: for an agent that restarts.
type Before struct {
	Person string          `json:"person"`
	Since  time.Time       `json:"since"`
	Seen   json.RawMessage `json:"seen,omitempty"` // the host's own words; none: there was no time
}

// A Look is a look for leftovers that was begun, kept so that the next agent
// goes on where this one died.
type Look struct {
	Grant    string    `json:"grant"`
	Ended    time.Time `json:"ended"` // as in the task, see [Opened]
	Tries    int       `json:"tries"`
	Removals []byte    `json:"removals,omitempty"` // about to be made, in the host's own words
	Entry    []byte    `json:"entry,omitempty"`    // what there is to record: the look is done
}

// remember takes down what the host looks like before a person's first
// session. A session is not refused for it: without a snapshot, later changes
// are told by their times.
func (a *Agent) remember(ctx context.Context, person string) {
	if a.remembers(person) {
		return
	}
	b := Before{Person: person, Since: a.Clock.Now().Wall}
	glance, cancel := context.WithTimeout(ctx, glimpse)
	defer cancel()
	seen, err := a.Host.Snapshot(glance)
	if err != nil {
		a.Log.WarnContext(ctx, "what the host is like before the session is not known", "person", person, "err", err)
	}
	b.Seen = seen
	// Of two first sessions at a time, the first snapshot to be done was there
	// before either began.
	a.beforeMu.Lock()
	defer a.beforeMu.Unlock()
	a.mu.Lock()
	_, known := a.before[person]
	if !known {
		a.before[person] = b
	}
	a.mu.Unlock()
	if known {
		return
	}
	if err := a.Keep.SaveBefore(b); err != nil {
		a.Log.WarnContext(ctx, "what the host is like before the session is not kept", "person", person, "err", err)
	}
}

// remembers asks under the lock under which forget asks who holds a grant: so
// that nothing is forgotten which a session that is about to begin counts on.
func (a *Agent) remembers(person string) bool {
	a.beforeMu.Lock()
	defer a.beforeMu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	_, known := a.before[person]
	return known
}

// forget drops what was remembered of a person who holds no grant any more,
// once nothing is to be looked for but what the ended one left.
func (a *Agent) forget(ctx context.Context, ended Opened) {
	a.beforeMu.Lock()
	defer a.beforeMu.Unlock()
	if a.holds(ended.Person) || a.owes(ended) {
		return
	}
	a.mu.Lock()
	delete(a.before, ended.Person)
	a.mu.Unlock()
	if err := a.Keep.DropBefore(ended.Person); err != nil {
		a.Log.WarnContext(ctx, "an old snapshot is still there", "person", ended.Person, "err", err)
	}
}

// owes reports whether another grant of the same person is still to be looked
// after.
func (a *Agent) owes(but Opened) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, o := range a.opened {
		if id != but.Grant && o.Person == but.Person && !o.Told && (o.Ended.IsZero() || !a.looked[id].Equal(o.Ended)) {
			return true
		}
	}
	return false
}

// holds reports whether a grant of the person's stands, or lets what runs go on.
func (a *Agent) holds(person string) bool {
	now := a.now()
	_, holds := of(append(a.draining(a.known(), now), a.live(now)...), person)
	return holds
}

// looks looks for leftovers of grants that ended, one after the other, until
// ctx is done. It takes seconds, which no pass waits for.
func (a *Agent) looks(ctx context.Context) error {
	for {
		a.LookAfter(ctx)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.ends:
		}
	}
}

// LookAfter looks for what the sessions of grants left that have ended. A
// grant whose look is recorded is dropped by the next pass.
func (a *Agent) LookAfter(ctx context.Context) {
	for _, o := range a.due() {
		if ctx.Err() != nil {
			return
		}
		a.lookAfter(ctx, o)
	}
}

// due are the ended grants whose leftovers were not looked for, the first that
// ended first.
func (a *Agent) due() []Opened {
	a.mu.Lock()
	defer a.mu.Unlock()
	due := slices.DeleteFunc(slices.Collect(maps.Values(a.opened)), func(o Opened) bool {
		return o.Ended.IsZero() || o.Told || a.looked[o.Grant].Equal(o.Ended)
	})
	slices.SortFunc(due, func(x, y Opened) int { return cmp.Or(x.Ended.Compare(y.Ended), cmp.Compare(x.Grant, y.Grant)) })
	return due
}

// lookAfter looks, records and says that it did. What was done before us is
// not done again.
func (a *Agent) lookAfter(ctx context.Context, o Opened) {
	l, err := a.Keep.Look(o.Grant)
	if err != nil {
		a.Log.WarnContext(ctx, "a look for leftovers is begun anew", "grant", o.Grant, "err", err)
	}
	if err != nil || !l.Ended.Equal(o.Ended) {
		l = a.anew(l, o)
	}
	e, err := ledger.ParseEntry(l.Entry)
	if err != nil || len(l.Entry) == 0 {
		var found host.Leavings
		var ok bool
		if found, ok = a.search(ctx, o, &l); !ok {
			return // we are to stop: the next agent looks
		}
		e = a.leftovers(ctx, o, found)
		l.Entry = e.Bytes()
		a.begin(ctx, l)
	}
	a.append(e)
	a.forget(ctx, o)
	a.mu.Lock()
	a.looked[o.Grant] = o.Ended
	a.mu.Unlock()
	a.Wake()
}

// anew is the look after a grant that stood again after its last end. What
// the agent that looked then had begun to remove, or had found and perhaps not
// recorded, is told all the same.
func (a *Agent) anew(last Look, o Opened) Look {
	l := Look{Grant: o.Grant, Ended: o.Ended}
	if e, err := ledger.ParseEntry(last.Entry); err == nil && len(last.Entry) > 0 {
		a.append(e)
	} else {
		l.Removals = last.Removals
	}
	return l
}

// begin writes down how far a look is. Without that it goes on: at worst it
// is made twice.
func (a *Agent) begin(ctx context.Context, l Look) {
	if err := a.Keep.SaveLook(l); err != nil {
		a.Log.WarnContext(ctx, "how far a look for leftovers is, is not written down", "grant", l.Grant, "err", err)
	}
}

// search has the host looked at. It is not ok if ctx ends meanwhile.
func (a *Agent) search(ctx context.Context, o Opened, l *Look) (found host.Leavings, ok bool) {
	if l.Tries++; l.Tries > tries {
		return host.Leavings{Skipped: []string{fmt.Sprintf("everything: %d looks ended with the agent", tries)}}, true
	}
	a.begin(ctx, *l)
	a.mu.Lock()
	b := a.before[o.Person]
	a.mu.Unlock()
	bound, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	found, err := a.Host.Leavings(bound, host.Trace{
		Person: o.Person, UID: o.UID, Since: a.since(o), Before: b.Seen, Remove: o.Remove, Begun: l.Removals,
		Own: func() bool { return !a.holds(o.Person) },
		Begin: func(removals []byte) {
			l.Removals = removals
			a.begin(ctx, *l)
		},
	})
	if o.Loose != "" {
		found.Skipped = append(found.Skipped, o.Loose)
	}
	if err != nil && ctx.Err() == nil {
		found.Skipped = append(found.Skipped, "everything: "+err.Error())
	}
	if ctx.Err() != nil {
		l.Tries-- // no fault of the look's
		a.begin(ctx, *l)
		return found, false
	}
	return found, true
}

// since is from when on changes on the host may be a person's.
func (a *Agent) since(o Opened) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b, ok := a.before[o.Person]; ok {
		return b.Since
	}
	return o.Since
}

// leftovers is what is recorded of a look.
func (a *Agent) leftovers(ctx context.Context, o Opened, found host.Leavings) ledger.Entry {
	now := a.Clock.Now().Wall
	r := ledger.LeftoversReceipt{
		Fleet: a.Fleet, Host: a.Name, Boot: a.Boot, Grant: o.Grant, Person: o.Person, Since: a.since(o), DoneAt: now,
		Removed: found.Removed, Left: found.Left, Looked: found.Looked, Skipped: found.Skipped,
	}
	for _, list := range [][]string{r.Removed, r.Left, r.Looked, r.Skipped} {
		for i := range list {
			list[i] = printable(list[i])
		}
	}
	a.Log.InfoContext(ctx, "looked for leftovers", "grant", o.Grant, "person", o.Person, "removed", len(r.Removed), "left", len(r.Left))
	return ledger.Entry{
		Kind: ledger.Leftovers, At: now, Host: a.Name, Boot: a.Boot, Grant: o.Grant, Person: o.Person, Approvers: o.Approvers,
		Took: max(0, now.Sub(o.Ended)), Receipt: r.Seal(a.ReceiptKey),
	}
}

// discharge takes the grants off the list whose leftovers were looked for,
// and returns them. One is listed for as long as it is sent: by its time it was
// here, and a lease may bring it back.
func (a *Agent) discharge(opened map[string]Opened) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var done []string
	for id, at := range a.looked {
		if o := opened[id]; o.Ended.Equal(at) {
			o.Told = true
			opened[id] = o
		}
		done = append(done, id)
	}
	for id, o := range opened {
		// Without any grant, it may be that the set could not be read.
		if _, sent := find(a.grants, id); o.Told && !sent && (!o.Over || len(a.grants) > 0) {
			delete(opened, id)
		}
	}
	return done
}

// discharged drops what is kept of looks that are done and off the list.
func (a *Agent) discharged(ctx context.Context, done []string) {
	a.mu.Lock()
	for _, id := range done {
		delete(a.looked, id)
	}
	a.mu.Unlock()
	for _, id := range done {
		if err := a.Keep.DropLook(id); err != nil {
			a.Log.WarnContext(ctx, "a look that is done is still kept", "grant", id, "err", err)
		}
	}
}
