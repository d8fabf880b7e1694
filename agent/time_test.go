package agent

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestClocksAreComparedByWhatIsKnown(t *testing.T) {
	const old = time.Duration(math.MaxInt64)
	w := newWorld()
	a := w.agent(t)
	for _, c := range []struct {
		name string
		at   time.Duration // what the control plane's clock said, from this host's
		age  time.Duration
		says string
	}{
		{"words that may be old say nothing of a clock that is ahead", -time.Hour, old, ""},
		{"an answer does", -time.Hour, time.Second, "1h0m0s ahead"},
		{"words that may be old do not take that back", 0, old, "1h0m0s ahead"},
		{"an answer that took its time has no say", 0, time.Minute, "1h0m0s ahead"},
		{"an answer at once takes it back", 0, time.Second, ""},
		{"old words say that a clock is behind", time.Hour, old, "1h0m0s behind"},
		{"and that it was set right", 0, old, ""},
	} {
		a.Told(t.Context(), w.now.Add(c.at), c.age)
		if got := a.ClockText(); !strings.Contains(got, c.says) || (got == "") != (c.says == "") {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
