package agent

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"curfew.internal/agent/uplink"
	"curfew.internal/clock"
)

// How often one person may have this host ask. The control plane hears the
// whole host some five times as often, so that nobody uses up what is for all.
const (
	lookUpEvery, lookUpBurst = time.Second, 10
	askEvery, askBurst       = 30 * time.Second, 4 // as often as there is a new code
)

var errTooOften = &uplink.Refusal{Text: "you ask too often: wait half a minute, or ask with `curfew request` from a computer of yours"}

// A share is how often each person may do something. Its zero value is not
// used: see [newShare].
type share struct {
	every rate.Limit
	burst int

	mu sync.Mutex // guards what follows
	by map[string]*rate.Limiter
}

func newShare(every time.Duration, burst int) *share {
	return &share{every: rate.Every(every), burst: burst, by: map[string]*rate.Limiter{}}
}

// take takes one of the person's turns, if one is left. The time since boot
// counts: nobody gains a turn from a clock that is set.
func (s *share) take(person string, now clock.Reading) bool {
	at := time.Unix(0, 0).Add(now.Boot)
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.by[person]
	if one == nil {
		one = rate.NewLimiter(s.every, s.burst)
		s.by[person] = one
	}
	return one.AllowN(at, 1)
}
