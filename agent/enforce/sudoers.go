package enforce

import (
	"strings"

	"curfew.internal/grant"
)

// escape writes an argument so that sudo reads it literally (sudoers(5),
// "Other special characters and reserved words").
var escape = strings.NewReplacer(`,`, `\,`, `:`, `\:`, `=`, `\=`, `\`, `\\`, `#`, `\#`)

// Sudoers is the grant's sudo rule, or nothing for a role without commands.
// NOTAFTER makes sudo itself refuse at the end, with all of ours dead.
// NOTBEFORE is not used: sudo 1.9.15 to 1.9.17p2 ignores it beside NOTAFTER;
// the rule is installed at its start instead.
func Sudoers(g grant.Grant) string {
	var commands []string
	for _, c := range g.Role.Commands {
		commands = append(commands, command(c))
	}
	if g.Role.AnyCommand {
		commands = []string{"ALL"}
	}
	if len(commands) == 0 || len(g.Role.RunAs) == 0 {
		return ""
	}
	tags := "NOPASSWD: "
	if g.Role.NoExec {
		tags += "NOEXEC: "
	}
	var b strings.Builder
	b.WriteString("# curfew " + g.ID + ": the agent writes and removes this file\n")
	b.WriteString(g.Person.Name + " ALL=(" + strings.Join(g.Role.RunAs, ",") + ") ")
	b.WriteString("NOTAFTER=" + g.NotAfter.UTC().Format("20060102150405") + "Z ")
	b.WriteString(tags + strings.Join(commands, ", ") + "\n")
	return b.String()
}

// command is one command of a rule. In sudoers a path alone allows any
// arguments, and "" allows none.
func command(c grant.Command) string {
	words := []string{escape.Replace(c.Path)}
	switch {
	case c.AnyArgs:
	case len(c.Args) == 0:
		words = append(words, `""`)
	default:
		for _, a := range c.Args {
			words = append(words, escape.Replace(a))
		}
	}
	return strings.Join(words, " ")
}
