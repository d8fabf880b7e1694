package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/wire/api"
)

// clean makes text from others safe for a terminal: what would act on it, or
// hides, is shown as its code point.
func clean(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || unicode.IsPrint(r) && !unicode.Is(unicode.Cf, r) {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, "\\u{%x}", r)
	}
	return b.String()
}

// line is clean text on one line.
func line(s string) string { return clean(strings.ReplaceAll(s, "\n", `\n`)) }

func stamp(t time.Time) string {
	if t.IsZero() || t.Unix() == 0 {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func at(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return stamp(t.AsTime())
}

func fine(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format("15:04:05.000") }

func day(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format(time.DateOnly) }

// dayLine begins a day, if what follows is of another than what stands before.
func dayLine(w io.Writer, last *string, t *timestamppb.Timestamp) error {
	if day(t) == *last {
		return nil
	}
	*last = day(t)
	_, err := fmt.Fprintf(w, "--- %s\n", *last)
	return err
}

// span writes a duration without its zero parts: 2h, 90s as 1m30s.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// table prints rows in columns, under a head.
func table(w io.Writer, head string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if _, err := fmt.Fprintln(t, strings.ReplaceAll(head, " ", "\t")); err != nil {
		return err
	}
	for _, r := range rows {
		for i := range r {
			r[i] = line(r[i])
		}
		if _, err := fmt.Fprintln(t, strings.Join(r, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// stateOn is what a host last said of a grant.
func stateOn(h *api.HostState, grant string) string {
	text := h.State + " " + at(h.At)
	if h.State == "unconfirmed" {
		text = "ENDED, UNCONFIRMED since " + at(h.At)
	}
	if len(h.Left) > 0 {
		text += ", left: " + strings.Join(h.Left, "; ")
	}
	if n := len(h.Leftovers); n > 0 {
		text += fmt.Sprintf(", %d leftovers of sessions: %s", n, strings.Join(h.Leftovers[:min(n, 5)], "; "))
		if n > 5 {
			text += "; ... (curfew timeline " + grant + ")"
		}
	}
	return text
}

// describe prints who, what, where, how long and why: all that there is to
// decide on.
func describe(w io.Writer, r *api.Request) error {
	rows := [][2]string{
		{"request", r.Id},
		{"state", r.State},
		{"who", r.Person + named(r.FullName)},
		{"role", r.Role},
		{"on", strings.Join(r.Hosts, ", ")},
		{"for", span(r.Duration.AsDuration())},
		{"why", r.Reason},
	}
	add := func(k, v string) {
		if v != "" {
			rows = append(rows, [2]string{k, v})
		}
	}
	if r.Start != nil {
		add("from", at(r.Start)+", or when it is approved if that is later")
	}
	if r.Drain != nil {
		add("drains", "what runs at the end may go on for "+span(r.Drain.AsDuration()))
	}
	if r.Unguarded {
		add("guard", "none: what runs may switch Curfew off on the host")
	}
	add("record", map[string]string{"end": "required: a gap in it ends the session", "alert": "required: a gap in it is an alert"}[r.Audit])
	add("terminals", terminals(r.Terminals))
	if r.HumanSignatures {
		add("signed", "by people's own passkeys, which hosts check: "+r.Page)
	}
	add("ticket", r.Ticket)
	add("asked from", r.Source)
	if r.Proof != nil {
		add("proof", "none of its own: proved "+proof(r))
	}
	add("more approve", because(r.Doubts))
	if o := r.Origin; o != nil {
		add("asked in", fmt.Sprintf("a shell on %s, session %s", o.Host, o.Session))
		add("to run", fmt.Sprintf("as %s says, %s in %s", o.Host, o.Command, o.Directory))
	}
	add("may run", strings.Join(r.Commands, "; "))
	add("as", strings.Join(r.RunAs, ", "))
	rows = append(rows, [2]string{"asked", at(r.AskedAt)})
	for _, a := range r.Approvals {
		add("approved", strings.TrimSpace(fmt.Sprintf("%s by %s with %s %s", at(a.At), a.Person+inPlace(a.InPlaceOf), a.Factor, a.Note))+less(a))
	}
	for _, m := range r.Remarks {
		add("said", fmt.Sprintf("%s by %s: %s", at(m.At), m.Person, m.Text))
	}
	if r.State == "asked" {
		add("needs", r.WaitsFor)
		add("you approve", strings.Trim(inPlace(r.InPlaceOf), ", "))
		add("waits until", at(r.LapsesAt))
	}
	if r.DecidedBy != "" {
		add(r.State+" by", strings.TrimSpace(r.DecidedBy+" "+r.DecisionNote))
	}
	if r.Grant != "" {
		add("grant", r.Grant)
		add("stands", at(r.NotBefore)+" to "+at(r.NotAfter))
	}
	add("record", missing(r.Gaps, r.Lost))
	for _, h := range r.HostStates {
		add("on "+h.Host, stateOn(h, r.Grant))
	}
	for _, row := range rows {
		if _, err := fmt.Fprintf(w, "%-12s %s\n", line(row[0]), line(row[1])); err != nil {
			return err
		}
	}
	return nil
}

// because says why steps of the approval were asked that are not always.
func because(doubts []*api.Doubt) string {
	var all []string
	for _, d := range doubts {
		all = append(all, "because "+d.Because)
	}
	return strings.Join(all, "; and ")
}

// inPlace says whose word an approval is, if it is not its giver's.
func inPlace(of string) string {
	if of == "" {
		return ""
	}
	return ", in place of " + of + ","
}

// less says what an approval is for, if that is less than what was asked for.
func less(a *api.Approval) string {
	text := ""
	if a.Duration != nil {
		text += ", only for " + span(a.Duration.AsDuration())
	}
	if len(a.Hosts) > 0 {
		text += ", only on " + strings.Join(a.Hosts, ", ")
	}
	return text
}

// terminals says what of them is recorded. An older control plane does not.
func terminals(recorded string) string {
	switch what, required := strings.CutSuffix(recorded, ", required"); {
	case what == "":
		return ""
	case what == "none":
		return "what they show is not recorded"
	case required:
		return "recorded (" + what + "); nothing goes without"
	default:
		return "recorded (" + what + ")"
	}
}

func named(full string) string {
	if full == "" {
		return ""
	}
	return " (" + full + ")"
}
