package forward

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// gravity is how much an event asks to be looked at.
type gravity int

const (
	plain   gravity = iota // as it should be
	notable                // who or what the fleet is was changed
	warning                // somebody was refused, or something is missing
	grave                  // something is not as the control plane wants it
)

func gravityOf(v roster.Event) gravity {
	switch v.Outcome() {
	case roster.Failed:
		if v.Entry.Kind == ledger.Exit && v.Kind != roster.Malformed {
			return plain // programs fail all day
		}
		if v.Entry.Kind == ledger.Gap {
			return warning
		}
		return grave
	case roster.Refused:
		if v.Entry.Kind == ledger.SetRefused {
			return grave
		}
		return warning
	}
	switch v.Entry.Kind { //nolint:exhaustive // the others are plain
	case ledger.Drift, ledger.Privilege:
		return warning
	case ledger.Admin, ledger.Act:
		return notable
	}
	return plain
}

// sentence is what an event says, on one line.
func sentence(v roster.Event) string {
	e := v.Entry
	var b strings.Builder
	b.WriteString(v.Kind)
	if e.Person != "" {
		b.WriteString(" by " + e.Person)
	}
	if v.Host != "" {
		b.WriteString(" on " + v.Host)
	}
	for _, s := range []string{e.Service, strings.TrimSpace(e.Request + " " + e.Step), e.Object, e.Text} {
		if s != "" {
			b.WriteString(": " + s)
		}
	}
	if p := e.Process; p != nil {
		switch e.Kind { //nolint:exhaustive // the others name the process alone
		case ledger.Exec:
			fmt.Fprintf(&b, ": [%d] %s", p.PID, command(p))
		case ledger.Exit:
			fmt.Fprintf(&b, ": [%d] %s exit=%d signal=%d", p.PID, p.Comm, p.ExitCode, p.Signal)
		default:
			fmt.Fprintf(&b, ": [%d] %s", p.PID, p.Comm)
		}
	}
	if e.Lost > 0 {
		fmt.Fprintf(&b, ": %d events are missing", e.Lost)
	}
	return oneLine(b.String())
}

// command is a process's command line; what was not recorded of it is counted.
func command(p *ledger.Process) string {
	s := strings.Join(p.Argv, " ")
	if s == "" {
		s = p.Path
	}
	if p.ArgvCut > 0 {
		s += fmt.Sprintf(" … (%d bytes more were not recorded)", p.ArgvCut)
	}
	return s
}

// oneLine keeps a hostile argument from looking like a line of its own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
}

const (
	// maxText and maxArgs keep what is posted of one event under the megabyte
	// that many receivers take at most: one that takes none of an event would
	// have to be asked for ever, and got nothing that came after.
	maxText, maxArgs = 8 << 10, 32 << 10
	maxNames         = 64
)

// short is an event with long texts and command lines cut.
func short(v roster.Event) roster.Event {
	e := &v.Entry
	for _, s := range []*string{&v.Host, &v.Role, &e.Boot, &e.Grant, &e.Person, &e.Service, &e.Text, &e.Request, &e.Step, &e.Object} {
		*s = cut(*s, maxText)
	}
	e.Approvers = e.Approvers[:min(len(e.Approvers), maxNames)]
	if e.Process == nil {
		return v
	}
	p := *e.Process
	e.Process = &p
	for _, s := range []*string{&p.Comm, &p.Path, &p.Cwd, &p.TTY} {
		*s = cut(*s, maxText)
	}
	all, room := p.Argv, maxArgs
	for i, a := range all {
		const perArgument = 8 // an empty one takes room, too
		if room -= perArgument + len(a); room >= 0 {
			continue
		}
		left := 0
		for _, b := range all[i:] {
			left += 1 + len(b)
		}
		p.Argv = append(slices.Clone(all[:i]), cut(a, max(0, room+len(a))), fmt.Sprintf("… (%d arguments, of %d bytes, from here on, are whole in the record)", len(all)-i, left))
		break
	}
	return v
}

// cut bounds a text, and says by how much it is short.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s … (%d bytes more in the record)", strings.ToValidUTF8(s[:most], ""), len(s)-most)
}
