package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// A Production says which hosts are production, and which roles nobody has to
// approve all the same.
type Production struct {
	Hosts      map[string][]string // label -> values; one of them is enough
	AllHosts   bool
	Unapproved []string // names of roles, sorted
	At         Place
}

// Selector is the production's hosts as people read them; empty if the policy
// does not say which they are.
func (p Production) Selector() string {
	if p.AllHosts {
		return "all hosts"
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(p.Hosts)) {
		parts = append(parts, key+"="+strings.Join(slices.Sorted(slices.Values(p.Hosts[key])), "|"))
	}
	return strings.Join(parts, " or ")
}

// Meets reports whether a host of production could be within the role. What
// the role's conditions say counts for nothing here: they are judged one by one,
// and a reviewer reads the selector.
func (p Production) Meets(r Role) bool {
	if p.AllHosts {
		return true
	}
	for key, values := range p.Hosts {
		of, said := r.Hosts[key]
		if !said || slices.ContainsFunc(of, func(v string) bool { return slices.Contains(values, v) }) {
			return true
		}
	}
	return false
}

// production reads which hosts are production. It is said once, so that no
// other file takes back what one says.
func (r *reader) production(n ast.Node) {
	const field = "production"
	if r.policy.Production.At.Line > 0 {
		r.wrong(n, field, "said in two files", "keep one of them")
		return
	}
	p, hosts := Production{At: r.policy.Places[field]}, false
	r.pairs(n, field, func(key string, k, v ast.Node) {
		switch key {
		case "hosts":
			p.Hosts, hosts = r.selector(v, field+".hosts"), true
		case "all_hosts":
			p.AllHosts = r.flag(v, field+".all_hosts")
		case "unapproved":
			for _, w := range r.list(v, field+".unapproved") {
				if _, known := r.policy.Roles[w.text]; !known {
					r.wrong(w.node, field+".unapproved", fmt.Sprintf("unknown role %.64q", w.text), "name it under roles:")
				}
				p.Unapproved = append(p.Unapproved, w.text)
			}
		default:
			r.wrong(k, join(field, key), "unknown key", "production has hosts, all_hosts and unapproved")
		}
	})
	if p.AllHosts == hosts {
		r.wrong(n, field+".hosts", "which hosts are production", "name labels under hosts:, or write all_hosts: true")
	}
	slices.Sort(p.Unapproved)
	r.policy.Production = p
	for _, name := range slices.Sorted(maps.Keys(r.policy.Roles)) {
		r.unapproved(r.policy.Roles[name])
	}
}

// unapproved refuses a role of production that nobody approves, unless it is
// named as such.
func (r *reader) unapproved(role Role) {
	field := "roles." + role.Name + ".approval"
	at, written := r.policy.Places[field]
	p := r.policy.Production
	if !written || !role.MayBeUnasked() || r.unsure[role.Name] || !p.Meets(role) || slices.Contains(p.Unapproved, role.Name) {
		return
	}
	text, fix := "nobody approves this role", "name approvers or other hosts"
	if len(role.Steps) > 0 {
		text, fix = "nobody approves this role where no step's `when` holds", "leave one step without `when`, name other hosts"
	}
	r.problems = append(r.problems, Problem{
		File: at.File, Line: at.Line, Column: at.Column, Field: field,
		Text: text + ", and hosts of production are within it (" + p.Selector() + ")",
		Fix:  fmt.Sprintf("%s, or name the role: production: {unapproved: [%s]}", fix, role.Name),
	})
}

// productionAdvice finds names of roles of which the policy need say nothing:
// left there, they would cover what somebody makes of the role later.
func (p Policy) productionAdvice() []Problem {
	var all []Problem
	for _, name := range p.Production.Unapproved {
		if r := p.Roles[name]; !r.MayBeUnasked() || !p.Production.Meets(r) {
			all = append(all, p.warn("production.unapproved", name+" is approved by somebody, or no host of production is within it", "take its name out"))
		}
	}
	return all
}
