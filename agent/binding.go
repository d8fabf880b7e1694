package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"curfew.internal/agent/enforce"
	"curfew.internal/grant"
)

// withdraw takes things off the host: first what gives, then, once no process
// of the account is left, what binds it. As long as one is there that would
// not end, so is the network that it is kept to, and the timer that has it
// ended. What no grant gave comes last.
func (a *Agent) withdraw(ctx context.Context, b budget, removals []enforce.Step, held []grant.Grant) (removed []enforce.Thing, failed []error) {
	given, strange := a.strange(removals)
	gives, binds := slices.Clone(given), slices.Clone(given)
	gives = slices.DeleteFunc(gives, func(s enforce.Step) bool { return binding(s.Thing.Kind) })
	binds = slices.DeleteFunc(binds, func(s enforce.Step) bool { return !binding(s.Thing.Kind) })
	removed, _, failed = a.apply(ctx, gives, held)
	bound := a.bound(ctx, b, binds, held)
	for name, err := range bound {
		failed = append(failed, fmt.Errorf("what binds %s stays: %w", name, err))
	}
	binds = slices.DeleteFunc(binds, func(s enforce.Step) bool { return bound[s.Thing.Name] != nil })
	more, _, errs := a.apply(ctx, binds, held)
	removed, failed = append(removed, more...), append(failed, errs...)
	more, errs = a.clean(ctx, b, strange, held)
	return append(removed, more...), append(failed, errs...)
}

// strange tells what a grant of this host gave from what somebody put among it,
// of which what binds comes last.
func (a *Agent) strange(steps []enforce.Step) (given, strange []enforce.Step) {
	names := map[string]bool{}
	a.mu.Lock()
	for _, o := range a.opened {
		names[o.Grant], names[o.Person] = true, true
	}
	a.mu.Unlock()
	for _, s := range steps {
		if names[s.Thing.Name] {
			given = append(given, s)
		} else {
			strange = append(strange, s)
		}
	}
	slices.SortStableFunc(strange, func(x, y enforce.Step) int {
		switch last := binding(x.Thing.Kind); {
		case last == binding(y.Thing.Kind):
			return 0
		case last:
			return 1
		}
		return -1
	})
	return given, strange
}

// clean takes away what no grant gave, as much as there is time for: root can
// put any number of things among ours, and other people's ends go on.
func (a *Agent) clean(ctx context.Context, b budget, strange []enforce.Step, held []grant.Grant) (removed []enforce.Thing, failed []error) {
	until := max(b.until, b.clock.Now().Boot+moment)
	for i := range strange {
		if b.clock.Now().Boot >= until {
			return removed, append(failed, errors.New("no time was left for all that no grant calls for"))
		}
		done, _, errs := a.apply(ctx, strange[i:i+1], held)
		removed, failed = append(removed, done...), append(failed, errs...)
	}
	return removed, failed
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
