package main

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/policy"
)

// length is a flag's duration, in the form that policies use.
type length time.Duration

// UnmarshalText reads 90m, 4h, 7d.
func (l *length) UnmarshalText(b []byte) error {
	d, err := policy.ParseDuration(string(b))
	*l = length(d)
	return err
}

// when is a flag's instant: a time of RFC 3339, or how long ago.
type when struct {
	at  time.Time
	ago time.Duration
}

// UnmarshalText reads 2027-01-31T14:00:00Z, and 90m, 4h, 7d.
func (w *when) UnmarshalText(b []byte) error {
	var ok bool
	if w.ago, ok = policy.ParseSpan(string(b)); ok {
		return nil
	}
	var err error
	w.ago = 0
	if w.at, err = time.Parse(time.RFC3339, string(b)); err != nil {
		return fmt.Errorf("%.40q is no time: write 2027-01-31T14:00:00Z, or 30m, 2h, 7d for so long ago", b)
	}
	return nil
}

// before is the instant, seen from now; nil if the flag was not given.
func (w when) before(now time.Time) *timestamppb.Timestamp {
	switch {
	case w.ago > 0:
		return timestamppb.New(now.Add(-w.ago))
	case !w.at.IsZero():
		return timestamppb.New(w.at)
	}
	return nil
}

// signed ties a value that looks like a flag, such as -1h, to the flag before
// it, so that the one who reads it can say what is wrong with it.
func signed(args []string) []string {
	var out []string
	for _, a := range args {
		last := len(out) - 1
		negative := len(a) > 1 && a[0] == '-' && a[1] >= '0' && a[1] <= '9'
		if negative && last >= 0 && strings.HasPrefix(out[last], "--") && len(out[last]) > 2 && !strings.Contains(out[last], "=") {
			out[last] += "=" + a
			continue
		}
		out = append(out, a)
	}
	return out
}

// moment is a flag's instant that is yet to come: a time of RFC 3339, a time of
// day, or how long from now.
type moment struct {
	at    time.Time
	clock time.Time // of whatever day
	in    time.Duration
}

// UnmarshalText reads 2027-01-31T22:30:00Z, 22:30, and 30m, 6h, 2d.
func (m *moment) UnmarshalText(b []byte) error {
	var err error
	if m.in, err = policy.ParseDuration(string(b)); err == nil {
		return nil
	}
	if m.clock, err = time.Parse("15:04", string(b)); err == nil {
		return nil
	}
	m.clock = time.Time{}
	if m.at, err = time.Parse(time.RFC3339, string(b)); err != nil {
		return fmt.Errorf("%.40q is no time: write 22:30 (UTC), 2027-01-31T22:30:00Z, or 30m, 6h, 2d for so long from now", b)
	}
	return nil
}

// after is the instant, seen from now; nil if the flag was not given.
func (m moment) after(now time.Time) *timestamppb.Timestamp {
	now = now.UTC()
	switch {
	case m.in > 0:
		return timestamppb.New(now.Add(m.in))
	case !m.clock.IsZero():
		at := time.Date(now.Year(), now.Month(), now.Day(), m.clock.Hour(), m.clock.Minute(), 0, 0, time.UTC)
		if !at.After(now) {
			at = at.AddDate(0, 0, 1)
		}
		return timestamppb.New(at)
	case !m.at.IsZero():
		return timestamppb.New(m.at)
	}
	return nil
}
