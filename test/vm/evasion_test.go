package vm

import (
	"testing"
	"time"

	"curfew.internal/test/evade"
)

// evades: where LSM programs refuse and functions of the kernel tell, what is
// run to be missed is told as on hosts without, and one way is refused.
func evades(t *testing.T, s *scene) {
	t.Helper()
	s.sh(t, "modprobe -a overlay binfmt_misc") // who is guarded has the kernel load nothing
	p := s.person(t, "eve")
	id, _ := s.grant(t, p, time.Hour)
	evade.Play(t, evade.Session{Host: s.vm, Fleet: s.fleet, Person: p, Grant: id, Refused: "binfmt_misc", Patience: 14 * time.Minute, Over: func() { s.end(t, id, "eve") }})
}
