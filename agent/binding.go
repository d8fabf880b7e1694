package agent

import (
	"context"
	"fmt"
	"slices"

	"curfew.internal/agent/enforce"
	"curfew.internal/grant"
)

// withdraw takes things off the host: first what gives, then, once no process
// of the account is left, what binds it. As long as one is there that would
// not end, so is the network that it is kept to, and the timer that has it
// ended.
func (a *Agent) withdraw(ctx context.Context, b budget, removals []enforce.Step, held []grant.Grant) (removed []enforce.Thing, failed []error) {
	gives, binds := slices.Clone(removals), slices.Clone(removals)
	gives = slices.DeleteFunc(gives, func(s enforce.Step) bool { return binding(s.Thing.Kind) })
	binds = slices.DeleteFunc(binds, func(s enforce.Step) bool { return !binding(s.Thing.Kind) })
	removed, _, failed = a.apply(ctx, gives, held)
	bound := a.bound(ctx, b, binds, held)
	for name, err := range bound {
		failed = append(failed, fmt.Errorf("what binds %s stays: %w", name, err))
	}
	binds = slices.DeleteFunc(binds, func(s enforce.Step) bool { return bound[s.Thing.Name] != nil })
	more, _, errs := a.apply(ctx, binds, held)
	return append(removed, more...), append(failed, errs...)
}

func binding(k enforce.Kind) bool { return k == enforce.Network || k == enforce.EndTimer }

// bound ends the processes of the accounts that are about to be let loose, and
// returns, by their names and their grants', why some could not be ended.
func (a *Agent) bound(ctx context.Context, b budget, loose []enforce.Step, held []grant.Grant) map[string]error {
	a.mu.Lock()
	opened := a.opened // never changed, only replaced
	a.mu.Unlock()
	bound := map[string]error{}
	for _, o := range opened {
		named := slices.ContainsFunc(loose, func(s enforce.Step) bool { return s.Thing.Name == o.Person || s.Thing.Name == o.Grant })
		if _, other := of(held, o.Person); other || !named || !o.Ended.IsZero() {
			continue
		}
		turn, cancel := b.turn(ctx)
		n, err := a.Host.KillUID(turn, o.UID)
		cancel()
		a.count(Session{Grant: o.Grant}, n)
		if err != nil {
			bound[o.Person], bound[o.Grant] = err, err
		}
	}
	return bound
}
