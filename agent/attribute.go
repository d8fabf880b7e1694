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

// sudoCommand reads the command out of sudo's own arguments.
func sudoCommand(argv []string) (words []string, ok bool) {
	if len(argv) == 0 {
		return nil, false
	}
	c := ReadSudo(argv[1:])
	if !c.Known || c.Shell || c.Words[0] == "" {
		return nil, false
	}
	return c.Words, true
}
