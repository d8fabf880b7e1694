package host

import (
	"context"
	"testing"
	"time"

	"curfew.internal/test/evade"
	"curfew.internal/test/lab"
)

// evades: whatever a granted root does to run something unseen is seen, or the
// docs say that it is not.
func evades(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "eve")
	id := s.grant(t, p, "ops", "30m")
	evade.Play(t, evade.Session{Host: s.db1, Fleet: s.fleet, Person: p, Grant: id, Patience: 5 * time.Minute, Over: func() { s.over(t, "eve", id) }})
}

// wait is for what takes minutes on a busy machine.
func (s *scene) wait(t *testing.T, what string, look func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := lab.Until(ctx, what, look); err != nil {
		t.Fatal(err)
	}
}
