package controlplane

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"curfew.internal/clock"
	"curfew.internal/controlplane/gate"
)

// What an address may do without a session: a person who mistypes never
// reaches it.
const (
	shareEvery = time.Second
	shareBurst = 30
	shareMost  = 4096 // addresses remembered; then all are forgotten
)

// shares bounds how often each address may try to sign in.
type shares struct {
	clock clock.Clock

	mu sync.Mutex // guards what follows
	by map[string]*rate.Limiter
}

func newShares(k clock.Clock) *shares { return &shares{clock: k, by: map[string]*rate.Limiter{}} }

func (s *shares) take(address string) bool {
	key := gate.Place(address)
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.by[key]
	if one == nil {
		if len(s.by) >= shareMost {
			clear(s.by)
		}
		one = rate.NewLimiter(rate.Every(shareEvery), shareBurst)
		s.by[key] = one
	}
	return one.AllowN(s.clock.Now().Wall, 1)
}
