package agent

import (
	"context"
	"errors"
	"fmt"

	"curfew.internal/ledger"
)

var errStray = errors.New("the caller carries the label of a session that is over or that nobody knows")

// inside is the session that the caller runs in; none, if it carries no label.
// Whoever is root in a session can call for another one, by su(1), by
// runuser(1), or at the door itself: by that nobody leaves the end, the guard
// and the name that the first one has.
func (a *Agent) inside(k Knock) (Session, error) {
	id, ok, err := a.Labels.LabelOf(k.PID)
	if err != nil || !ok {
		return Session{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s, known := a.sessions[id]
	if !known {
		return Session{}, errStray
	}
	return s, nil
}

// trespass refuses a session of one person's inside that of another.
func (a *Agent) trespass(ctx context.Context, k Knock, in Session, person string) Answer {
	a.Log.WarnContext(ctx, "door refused", "person", in.Person, "service", k.Service, "why", "it would act as somebody else", "as", person)
	a.append(in.entry(ledger.Refused, a.Clock.Now().Wall, fmt.Sprintf("a session of %s's was called for from inside this one, by %s", person, valid(k.Service))))
	return Answer{Message: fmt.Sprintf("curfew: this is a session of %s's, and opens none of %s's: whoever that is logs in for herself", in.Person, person)}
}
