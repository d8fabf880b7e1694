// Package man writes a program's manual page from the model of its command
// line, so that the page says what the program takes.
//
// It describes commands that are shown in the help, and no others.
package man

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Command is a hidden command of each program; the build of the packages
// calls it.
type Command struct {
	Section string `arg:"" help:"The section of the manual."`
	Source  string `arg:"" help:"What the page belongs to, such as Curfew 1.0."`
	Date    string `arg:"" help:"The day of the page."`
}

// Run prints the page.
func (c Command) Run(k *kong.Context) error {
	_, err := io.WriteString(k.Stdout, c.Page(k.Model))
	return err
}

// Page is the manual page of a program, for man(7).
func (c Command) Page(app *kong.Application) string {
	p := &page{}
	p.line(".TH %q %q %q %q", strings.ToUpper(app.Name), c.Section, c.Date, c.Source)
	about, rest, _ := strings.Cut(app.Help, "\n")
	p.line(".SH NAME")
	p.line(`%s \- %s`, escape(app.Name), escape(strings.TrimRight(about, ".")))
	p.line(".SH SYNOPSIS")
	p.line(".B %s", escape(app.Name))
	p.line(".I command")
	p.line("[\\fIargument\\fR ...] [\\fIflag\\fR ...]")
	p.line(".SH DESCRIPTION")
	p.text(about + "\n" + rest)
	p.line(".SH COMMANDS")
	for _, n := range app.Leaves(true) {
		p.command(n)
	}
	p.line(".SH FLAGS OF EVERY COMMAND")
	p.flags(app.Flags)
	return p.String()
}

type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { _, _ = fmt.Fprintf(p, format+"\n", args...) }

// command describes one command.
func (p *page) command(n *kong.Node) {
	words := n.FullPath()
	for _, a := range n.Positional {
		words += " " + a.Summary()
	}
	p.line(".SS %q", escape(words))
	p.text(n.Help)
	if n.Detail != "" {
		p.line(".PP")
		p.text(n.Detail)
	}
	for _, a := range n.Positional {
		if a.Help != "" {
			p.item(`\fI`+escape(a.Name)+`\fR`, a.Help)
		}
	}
	p.flags(n.Flags)
}

func (p *page) flags(flags []*kong.Flag) {
	for _, f := range flags {
		if f.Hidden {
			continue
		}
		name := `\fB` + escape("--"+f.Name) + `\fR`
		if f.Short != 0 {
			name = `\fB` + escape("-"+string(f.Short)) + `\fR, ` + name
		}
		if !f.IsBool() {
			name += `=\fI` + escape(f.FormatPlaceHolder()) + `\fR`
		}
		help := f.Help
		if len(f.Envs) > 0 {
			help += " From the environment: $" + strings.Join(f.Envs, ", $") + "."
		}
		p.item(name, help)
	}
}

func (p *page) item(name, help string) {
	p.line(".TP")
	p.line("%s", name)
	p.text(help)
}

// text keeps indented lines as they are and lets the others flow.
func (p *page) text(s string) {
	kept := false
	for line := range strings.Lines(strings.TrimSpace(s)) {
		line = strings.TrimRight(line, "\n")
		if indented := strings.HasPrefix(line, "  "); indented != kept && line != "" {
			kept = indented
			p.line("%s", map[bool]string{true: ".PP\n.nf", false: ".fi"}[kept])
		}
		if line == "" && !kept {
			p.line(".PP")
			continue
		}
		p.line("%s", escape(line))
	}
	if kept {
		p.line(".fi")
	}
}

// escape makes text that troff takes for text.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "'", `\(aq`, `"`, `\(dq`, "\t", "    ").Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}
