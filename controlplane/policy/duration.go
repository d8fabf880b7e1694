package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"curfew.internal/grant"
)

// ParseDuration reads a duration as policies and people write it: whole
// numbers of days, hours, minutes and seconds, such as 7d, 4h, 1h30m. It is no
// longer than a grant may last.
func ParseDuration(s string) (time.Duration, error) {
	d, ok := ParseSpan(s)
	if !ok || d > grant.MaxDuration {
		return 0, fmt.Errorf("%.40q is no duration: write 30m, 2h, 1h30m or 7d, up to %dd", s, int(grant.MaxDuration/(24*time.Hour)))
	}
	return d, nil
}

// ParseSpan reads what is written in the same way and is no grant's, of a
// century at most.
func ParseSpan(s string) (d time.Duration, ok bool) {
	const day, century = 24 * time.Hour, 36525 * 24 * time.Hour
	rest := s
	for _, u := range []struct {
		name string
		is   time.Duration
	}{{"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		number, after, found := strings.Cut(rest, u.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || number[0] == '+' || time.Duration(n) > century/u.is {
			return 0, false
		}
		d += time.Duration(n) * u.is
		rest = after
	}
	return d, rest == "" && s != "" && d <= century
}
