package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// long is what a grant may last before it is standing privilege by another
// name.
const long = 24 * time.Hour

// crowd is from how many people on "everybody approves" is no small team.
const crowd = 4

// warning is advice about what stands at a field.
func (p Policy) warning(at Place, field, text, fix string) Problem {
	if at.Line == 0 { // the key is not written: its role's line
		parts := strings.SplitN(field, ".", 3)
		at = p.Places[strings.Join(parts[:min(2, len(parts))], ".")]
	}
	return Problem{File: at.File, Line: max(at.Line, 1), Column: max(at.Column, 1), Field: field, Text: text, Fix: fix, Warning: true}
}

func (p Policy) warn(field, text, fix string) Problem {
	return p.warning(p.Places[field], field, text, fix)
}

// advice finds what holds, and still wants a second look.
func (p Policy) advice() []Problem {
	var all []Problem
	everybody := p.People()
	for _, name := range slices.Sorted(maps.Keys(p.Roles)) {
		r := p.Roles[name]
		field := "roles." + name
		if !slices.ContainsFunc(p.Eligible, func(e Eligibility) bool { return e.Role == name }) {
			all = append(all, p.warn(field, "nobody is eligible for it", "add a line under eligible:"))
		}
		if r.AnyCommand {
			all = append(all, p.warn(field+".any_command", "gives every command", "list commands where you can"))
		}
		if r.MaxDuration > long && r.MaxDuration <= grant.MaxDuration {
			all = append(all, p.warn(field+".max_duration", "a grant of "+days(r.MaxDuration)+" is standing privilege by another name",
				"write a day at most; a grant can be extended, and asked for again"))
		}
		all = append(all, p.approvalAdvice(r, everybody)...)
		all = append(all, p.freshAdvice(r)...)
		if r.Lending.UpTo > 0 && len(r.Lending.Named) == 0 {
			all = append(all, p.warn(field+".delegation", "an approver who is away may have anybody of the fleet approve", "name them: {up_to: 14d, to: [NAME, group:NAME]}"))
		}
		all = append(all, p.commandAdvice(r)...)
		all = append(all, p.conditionAdvice(r)...)
	}
	return append(all, p.productionAdvice()...)
}

func (p Policy) approvalAdvice(r Role, everybody []string) []Problem {
	field := "roles." + r.Name + ".approval"
	_, written := p.Places[field]
	switch {
	case slices.Contains(p.Production.Unapproved, r.Name): // somebody has thought of it
	case written && len(r.Steps) == 0:
		return []Problem{p.warn(field, "nobody approves this role", "whoever is eligible has it with a second factor alone")}
	case written && r.MayBeUnasked():
		return []Problem{p.warn(field, "nobody approves this role where no step's `when` holds", "leave one step without `when`, or whoever is eligible has it then with a second factor alone")}
	case len(r.Steps) == 1 && len(everybody) >= crowd && len(r.Steps[0].By) == len(everybody):
		return []Problem{p.warn(field+".by", fmt.Sprintf("everybody approves: all %d people whom the policy names", len(everybody)),
			"name those who know what the role does")}
	}
	return nil
}

// freshAdvice warns of requests without a proof of their own where that costs
// most.
func (p Policy) freshAdvice(r Role) []Problem {
	if r.Fresh == 0 || !p.Production.Meets(r) {
		return nil
	}
	return []Problem{p.warn("roles."+r.Name+".freshness", fmt.Sprintf("what runs beside somebody's command line asks for this in her name for %s after she proved herself, and hosts of production are within it (%s)", span(r.Fresh), p.Production.Selector()),
		"leave freshness out: she then proves herself for each request")}
}

func (p Policy) commandAdvice(r Role) []Problem {
	var all []Problem
	reading := len(r.Commands) > 0
	for i, c := range r.Commands {
		field := "roles." + r.Name + ".commands"
		at := p.Places[fmt.Sprintf("%s.%d", field, i+1)]
		reading = reading && reads(c)
		if text, fix := wide(c, r.NoExec); text != "" {
			all = append(all, p.warning(at, field, text, fix))
		} else if c.AnyArgs {
			all = append(all, p.warning(at, field, "any arguments of "+c.Path, "name the arguments where you can"))
		}
	}
	if reading {
		all = append(all, p.warn("roles."+r.Name+".commands", "only looks, and changes nothing",
			"let a group read it (adm, systemd-journal, a file's own), and keep approvals for what changes something"))
	}
	return all
}

// People are all whom the policy names.
func (p Policy) People() []string {
	all := map[string]bool{}
	add := func(names []string) {
		for _, n := range names {
			all[n] = true
		}
	}
	for _, g := range p.Groups {
		add(g)
	}
	add(p.turners())
	for _, r := range p.Roles {
		add(without(r.Approvers, manager))
	}
	for _, e := range p.Eligible {
		add(e.People)
	}
	return slices.Sorted(maps.Keys(all))
}

// Aged warns of eligibility that had ended by then, or was to be looked at.
func (p Policy) Aged(at time.Time) []Problem {
	var all []Problem
	for _, e := range p.Eligible {
		if !e.Until.IsZero() && !at.Before(e.Until) {
			last := e.Until.AddDate(0, 0, -1).Format(time.DateOnly)
			all = append(all, p.warning(e.At, "eligible", fmt.Sprintf("the eligibility for %s ended with %s", e.Role, last), "take the line out, or write a later day"))
			continue
		}
		if !e.Review.IsZero() && !at.Before(e.Review) {
			all = append(all, p.warning(e.At, "eligible", fmt.Sprintf("the eligibility for %s was to be looked at again on %s", e.Role, e.Review.Format(time.DateOnly)),
				"take out who needs it no more, then write a later review"))
		}
	}
	return all
}

// Strangers warns of people whom the policy names and the fleet does not
// know, and of roles that nobody is left to approve.
func (p Policy) Strangers(known []string) []Problem {
	var all []Problem
	are := map[string]bool{}
	for _, name := range known {
		are[name] = true
	}
	there := func(name string) bool { return are[name] }
	unknown := func(names []string) []string { return slices.DeleteFunc(slices.Clone(names), there) }
	for _, name := range slices.Sorted(maps.Keys(p.Groups)) {
		if gone := unknown(slices.Concat(p.Groups[name], p.Rotations[name].People, people(p.Answer.Rotations[p.Calls[name]]))); len(gone) > 0 {
			all = append(all, p.warn("groups."+name, "not known to the fleet, or disabled: "+roster.Some(gone, ", "), "mend the name, or add the person"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Roles)) {
		r := p.Roles[name]
		field := "roles." + name + ".approval"
		if _, one := p.Places[field+".by"]; one {
			field += ".by"
		}
		gone := unknown(without(r.Approvers, manager))
		left := r.For("")
		for i, s := range left {
			left[i].By, left[i].Later = keep(s.By, there), keep(s.Later, there)
		}
		switch {
		case p.leans(r): // who is there, the directory says
		case starved(left) > 0:
			all = append(all, p.warn(field, fmt.Sprintf("cannot be approved: of its approvers, the fleet does not know %s", roster.Some(gone, ", ")),
				"name approvers who are there"))
		case len(byName(r.By, gone)) > 0:
			all = append(all, p.warn(field, "approvers who are not known to the fleet, or disabled: "+roster.Some(byName(r.By, gone), ", "), "mend the name, or add the person"))
		}
	}
	for _, e := range p.Eligible {
		if gone := byName(e.Named, unknown(e.People)); len(gone) > 0 {
			all = append(all, p.warning(e.At, "eligible", "not known to the fleet, or disabled: "+roster.Some(gone, ", "), "mend the name, or add the person"))
		}
	}
	return all
}

// byName are those who stand there themselves: of a group's members, the group
// tells.
func byName(named, people []string) []string {
	return keep(people, func(name string) bool { return slices.Contains(named, name) })
}

func keep(all []string, which func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !which(s) })
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return span(d)
}
