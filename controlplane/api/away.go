package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"curfew.internal/controlplane/roster"
)

// awayEvery is how often the record tells of a person that she was not let in.
// Who knows no more than her name can have that told, and is not to fill the
// record with it.
const awayEvery = time.Minute

// turnedAway counts those who were not let in, and are not in the record yet.
type turnedAway struct {
	mu  sync.Mutex      // guards what follows
	who map[string]away // by person: those of the fleet alone, and so never many
}

// away is what there is to tell of a person.
type away struct {
	told time.Time // the last time
	more int       // since then
	why  string    // the last of them
}

// TurnAway puts into the record that somebody whom the fleet knows was not let
// in: the first time at once, and what follows within a minute together.
func (s *Server) TurnAway(ctx context.Context, person string, why error) {
	r := (*roster.Refusal)(nil)
	if person == "" || !errors.As(why, &r) {
		return
	}
	ctx = context.WithoutCancel(ctx) // whoever hangs up does not keep it out
	_, err := s.Store.Person(ctx, person)
	if is(err, roster.ErrUnknown) {
		return
	}
	now := s.now()
	if err == nil && s.away.first(person, r.Text, now) {
		err = s.Store.TurnAway(ctx, roster.Act{By: person, At: now}, r.Text)
	}
	if err != nil {
		s.Log.ErrorContext(ctx, "that somebody was not let in is not in the record", "person", person, "cause", err)
	}
}

// first reports whether it is to be told at once; if not, it is counted.
func (t *turnedAway) first(person, why string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, known := t.who[person]
	if known && now.Sub(a.told) < awayEvery {
		t.who[person] = away{a.told, a.more + 1, why}
		return false
	}
	if t.who == nil {
		t.who = map[string]away{}
	}
	t.who[person] = away{told: now}
	return true
}

// due takes what is to be told now. Of whom there is nothing to tell is
// forgotten.
func (t *turnedAway) due(now time.Time) map[string]away {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[string]away{}
	for person, a := range t.who {
		if now.Sub(a.told) < awayEvery {
			continue
		}
		delete(t.who, person)
		if a.more > 0 {
			all[person] = a
			t.who[person] = away{told: now}
		}
	}
	return all
}

// tellTurnedAway tells what was counted.
func (s *Server) tellTurnedAway(ctx context.Context) error {
	now := s.now()
	var errs []error
	for person, a := range s.away.due(now) {
		text := fmt.Sprintf("%d times more since %s, the last time: %s", a.more, a.told.UTC().Format(time.RFC3339), a.why)
		errs = append(errs, s.Store.TurnAway(ctx, roster.Act{By: person, At: now}, text))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tell who was not let in: %w", err)
	}
	return nil
}

// guessed puts into the record that a proof was wrong: it was a guess.
func (s *Server) guessed(ctx context.Context, a roster.Act, what string, why error) {
	if r := (*roster.Refusal)(nil); !errors.As(why, &r) || r.Kind != roster.Denied {
		return
	}
	if err := s.Store.Refuse(context.WithoutCancel(ctx), a, "%s", what); err != nil {
		s.Log.ErrorContext(ctx, "a wrong proof is not in the record", "person", a.By, "cause", err)
	}
}
