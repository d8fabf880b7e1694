package agent

import (
	"slices"
	"strings"
)

// Options of sudo(8): those that leave the command what it is, alone or with a
// value, and those that make it a shell. With any other, what sudo runs is not
// what stands there (-e), or it runs nothing (-l, -v), or we do not know.
const (
	sudoFlags  = "ABbEHknNPS"
	sudoValued = "CDgpRrTtu"
	sudoShells = "is"
	// What no rule of ours permits, whatever the command.
	sudoOdd = "CDgRrTt"
)

var (
	sudoLongFlags = map[string]byte{
		"askpass": 'A', "bell": 'B', "background": 'b', "set-home": 'H', "non-interactive": 'n', "no-update": 'N', "preserve-env": 'E',
		"preserve-groups": 'P', "reset-timestamp": 'k', "stdin": 'S', "login": 'i', "shell": 's',
	}
	sudoLongValued = map[string]byte{
		"close-from": 'C', "chdir": 'D', "group": 'g', "prompt": 'p', "chroot": 'R', "role": 'r', "command-timeout": 'T', "type": 't', "user": 'u',
	}
)

// A SudoCall is what somebody typed behind sudo.
type SudoCall struct {
	Known bool     // we know what each option means, and something is to be run
	Words []string // the program and its arguments; with Shell, what the shell is given
	User  string   // whom to run it as; root
	Shell bool     // -i, -s
	Env   bool     // she wants to set the environment: only who may run anything may
	Quiet bool     // -n
	Odd   string   // an option that no rule of ours permits
}

// ReadSudo reads sudo's arguments as sudo does.
func ReadSudo(args []string) SudoCall {
	c := SudoCall{User: "root"}
	for i := 0; i < len(args); i++ {
		w := args[i]
		if w == "--" {
			return c.end(args[i+1:])
		}
		if w != "" && w[0] != '-' && w[0] != '/' && strings.Contains(w, "=") {
			c.Env = true // a variable for the command
			continue
		}
		if len(w) < 2 || w[0] != '-' {
			return c.end(args[i:])
		}
		option, value, known := c.option(w)
		if !known {
			return SudoCall{}
		}
		if option == 0 {
			continue // no value follows
		}
		if value == "" {
			if i++; i == len(args) {
				return SudoCall{}
			}
			value = args[i]
		}
		if option == 'u' {
			c.User = value
		}
	}
	return c.end(nil)
}

func (c SudoCall) end(words []string) SudoCall {
	c.Words, c.Known = slices.Clone(words), len(words) > 0 || c.Shell
	return c
}

// option notes what the option says. If one of those that have a value is
// among them, it is returned, with the value if that stands in the same word.
func (c *SudoCall) option(w string) (valued byte, value string, known bool) {
	if name, long := strings.CutPrefix(w, "--"); long {
		name, value, given := strings.Cut(name, "=")
		if o, ok := sudoLongValued[name]; ok {
			c.note(o, w)
			if given && value == "" {
				return 0, "", false
			}
			return o, value, true
		}
		o, ok := sudoLongFlags[name]
		c.note(o, w)
		return 0, "", ok && (!given || o == 'E')
	}
	for i := 1; i < len(w); i++ {
		c.note(w[i], w[:i+1])
		switch {
		case strings.IndexByte(sudoFlags+sudoShells, w[i]) >= 0:
		case strings.IndexByte(sudoValued, w[i]) >= 0:
			return w[i], w[i+1:], true
		default:
			return 0, "", false
		}
	}
	return 0, "", true
}

func (c *SudoCall) note(o byte, spelled string) {
	c.Shell = c.Shell || strings.IndexByte(sudoShells, o) >= 0
	c.Env = c.Env || o == 'E'
	c.Quiet = c.Quiet || o == 'n'
	if strings.IndexByte(sudoOdd, o) >= 0 {
		c.Odd = spelled
	}
}
