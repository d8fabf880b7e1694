package uplink

import (
	"testing"
	"time"

	"curfew.internal/wire/uplink"
)

// That the doctor has looked again and found the same is told once an hour:
// each word is a write of the control plane's.
func TestTheSameWordIsNotToldAgain(t *testing.T) {
	said := func(at time.Duration, says ...string) *uplink.Applied {
		x := &uplink.Examination{At: int64(at)}
		for _, s := range says {
			x.Findings = append(x.Findings, &uplink.Finding{Check: "disk", Says: s})
		}
		return &uplink.Applied{Revision: 1, Settled: true, Access: "observe", Doctor: x}
	}
	unsettled := said(time.Hour, "full")
	unsettled.Settled = false
	for _, c := range []struct {
		name      string
		told, now *uplink.Applied
		same      bool
	}{
		{"it looked again", said(time.Hour, "full"), said(70*time.Minute, "full"), true},
		{"it looked again, an hour later", said(time.Hour, "full"), said(2*time.Hour, "full"), false},
		{"a clock that was set back an hour", said(2*time.Hour, "full"), said(time.Hour, "full"), false},
		{"it found something else", said(time.Hour, "full"), said(time.Hour, "fuller"), false},
		{"it found nothing more", said(time.Hour, "full"), said(time.Hour), false},
		{"it has looked", &uplink.Applied{Revision: 1, Settled: true, Access: "observe"}, said(time.Minute), false},
		{"it has not looked, still", &uplink.Applied{Ask: 1}, &uplink.Applied{Ask: 2}, true},
		{"a pass left something to do", said(time.Hour, "full"), unsettled, false},
	} {
		if got := sameApplied(c.told, c.now); got != c.same {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
