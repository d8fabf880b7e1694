package agent

import (
	"slices"
	"strings"

	"curfew.internal/grant"
)

// under picks the grant that a sudo call acts under: of those that could have
// let it in the one that ends first. sudo's own verdict fell before, and it
// does not say by which rule; what we cannot read counts for every grant that
// lets her act as that account. So a call never outlives the grant that it
// came by.
func (a *Agent) under(k Knock, person string, live []grant.Grant) grant.Grant {
	mine := slices.DeleteFunc(slices.Clone(live), func(g grant.Grant) bool { return g.Person.Name != person })
	as := slices.DeleteFunc(slices.Clone(mine), func(g grant.Grant) bool { return !slices.Contains(g.Role.RunAs, k.User) })
	var could []grant.Grant
	if argv, err := a.Host.Argv(k.PID); err == nil {
		if words, ok := sudoCommand(argv); ok {
			could = slices.DeleteFunc(slices.Clone(as), func(g grant.Grant) bool { return !mayRun(g.Role, words) })
		}
	}
	for _, of := range [][]grant.Grant{could, as, mine} {
		if len(of) > 0 {
			return slices.MinFunc(of, func(x, y grant.Grant) int { return x.NotAfter.Compare(y.NotAfter) })
		}
	}
	return grant.Grant{}
}

// mayRun reports whether sudo may have let the words pass by the role's rule.
// Programs are compared by their last element, as sudo does first: it may say
// yes where sudo says no, and never the other way round.
func mayRun(r grant.Role, words []string) bool {
	return r.AnyCommand || slices.ContainsFunc(r.Commands, func(c grant.Command) bool {
		return last(c.Path) == last(words[0]) && (c.AnyArgs || strings.Join(c.Args, " ") == strings.Join(words[1:], " "))
	})
}

func last(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// Options of sudo(8) that leave the command what it is: those alone, and those
// that a value follows. With any other, what sudo runs is not what stands
// there (-s, -i, -e), or not known to us.
const (
	sudoFlags  = "ABbEHknNPS"
	sudoValued = "CDgpRrTtu"
)

var (
	sudoLongFlags  = []string{"askpass", "bell", "background", "set-home", "non-interactive", "no-update", "preserve-env", "preserve-groups", "reset-timestamp", "stdin"}
	sudoLongValued = []string{"close-from", "chdir", "group", "prompt", "chroot", "role", "command-timeout", "type", "user"}
)

// sudoCommand reads the command out of sudo's own arguments.
func sudoCommand(argv []string) (words []string, ok bool) {
	for i := 1; i < len(argv); i++ {
		w := argv[i]
		if w == "--" {
			return argv[i+1:], i+1 < len(argv)
		}
		if w != "" && w[0] != '-' && w[0] != '/' && strings.Contains(w, "=") {
			continue // a variable for the command
		}
		if len(w) < 2 || w[0] != '-' {
			return argv[i:], w != ""
		}
		follows, known := sudoOption(w)
		if !known {
			return nil, false
		}
		if follows {
			i++
		}
	}
	return nil, false
}

// sudoOption says whether a value follows the option as a word of its own.
func sudoOption(w string) (follows, known bool) {
	if name, long := strings.CutPrefix(w, "--"); long {
		name, _, given := strings.Cut(name, "=")
		if slices.Contains(sudoLongValued, name) {
			return !given, true
		}
		return false, slices.Contains(sudoLongFlags, name) && (!given || name == "preserve-env")
	}
	rest := strings.TrimLeft(w[1:], sudoFlags)
	if rest == "" {
		return false, true
	}
	return len(rest) == 1, strings.ContainsRune(sudoValued, rune(rest[0]))
}
