package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"curfew.internal/agent/keep"
	"curfew.internal/grant"
)

// kept is the agent's durable state, with what belongs to this boot alone in
// memory.
type kept struct {
	*keep.Keep
	sessions keep.Folder // in /run
	state    keep.Folder
	before   keep.Folder // in /run: what the host was like before sessions
	looks    keep.Folder // for leftovers
}

const (
	openedName = "opened"
	heardName  = "heard"
)

func (k kept) Sessions() ([]Session, error) {
	names, err := k.sessions.Names()
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var all []Session
	var damaged []error
	for _, n := range names {
		var s Session
		found, err := k.sessions.Load(n, &s)
		switch {
		case errors.Is(err, keep.ErrDamaged):
			damaged = append(damaged, err)
		case err != nil:
			return nil, err
		case found && sessionName(s.ID) != n:
			damaged = append(damaged, fmt.Errorf("session %s: it calls itself %x", n, s.ID))
		case found:
			all = append(all, s)
		}
	}
	return all, errors.Join(damaged...)
}

func sessionName(id uint64) string { return strconv.FormatUint(id, 16) }

func (k kept) SaveSession(s Session) error { return k.sessions.Save(sessionName(s.ID), s) }

func (k kept) DropSession(id uint64) error { return k.sessions.Drop(sessionName(id)) }

func (k kept) Opened() (map[string]Opened, error) {
	o := map[string]Opened{}
	_, err := k.state.Load(openedName, &o)
	return o, err
}

func (k kept) SaveOpened(o map[string]Opened) error { return k.state.Save(openedName, o) }

// heard is when the control plane was heard last, as an agent before us wrote
// down.
func (k kept) heard() (at time.Time, err error) {
	_, err = k.state.Load(heardName, &at)
	return at, err
}

// keepHeard writes down when the control plane was heard, while a grant has a
// lease: an agent that starts again must not take that for never. And it looks
// that what is to outlive this agent is there.
func (a *Agent) keepHeard(ctx context.Context, k kept) error {
	var last time.Time
	for {
		heard := a.Heard()
		leased := slices.ContainsFunc(a.known(), func(g grant.Grant) bool { return g.Lease > 0 })
		if leased && !heard.Equal(last) {
			if err := k.state.Save(heardName, heard); err != nil {
				a.Log.WarnContext(ctx, "when the control plane was heard is not written down", "err", err)
			}
			last = heard
		}
		a.again(k)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.Clock.After(glance):
		}
	}
}

// again has the loop write down again which grants were begun, should somebody
// take that away: the agent after this one owes their receipts.
func (a *Agent) again(k kept) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.opened) > 0 && k.state.Missing(openedName) {
		a.unsaved = true
		a.Wake()
	}
}

func (k kept) Befores() ([]Before, error) {
	names, err := k.before.Names()
	if err != nil {
		return nil, fmt.Errorf("list what was before: %w", err)
	}
	var all []Before
	var errs []error
	for _, n := range names {
		var b Before
		found, err := k.before.Load(n, &b)
		if err == nil && found && b.Person == n {
			all = append(all, b)
		}
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}

func (k kept) SaveBefore(b Before) error { return k.before.Save(b.Person, b) }

func (k kept) DropBefore(person string) error { return k.before.Drop(person) }

func (k kept) Look(grant string) (l Look, err error) {
	_, err = k.looks.Load(grant, &l)
	return l, err
}

func (k kept) SaveLook(l Look) error { return k.looks.Save(l.Grant, l) }

func (k kept) DropLook(grant string) error { return k.looks.Drop(grant) }
