package main

import (
	"encoding/csv"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/wire/api"
)

// prints reports whether the command has the form that is asked for.
func (g globals) prints(command string) bool {
	return g.Output == "text" || g.Output == "json" || strings.HasPrefix(command, "audit search") || strings.HasPrefix(command, "audit tail")
}

// An eventPrinter prints events, one after the other, as they are to be
// printed.
type eventPrinter struct {
	*program
	form string
	csv  *csv.Writer
	n    int
	day  string // of the last line of text
}

// events prints what is found, or, without an end, what comes.
func (p *program) events(endless bool) *eventPrinter {
	e := &eventPrinter{program: p, form: p.Output}
	if e.form == "json" && endless {
		e.form = "ndjson" // a list without an end helps nobody
	}
	if e.form == "csv" {
		e.csv = csv.NewWriter(p.out)
	}
	if e.form == "text" {
		e.day = day(timestamppb.New(p.clock.Now().Wall)) // what is of today needs no day
	}
	return e
}

func (p *eventPrinter) print(e *api.Event) error {
	p.n++
	switch p.form {
	case "csv":
		return p.cells(e)
	case "text":
		return p.text(e)
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(e)
	if err != nil {
		return err
	}
	before, after := "", "\n"
	if p.form == "json" {
		before, after = ",\n", ""
		if p.n == 1 {
			before = "[\n"
		}
	}
	_, err = fmt.Fprint(p.out, before, string(b), after)
	return err
}

// end closes what print opened.
func (p *eventPrinter) end() error {
	switch {
	case p.form == "csv" && p.n == 0:
		return p.head() // a table, if an empty one
	case p.form != "json":
		return nil
	}
	text := "\n]\n"
	if p.n == 0 {
		text = "[]\n"
	}
	_, err := fmt.Fprint(p.out, text)
	return err
}

func (p *eventPrinter) text(e *api.Event) error {
	who := e.Person
	if len(e.Approvers) > 0 {
		who += " (by " + strings.Join(e.Approvers, ",") + ")"
	}
	if err := dayLine(p.out, &p.day, e.At); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.out, "%s %-6s %-20s %-16s %-9s %s\n", fine(e.At), line(source(e)), line(e.Grant), line(who), line(e.Kind), line(told(e)))
	return err
}

var columns = []string{
	"id", "at", "host", "kind", "outcome", "person", "approvers", "grant", "role", "request", "step", "service", "session", "session_seq",
	"pid", "uid", "path", "command", "cwd", "exit_code", "lost", "text",
}

// head prints the columns' names.
func (p *eventPrinter) head() error {
	if err := p.csv.Write(columns); err != nil {
		return err
	}
	p.csv.Flush()
	return p.csv.Error()
}

// cells prints a line of CSV, the first with the columns' names before it.
func (p *eventPrinter) cells(e *api.Event) error {
	if p.n == 1 {
		if err := p.head(); err != nil {
			return err
		}
	}
	all := []string{
		strconv.FormatUint(e.Id, 10), e.At.AsTime().Format(time.RFC3339Nano), e.Host, e.Kind, e.Outcome, e.Person, strings.Join(e.Approvers, ","), e.Grant, e.Role,
		e.Request, e.Step, e.Service, some(e.Session, 16), some(e.SessionSeq, 10), "", "", "", "", "", "", some(e.Lost, 10), e.Text,
	}
	if pr := e.Process; pr != nil {
		copy(all[14:], []string{
			strconv.FormatUint(uint64(pr.Pid), 10), strconv.FormatUint(uint64(pr.Ids.GetEuid()), 10), pr.Path, strings.Join(pr.Argv, " "), pr.Cwd, "",
		})
		if e.Kind == "exit" {
			all[19] = strconv.FormatUint(uint64(pr.ExitCode), 10)
		}
	}
	for i, s := range all {
		all[i] = cell(s)
	}
	if err := p.csv.Write(all); err != nil {
		return err
	}
	p.csv.Flush()
	return p.csv.Error()
}

func some(n uint64, base int) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, base)
}

// formula begins a cell that a spreadsheet calculates. Where it takes semicolons
// for the end of a cell, as with a decimal comma, that may be in the middle of
// ours; what it takes for a space or a quote, it leaves out before.
var formula = regexp.MustCompile(`(^|;)([\s"']*[=+\-@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}])`)

// cell keeps a hostile argument from being a line or a formula of its own in
// a spreadsheet.
func cell(s string) string { return formula.ReplaceAllString(line(s), "${1}'${2}") }
