package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

type auditCmd struct {
	Search searchCmd `cmd:"" help:"Search the record, oldest first."`
	Tail   tailCmd   `cmd:"" help:"Watch the record as it grows."`

	Checkpoint checkpointCmd `cmd:"" help:"Print, signed, how the log over the record stands; keep it, and later logs have to go on from it."`
	Witnesses  witnessesCmd  `cmd:"" help:"List who cosigns the log, and since when somebody does not."`
	Export     exportCmd     `cmd:"" help:"Write entries and their proofs to a file, for curfew verify."`
}

type filter struct {
	Grant   string   `placeholder:"ID" help:"Of one grant."`
	Person  string   `placeholder:"NAME" help:"Of one person."`
	Role    string   `placeholder:"NAME" help:"Under one role."`
	Host    string   `placeholder:"NAME" help:"On one host."`
	Path    string   `placeholder:"PATH" help:"Of one program, by its path as the kernel resolved it, or of those under a folder."`
	Outcome string   `enum:",ok,refused,failed" default:"" placeholder:"OUTCOME" help:"What came out: ok, refused or failed."`
	Kind    string   `placeholder:"KIND" help:"Of one kind: exec, exit, setid, connect, open, name, act, privilege, login, logout, refused, gap, installed, removed, leftovers, drift, admin, decision, sign-in, witness, ..."`
	Words   []string `arg:"" optional:"" help:"Words, or beginnings with a * behind them, that all occur in the command line or text."`
}

func (f filter) query() *api.SearchEventsRequest {
	return &api.SearchEventsRequest{
		Grant: f.Grant, Person: f.Person, Host: f.Host, Kind: f.Kind, Words: strings.Join(f.Words, " "),
		Role: f.Role, Path: f.Path, Outcome: f.Outcome,
	}
}

type searchCmd struct {
	filter
	Since when `placeholder:"TIME" help:"Not before: 2027-01-31T14:00:00Z, or 30m, 2h, 7d for so long ago."`
	Until when `placeholder:"TIME" help:"Before."`
	Limit int  `default:"1000" help:"How many at most; 0: all."`
}

// Run pages through what was found.
func (s searchCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	if _, err := p.lookAtLog(ctx, c, &api.GetCheckpointRequest{}); err != nil {
		return err
	}
	q := s.query()
	now := p.clock.Now().Wall
	q.Since, q.Until = s.Since.before(now), s.Until.before(now)
	to := p.events(false)
	shown, more, err := s.pages(ctx, c, q, to)
	if err = errors.Join(err, to.end()); err != nil {
		return err
	}
	switch {
	case more:
		_, err = fmt.Fprintf(p.err, "There is more: curfew audit search --limit 0, or narrow it down.\n")
	case shown == 0 && p.Output == "text":
		_, err = fmt.Fprintln(p.err, "Nothing that you may see is like that.")
	}
	return err
}

// pages prints what was found, page by page, and reports whether the limit
// left some out.
func (s searchCmd) pages(ctx context.Context, c apiconnect.CurfewClient, q *api.SearchEventsRequest, to *eventPrinter) (shown int, more bool, err error) {
	q.Limit = 500
	for {
		r, err := c.SearchEvents(ctx, q)
		if err != nil {
			return shown, false, err
		}
		if text := missing(r.Gaps, r.Lost); text != "" && q.Kind != "gap" {
			_, err := fmt.Fprintf(to.err, "There, %s: curfew audit search --kind gap\n", text)
			if err != nil {
				return shown, false, err
			}
		}
		for _, e := range r.Events {
			if s.Limit > 0 && shown == s.Limit {
				return shown, true, nil
			}
			if err := to.print(e); err != nil {
				return shown, false, err
			}
			shown++
		}
		if q.After = r.Next; r.Next == 0 {
			return shown, false, nil
		}
	}
}

type tailCmd struct {
	filter
}

// Run shows events as they arrive.
func (t tailCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	return p.tail(ctx, c, t.query())
}

// tail goes on where it stopped, or began, when a stream breaks.
func (p *program) tail(ctx context.Context, c apiconnect.CurfewClient, q *api.SearchEventsRequest) error {
	to := p.events(true)
	for {
		s, err := c.TailEvents(ctx, q)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // whoever watched has seen enough
		}
		if err != nil {
			return err
		}
		if q.After == 0 {
			q.After, _ = strconv.ParseUint(s.ResponseHeader().Get(api.After), 10, 64) // a server from before does not say
		}
		for s.Receive() {
			q.After = s.Msg().Id
			if err := to.print(s.Msg()); err != nil {
				return err
			}
		}
		err = s.Err()
		_ = s.Close()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && codeOf(err) != exitError {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.clock.After(time.Second):
		}
	}
}

// source is who tells of an event: a host, or the control plane.
func source(e *api.Event) string {
	if e.Host == "" {
		return "-"
	}
	return e.Host
}

// told is what an event says, on one line.
func told(e *api.Event) string {
	pr := e.Process
	var b strings.Builder
	switch {
	case pr != nil && e.Kind == "exec":
		started(&b, pr)
		if strings.Contains(e.Text, handedOver) {
			fmt.Fprintf(&b, "; %s", e.Text)
		}
	case pr != nil && e.Kind == "privilege":
		fmt.Fprintf(&b, "%s; ", e.Text)
		started(&b, pr)
	case pr != nil && e.Object != "":
		fmt.Fprintf(&b, "[%d] %s %s", pr.Pid, pr.Comm, e.Text)
	case pr != nil && e.Kind == "exit":
		fmt.Fprintf(&b, "[%d] %s exit=%d", pr.Pid, pr.Comm, pr.ExitCode)
		if pr.Signal > 0 {
			fmt.Fprintf(&b, " signal=%d", pr.Signal)
		}
		fmt.Fprintf(&b, " after %v", pr.Lasted.AsDuration().Round(time.Millisecond))
	case pr != nil && e.Kind == "setid":
		fmt.Fprintf(&b, "[%d] %s%s", pr.Pid, pr.Comm, changes(pr.OldIds, pr.Ids))
	case e.Receipt != nil && e.Kind == "leftovers":
		leftovers(&b, e.Receipt)
	case e.Receipt != nil:
		r := e.Receipt
		fmt.Fprintf(&b, "ended (%s); removed %d things, ended %d processes", r.Why, len(r.Removed), r.Killed)
		if len(r.Left) == 0 {
			b.WriteString("; nothing is left")
		} else {
			fmt.Fprintf(&b, "; LEFT: %s", strings.Join(r.Left, "; "))
		}
		b.WriteString(vouched(r))
	case e.Step != "":
		b.WriteString(strings.TrimSpace(e.Request + " " + e.Step + ": " + e.Text))
	default:
		b.WriteString(strings.TrimSpace(e.Service + " " + e.Text))
	}
	if e.Lost > 0 {
		fmt.Fprintf(&b, " (%d events were lost)", e.Lost)
	}
	return b.String()
}

// handedOver begins what a host says of work that goes on outside of the session.
const handedOver = "handed over to"

// started tells of a program: who runs it, from where, and what about it is
// not as usual.
func started(b *strings.Builder, pr *api.Process) {
	fmt.Fprintf(b, "[%d] %s", pr.Pid, strings.Join(pr.Argv, " "))
	if pr.ArgvCut > 0 {
		fmt.Fprintf(b, " … (%d bytes more were not recorded)", pr.ArgvCut)
	}
	fmt.Fprintf(b, "  uid=%d->%d cwd=%s", pr.OldIds.GetEuid(), pr.Ids.GetEuid(), pr.Cwd)
	if pr.Tty != "" {
		fmt.Fprintf(b, " tty=%s", pr.Tty)
	}
	if pr.Script != "" {
		fmt.Fprintf(b, " script=%s", pr.Script)
	}
	if pr.Path != "" && pr.Links == 0 {
		fmt.Fprintf(b, " file=%s, WHICH HAS NO NAME", pr.Path)
	}
	for _, v := range pr.Env {
		if strings.HasPrefix(v, "LD_") || strings.HasPrefix(v, "BASH_ENV=") {
			fmt.Fprintf(b, " %s", v)
		}
	}
}

// leftovers tells what a host found when it looked for what sessions left.
func leftovers(b *strings.Builder, r *api.Receipt) {
	b.WriteString("looked for what its sessions left")
	for _, part := range []struct {
		name string
		what []string
	}{{"LEFT", r.Left}, {"removed", r.Removed}, {"not looked at", r.Skipped}} {
		if len(part.what) > 0 {
			fmt.Fprintf(b, "; %s: %s", part.name, strings.Join(part.what, "; "))
		}
	}
	if len(r.Removed)+len(r.Left) == 0 {
		b.WriteString("; found nothing")
	}
	b.WriteString(vouched(r))
}

func vouched(r *api.Receipt) string {
	if r.SignatureValid {
		return fmt.Sprintf("; signed by %s, key %s", r.Host, r.KeyId)
	}
	return "; THE SIGNATURE DOES NOT HOLD"
}

type timelineCmd struct {
	Grant string `arg:"" help:"A grant, or its request."`
	All   bool   `help:"Also every change of uid and every exit, connections to the host's own services, what is told again each time, and long command lines whole."`
}

// Run tells the story on one page.
func (t timelineCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.Timeline(ctx, &api.TimelineRequest{Grant: t.Grant})
	if err != nil {
		return err
	}
	return p.print(r, func() error { return timeline(p.out, r, t.All) })
}

func timeline(w io.Writer, r *api.TimelineReply, all bool) error {
	q := r.Request
	if q == nil {
		return errors.New("the server told no request")
	}
	_, err := fmt.Fprintf(w, "%s: %s as %s on %s for %s, %q, asked on %s\n\n", line(q.Grant), line(q.Person+named(q.FullName)), line(q.Role),
		line(strings.Join(q.Hosts, ", ")), span(q.Duration.AsDuration()), clean(q.Reason), day(q.AskedAt))
	if err != nil {
		return err
	}
	if text := missing(q.Gaps, q.Lost); text != "" {
		if _, err := fmt.Fprintf(w, "THE RECORD IS NOT WHOLE: %s\n\n", text); err != nil {
			return err
		}
	}
	return moments(w, r.Moments, all)
}

// plumbing are services of the host's own that each login and each sudo talks
// to.
var plumbing = []string{"unix:/run/curfew/", "unix:/run/systemd/journal/", "unix:/run/systemd/userdb/"}

// aside reports whether a page leaves it out.
func aside(m *api.Moment) bool {
	ours := func(prefix string) bool { return strings.HasPrefix(m.Event.GetObject(), prefix) }
	return m.What == "setid" || m.What == "exit" || m.What == "connect" && slices.ContainsFunc(plumbing, ours)
}

// moments prints one on a line, and what is told again right after the first
// time on the same one.
func moments(w io.Writer, all []*api.Moment, whole bool) error {
	row, times, left := "", 0, 0
	flush := func() (err error) {
		if times > 1 {
			row += fmt.Sprintf("  (%d times)", times)
		}
		if times > 0 {
			_, err = fmt.Fprintln(w, row)
		}
		return err
	}
	before, on := "", ""
	if len(all) > 0 {
		on = day(all[0].At) // which stands above
	}
	for _, m := range all {
		if !whole && aside(m) {
			left++
			continue
		}
		said := happened(m, whole)
		if !whole && said == before && day(m.At) == on {
			times++
			continue
		}
		if err := errors.Join(flush(), dayLine(w, &on, m.At)); err != nil {
			return err
		}
		row, before, times = fine(m.At)+"  "+said, said, 1
	}
	if err := flush(); err != nil || left == 0 {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d exits, changes of uid and connections to the host's own services are left out: --all\n", left)
	return err
}

// happened is what one says, but for when.
func happened(m *api.Moment, whole bool) string {
	text := m.Text
	if m.Event != nil {
		text = short(told(m.Event), whole || m.Event.Receipt != nil) // what a host signed is told whole
	}
	if m.Took != nil {
		text = strings.TrimSpace(fmt.Sprintf("%s (%d ms)", text, m.Took.AsDuration().Milliseconds()))
	}
	return fmt.Sprintf("%-10s %-8s %-8s %s", line(m.What), line(m.Host), line(m.Person), line(text))
}

// missing says how much of a record is not there.
func missing(gaps, lost uint64) string {
	if gaps == 0 {
		return ""
	}
	return fmt.Sprintf("%d events are missing, in %d gaps", lost, gaps)
}

// page is how much of one event a timeline shows, which is to be one page.
const page = 400

// short cuts what one event says, and says so.
func short(text string, all bool) string {
	if all || len(text) <= page {
		return text
	}
	return fmt.Sprintf("%s … (%d bytes more: --all)", strings.ToValidUTF8(text[:page], ""), len(text)-page)
}

// changes tells which ids are other than they were.
func changes(old, ids *api.IDs) string {
	var b strings.Builder
	for _, c := range []struct {
		name     string
		was, now uint32
	}{
		{"uid", old.GetUid(), ids.GetUid()},
		{"euid", old.GetEuid(), ids.GetEuid()},
		{"gid", old.GetGid(), ids.GetGid()},
		{"egid", old.GetEgid(), ids.GetEgid()},
	} {
		if c.was != c.now {
			fmt.Fprintf(&b, " %s=%d->%d", c.name, c.was, c.now)
		}
	}
	if old.GetCaps() != ids.GetCaps() {
		fmt.Fprintf(&b, " caps=%x->%x", old.GetCaps(), ids.GetCaps())
	}
	return b.String()
}
