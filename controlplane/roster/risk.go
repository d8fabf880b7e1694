package roster

import (
	"net/netip"
	"time"
)

// Risk is what was out of the ordinary for a person when she asked: worked out
// once, and kept with her request, so that whoever looks at it later is told the
// same. What is nil was not known.
type Risk struct {
	NewNetwork    *bool          `json:"new_network,omitempty"`    // from her network, nothing was granted to her in the time before
	FirstTime     *bool          `json:"first_time,omitempty"`     // the role was never granted to her
	FactorRefused *int           `json:"factor_refused,omitempty"` // codes and passkeys of hers that were wrong, in the time before
	FactorAge     *time.Duration `json:"factor_age,omitempty"`     // since the newest of her factors was enrolled
}

// How far back the facts of [Risk] look.
const (
	KnownNetwork   = 90 * 24 * time.Hour
	LatelyRefused  = time.Hour
	ipv4Neighbours = 24
	ipv6Neighbours = 48
)

// NetworkOf is the network that an address counts for: its /24, or its /48 of
// IPv6. It is empty if the address is not known.
func NetworkOf(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	bits, a := ipv6Neighbours, a.Unmap().WithZone("")
	if a.Is4() {
		bits = ipv4Neighbours
	}
	return netip.PrefixFrom(a, bits).Masked().String()
}

// A Doubt is a condition by which a step of an approval was asked for.
type Doubt struct {
	If      string `json:"if"`      // the condition, as it was written
	Because string `json:"because"` // why it held, for people
}
