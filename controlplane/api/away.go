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

// turnedAway are those who were not let in, and are not in the record yet.
type turnedAway struct {
	mu  sync.Mutex      // guards what follows
	who map[string]away // by person: those of the fleet alone, and so never many
}

// away is what there is to tell of a person.
type away struct {
	told  time.Time // the last time; zero: never
	times int       // since then
	first time.Time // of these
	why   string    // the last of them
}

// TurnAway notes for the record that somebody whom the fleet knows was not let
// in. It is written with the next look, so that it takes no longer for those
// whom the fleet knows than for others.
func (s *Server) TurnAway(ctx context.Context, person string, why error) {
	r := (*roster.Refusal)(nil)
	if person == "" || !errors.As(why, &r) {
		return
	}
	switch known, err := s.Store.Knows(context.WithoutCancel(ctx), person); {
	case known:
		s.away.note(person, r.Text, s.now())
	case err != nil:
		s.Log.ErrorContext(ctx, "that somebody was not let in is not in the record", "person", person, "cause", err)
	}
}

func (t *turnedAway) note(person, why string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.who == nil {
		t.who = map[string]away{}
	}
	a := t.who[person]
	if a.times == 0 {
		a.first = now
	}
	a.times, a.why = a.times+1, why
	t.who[person] = a
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
		if a.times > 0 {
			all[person] = a
			t.who[person] = away{told: now}
		}
	}
	return all
}

// tellTurnedAway tells what was noted.
func (s *Server) tellTurnedAway(ctx context.Context) error {
	var errs []error
	for person, a := range s.away.due(s.now()) {
		text := a.why
		if a.times > 1 {
			text = fmt.Sprintf("%d times since %s, the last time: %s", a.times, a.first.UTC().Format(time.RFC3339), a.why)
		}
		errs = append(errs, s.Store.TurnAway(ctx, roster.Act{By: person, At: a.first}, text))
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
