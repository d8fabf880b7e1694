package controlplane

import (
	"testing"
	"time"

	"curfew.internal/clock"
)

// stopped is a clock that stands still.
type stopped struct{ clock.System }

func (stopped) Now() clock.Reading { return clock.Reading{Wall: time.Unix(1<<30, 0)} }

func TestAnAddressHasItsShare(t *testing.T) {
	for _, c := range []struct {
		name, used, other string
		same              bool
	}{
		{"another port", "192.0.2.1:1", "192.0.2.1:2", true},
		{"another address", "192.0.2.1:1", "192.0.2.2:1", false},
		{"the same, written as IPv6", "192.0.2.1:1", "[::ffff:192.0.2.1]:2", true},
		{"another address of one network of IPv6", "[2001:db8::1]:1", "[2001:db8::ffff:1]:2", true},
		{"another network", "[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		{"the same link, by another name", "[fe80::1%a]:1", "[fe80::2%b]:1", true},
		{"what is no address", "@", "@", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShares(stopped{})
			for range shareBurst {
				s.take(c.used)
			}
			if s.take(c.other) == c.same {
				t.Errorf("%s after %s", c.other, c.used)
			}
		})
	}
}
