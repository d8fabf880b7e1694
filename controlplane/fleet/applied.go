package fleet

import (
	"context"
	"reflect"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/uplink"
)

// staleAfter is how old the time of a host's report may become in the store
// where nothing else in it changes: each is a write.
const staleAfter = time.Hour

// A report is what a host said last, and when that was kept.
type report struct {
	roster.Report
	at time.Time
}

// applied takes what the host made of its set.
func (st *stream) applied(ctx context.Context, a *uplink.Applied) error {
	now := st.Clock.Now().Wall
	r := reported(a, now)
	if r.Refused != "" {
		st.Log.ErrorContext(ctx, "alert: host refused its grant set", "host", st.host.Name, "kept", r.Revision, "why", r.Refused)
	}
	was := st.told.Access
	if st.told.at.IsZero() {
		was = st.host.Access
	}
	if was != "" && was != r.Access {
		st.Log.ErrorContext(ctx, "alert: host deals otherwise with sudo and su without a grant", "host", st.host.Name, "before", was, "now", r.Access)
	}
	if a.GetAsk() != 0 {
		say(st.asks, a.GetAsk())
	}
	if same(st.told.Report, r) && now.Sub(st.told.at) < staleAfter {
		return nil
	}
	if err := st.Store.Applied(ctx, st.host.Name, r, now); err != nil {
		return err
	}
	st.told = report{r, now}
	return nil
}

// same reports whether both say the same, whenever the doctor looked.
func same(a, b roster.Report) bool {
	a.Examined, b.Examined = time.Time{}, time.Time{}
	return reflect.DeepEqual(a, b)
}

// reported is what the host says, as far as it can be kept and shown. It
// cannot have looked at itself in the future.
func reported(a *uplink.Applied, now time.Time) roster.Report {
	r := roster.Report{
		Revision: a.GetRevision(), Refused: printable(a.GetRefused()), Settled: a.GetSettled(),
		Unwired: cleanLines(a.GetUnwired()), Access: access(a.GetAccess()),
	}
	if x := a.GetDoctor(); x != nil {
		r.Examined, r.Findings = time.Unix(0, x.GetAt()).UTC(), cleanFindings(x.GetFindings())
		if r.Examined.After(now) {
			r.Examined = now.UTC()
		}
	}
	return r
}
