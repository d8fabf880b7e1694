package controlplane

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"curfew.internal/clock"
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
	key := place(address)
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

// place is whom an address stands for. Whoever has an IPv6 address has all
// others of its last 64 bits as well.
func place(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if ip = ip.Unmap(); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
}
