package man

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

type asked struct {
	Role string `arg:"" help:"The role."`
	Why  string `placeholder:"TEXT" help:"The reason; it's kept."`
}

type program struct {
	Ask    asked   `cmd:"" help:"Ask for a role."`
	Man    Command `cmd:"" hidden:"" help:"No reader wants this."`
	Output string  `short:"o" env:"HOW" help:"How to print."`
}

func TestPage(t *testing.T) {
	k, err := kong.New(&program{}, kong.Name("asker"), kong.Description("Asks for things.\n\n  asker ask x\n\n.hidden at the start of a line"))
	if err != nil {
		t.Fatal(err)
	}
	got := Command{Section: "1", Source: "Asker 1", Date: "2026-11-23"}.Page(k.Model)
	for _, want := range []string{
		`.TH "ASKER" "1" "2026-11-23" "Asker 1"`,
		`asker \- Asks for things`,
		".nf\n  asker ask x\n",
		"\n\\&.hidden at",
		`.SS "asker ask <role>"`,
		`\fB\-\-why\fR=\fITEXT\fR`,
		`it\(aqs kept`,
		`\fB\-o\fR, \fB\-\-output\fR=`,
		"From the environment: $HOW.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "No reader") {
		t.Errorf("a hidden command is shown:\n%s", got)
	}
}
