package policy

import (
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

func isMapping(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// hasKey reports whether a mapping has the key.
func hasKey(n ast.Node, wanted string) bool {
	values := []*ast.MappingValueNode{}
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = append(values, n)
	}
	return slices.ContainsFunc(values, func(v *ast.MappingValueNode) bool {
		key, _ := scalar(v.Key)
		return key == wanted
	})
}

// kept reads a group that a directory keeps.
func (r *reader) kept(group, field string, n ast.Node) {
	name := ""
	r.pairs(n, field, func(key string, k, v ast.Node) {
		if key != "directory" {
			r.wrong(k, join(field, key), "unknown key", "a group is a list of people, {directory: NAME}, {on_call: NAME}, or {rotation: [...], from: ..., at: ..., zone: ...}")
			return
		}
		name = r.text(v, field+".directory")
	})
	if err := grant.CheckText("directory", name, 200); err != nil || name == "" {
		r.wrong(n, field+".directory", "no name of a group", "write what the directory calls it")
	}
	r.policy.Groups[group], r.policy.Directory[group] = nil, name
}

// Asks reports whether the policy leaves it to a directory to say who
// somebody is: who is in a group, or whose manager.
func (p Policy) Asks() bool {
	for _, r := range p.Roles {
		if r.Outside || slices.Contains(r.By, manager) {
			return true
		}
	}
	return len(p.Directory) > 0
}

// leans reports whether it is not the files alone that say who approves the
// role, but a directory or the time.
func (p Policy) leans(r Role) bool {
	return r.Outside || slices.ContainsFunc(r.By, func(name string) bool {
		group := strings.TrimPrefix(name, "group:")
		_, kept := p.Directory[group]
		return name == manager || kept || p.changes(group)
	})
}

// With is the policy with those in its groups whom the directory has in them
// now, by the directory's names, and with the managers that it knows. What is
// read from files does not change.
func (p Policy) With(d roster.Directory) Policy {
	if p.Kept = d; !p.Asks() {
		return p
	}
	p.Groups = maps.Clone(p.Groups)
	for group, name := range p.Directory {
		p.Groups[group] = slices.Sorted(slices.Values(d.Members[name]))
	}
	return p.resolved()
}

// resolved is the policy with all that names groups by who is in them now.
func (p Policy) resolved() Policy {
	p.Roles, p.Eligible = maps.Clone(p.Roles), slices.Clone(p.Eligible)
	for i, e := range p.Eligible {
		p.Eligible[i].People = p.named(e.Named)
	}
	for name, role := range p.Roles {
		role.Steps, role.Approvers, role.Managers = slices.Clone(role.Steps), nil, p.Kept.Managers
		for i, s := range role.Steps {
			role.Steps[i].By, role.Steps[i].Later = p.named(s.Named), p.named(s.LaterNamed)
			role.Approvers = slices.Concat(role.Approvers, role.Steps[i].By, role.Steps[i].Later)
		}
		role.Lending.To = p.named(role.Lending.Named)
		slices.Sort(role.Approvers)
		role.Approvers = slices.Compact(role.Approvers)
		role.Count = total(role.For(""))
		p.Roles[name] = role
	}
	return p
}

// named are the people whom names and group:NAME name, sorted.
func (p Policy) named(names []string) []string {
	var all []string
	for _, n := range names {
		if group, is := strings.CutPrefix(n, "group:"); is {
			all = append(all, p.Groups[group]...)
		} else {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// eligibleApart is a role of which nobody may be eligible beside this one,
// and the person is; empty if there is none. Where files alone name people,
// this is found when they are read.
func (p Policy) eligibleApart(person, role string) string {
	for _, a := range p.Apart {
		if !a.Eligibility || !slices.Contains(a.Roles, role) {
			continue
		}
		for _, e := range p.Eligible {
			if e.Role != role && slices.Contains(a.Roles, e.Role) && slices.Contains(e.People, person) {
				return e.Role
			}
		}
	}
	return ""
}
