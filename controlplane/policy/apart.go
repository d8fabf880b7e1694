package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// An Apart keeps roles apart: nobody holds two of them at one time.
type Apart struct {
	Roles       []string // sorted
	Eligibility bool     // nobody is even eligible for two of them
	At          Place
}

func (r *reader) apart(n ast.Node) { r.lines(n, "apart", "{roles: [..., ...]}", r.keptApart) }

func (r *reader) keptApart(n ast.Node, field string) {
	a, before := Apart{At: r.place(n)}, len(r.problems)
	r.pairs(n, field, func(key string, k, v ast.Node) {
		switch key {
		case "roles":
			for _, w := range r.list(v, field+".roles") {
				if _, known := r.policy.Roles[w.text]; !known {
					r.wrong(w.node, field+".roles", fmt.Sprintf("unknown role %.64q", w.text), "name it under roles:")
				}
				a.Roles = append(a.Roles, w.text)
			}
		case "of":
			switch s := r.text(v, field+".of"); s {
			case "holding":
			case "eligibility":
				a.Eligibility = true
			default:
				r.wrong(v, field+".of", fmt.Sprintf("%.40q", s), "write holding or eligibility")
			}
		default:
			r.wrong(k, join(field, key), "unknown key", "roles that are kept apart have roles and of")
		}
	})
	slices.Sort(a.Roles)
	if a.Roles = slices.Compact(a.Roles); len(a.Roles) < 2 && len(r.problems) == before {
		r.wrong(n, field+".roles", "keeps nothing apart", "name two roles at least")
	}
	if a.Eligibility && len(r.problems) == before {
		r.eligibleForBoth(a, field)
	}
	r.policy.Apart = append(r.policy.Apart, a)
}

// eligibleForBoth finds people whom the policy makes eligible for two roles
// that it keeps apart. An entry that has ended counts as well: it may be given
// a later day by somebody who looks at nothing else.
func (r *reader) eligibleForBoth(a Apart, field string) {
	first := map[string]Eligibility{} // of each person
	for _, e := range r.policy.Eligible {
		if !slices.Contains(a.Roles, e.Role) {
			continue
		}
		var both []string
		var was Eligibility
		for _, person := range e.People {
			if had, ok := first[person]; !ok {
				first[person] = e
			} else if had.Role != e.Role {
				both, was = append(both, person), had
			}
		}
		if len(both) > 0 {
			r.problems = append(r.problems, Problem{
				File: e.At.File, Line: e.At.Line, Column: e.At.Column, Field: field,
				Text: fmt.Sprintf("eligible for %s here and for %s at %s, which %s keeps apart: %s", e.Role, was.Role, was.At, a.At, strings.Join(both, ", ")),
				Fix:  "take them out of one",
			})
		}
	}
}

// ApartFrom are the roles of which whoever asks for this one may hold none,
// sorted.
func (p Policy) ApartFrom(role string) []string {
	var all []string
	for _, a := range p.Apart {
		if slices.Contains(a.Roles, role) {
			all = append(all, without(a.Roles, role)...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
