package web

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/wire/api"
)

// stamp is an instant as people read it; programs read it in the element.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return t.AsTime().UTC().Format("2 Jan 2006, 15:04:05 UTC")
}

// span is a length of time in words: 2 hours 30 minutes.
func span(d time.Duration) string {
	var parts []string
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		n := d / u.of
		if n == 0 {
			continue
		}
		d %= u.of
		name := u.name
		if n != 1 {
			name += "s"
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, name))
	}
	if len(parts) == 0 {
		return "no time"
	}
	return strings.Join(parts, " ")
}

// lately is a length of time in words, to the minute.
func lately(d time.Duration) string {
	if d < time.Minute {
		return "less than a minute"
	}
	return span(d.Truncate(time.Minute))
}

// proofWords tell on which earlier proof a request stands.
func proofWords(r *api.Request) string {
	what := "an " + r.Proof.For
	if r.Proof.For == "request" {
		what = "an earlier request"
	}
	return fmt.Sprintf("None of its own: proved with %s %s before, for %s", r.Proof.Factor, lately(r.AskedAt.AsTime().Sub(r.Proof.At.AsTime())), what)
}

// left is how long it is to t, to the minute while there are some.
func left(now time.Time, t *timestamppb.Timestamp) string {
	d := t.AsTime().Sub(now)
	if d <= 0 {
		return "no time"
	}
	return lately(d)
}

// allowed is what a role lets somebody do.
type allowed struct {
	Commands  []string
	RunAs     []string
	Network   []string
	NoExec    bool
	Unguarded bool
	Drain     time.Duration
	Audit     string // what a gap in its record does
	Terminals string // what of them is recorded, as the API says it
}

func allowedBy(r *api.Request) allowed {
	return allowed{r.Commands, r.RunAs, r.Network, r.NoExec, r.Unguarded, r.Drain.AsDuration(), r.Audit, r.Terminals}
}

// terminals says what of a session's terminal is recorded. The API's word is
// one, with ", required" behind it where a role demands it.
func terminals(recorded string) []string {
	what, required := strings.CutSuffix(recorded, ", required")
	var all []string
	switch what {
	case "output":
		all = append(all, "What her terminals show is recorded")
	case "output and input":
		all = append(all, "What her terminals show is recorded, and what she types while it shows")
	case "none":
		all = append(all, "What her terminals show is not recorded; which programs run is")
	}
	if required {
		all = append(all, "Nothing of it goes without a terminal that is recorded")
	}
	return all
}

// words says what a role lets somebody do, the most dangerous first.
func words(a allowed) []string {
	var all []string
	as := strings.Join(a.RunAs, " or ")
	if as == "" {
		as = "root"
	}
	switch {
	case slices.Contains(a.Commands, "ALL"):
		all = append(all, "Any command at all, as "+as+": full control of the host until the end")
	case len(a.Commands) == 0:
		all = append(all, "Log in, and no command with more rights than her own account's")
	case len(a.Commands) == 1:
		all = append(all, "One command, as "+as+", and nothing else with more rights")
	default:
		all = append(all, fmt.Sprintf("These %d commands, as %s, and nothing else with more rights", len(a.Commands), as))
	}
	if a.Unguarded {
		all = append(all, "What runs may take Curfew itself away: what happens after that is not certain to be recorded")
	}
	all = append(all, terminals(a.Terminals)...)
	switch a.Audit {
	case "end":
		all = append(all, "A gap in the record ends what runs")
	case "alert":
		all = append(all, "A gap in the record is an alert")
	}
	if a.NoExec {
		all = append(all, "What runs may not start other programs")
	}
	if len(a.Network) > 0 {
		all = append(all, "Her account may connect to "+strings.Join(a.Network, ", ")+" and nowhere else")
	}
	if a.Drain > 0 {
		all = append(all, "What runs at the end may go on for "+span(a.Drain)+"; nothing new begins")
	} else {
		all = append(all, "At the end, what runs is ended at once")
	}
	return all
}

// stateWords says what a request's state means to its readers.
func stateWords(s string) string {
	words := map[string]string{
		"asked": "waits for approval", "issued": "granted", "denied": "denied", "withdrawn": "withdrawn",
		"lapsed": "lapsed", "ended": "ended", "revoked": "revoked",
	}
	if w, ok := words[s]; ok {
		return w
	}
	return s
}

// hostWords says what a host's last word about a grant means.
func hostWords(s string) string {
	words := map[string]string{
		"sent": "being put in place", "installed": "in place: it can be used", "removed": "taken away, and the host signed that nothing is left",
		"never-installed": "never got there", "unconfirmed": "over, but the host has not signed that nothing is left", "offline": "not connected",
	}
	if w, ok := words[s]; ok {
		return w
	}
	return s
}

// accessWords says what a host does with sudo and su without a grant.
func accessWords(s string) string {
	switch s {
	case "observe":
		return "without a grant: recorded, and let through"
	case "enforce":
		return "without a grant: refused"
	}
	return "without a grant: not known"
}

// missing says how much of what was done is not in the record.
func missing(q *api.Request) string {
	if q.Gaps == 0 {
		return ""
	}
	return fmt.Sprintf("The record is not whole: %d events are missing, in %d gaps", q.Lost, q.Gaps)
}
