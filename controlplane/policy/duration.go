package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"curfew.internal/grant"
)

// ParseDuration reads a duration as policies and people write it: whole
// numbers of days, hours, minutes and seconds, such as 7d, 4h, 1h30m.
func ParseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%.40q is no duration: write 30m, 2h, 1h30m or 7d, up to %dd", s, int(grant.MaxDuration/(24*time.Hour)))
	units := []struct {
		name string
		is   time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	var total time.Duration
	rest := s
	for _, u := range units {
		number, after, found := strings.Cut(rest, u.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil || number == "" || number[0] == '+' || time.Duration(n) > grant.MaxDuration/u.is {
			return 0, wrong
		}
		total += time.Duration(n) * u.is
		rest = after
	}
	if rest != "" || s == "" || total > grant.MaxDuration {
		return 0, wrong
	}
	return total, nil
}
