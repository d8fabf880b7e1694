package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"

	"curfew.internal/controlplane/roster"
)

// Lending says for how long somebody who approves the role may let another do
// it in her place; the zero value: not at all.
type Lending struct {
	UpTo  time.Duration
	To    []string // whom alone, sorted; nobody, with nothing in Named: whoever it is
	Named []string // the same, as it is written
}

// String is the rule as people read it.
func (l Lending) String() string {
	switch {
	case l.UpTo == 0:
		return "off"
	case len(l.Named) == 0:
		return "up to " + days(l.UpTo)
	}
	return fmt.Sprintf("up to %s, to %s", days(l.UpTo), roster.Some(l.Named, ", "))
}

// lending reads whether approvers of the role may be stood in for.
func (r *reader) lending(n ast.Node, field string, role *Role) {
	const fix = "write off, a time such as 14d, or {up_to: 14d, to: [NAME, group:NAME]}"
	if s, ok := scalar(n); ok {
		if s != "off" {
			role.Lending.UpTo = r.duration(n, field, time.Minute, roster.MaxLent)
		}
		return
	}
	r.pairs(n, field, func(key string, k, v ast.Node) {
		switch key {
		case "up_to":
			role.Lending.UpTo = r.duration(v, field+".up_to", time.Minute, roster.MaxLent)
		case "to":
			role.Lending.To, role.Lending.Named, _ = r.people(v, field+".to")
		default:
			r.wrong(k, join(field, key), "unknown key", fix)
		}
	})
	if role.Lending.UpTo == 0 || len(role.Lending.Named) == 0 || slices.Contains(role.Lending.Named, manager) {
		r.wrong(n, field, "no time, or nobody who is named", fix)
	}
}

// StandIns are those of the delegations by which somebody may approve in
// another's place what the person asks for. All are to stand at that time.
func (p Policy) StandIns(role, person string, all []roster.Delegation) []roster.Delegation {
	may := p.MayApprove(role, person)
	return slices.DeleteFunc(slices.Clone(all), func(d roster.Delegation) bool {
		return p.unfit(p.Roles[role], may, d) != "" || p.closeTo(p.Roles[role], person, d, all) != ""
	})
}

// unfit is why a delegation counts for nothing with a role that these people
// may approve; empty if it counts.
func (p Policy) unfit(r Role, may []string, d roster.Delegation) string {
	switch {
	case !slices.Contains(may, d.Away):
		return d.Away + " is not among its approvers"
	case r.Lending.UpTo == 0:
		return "nobody approves it in another's place: it has no `delegation`"
	case d.Until.Sub(d.From) > r.Lending.UpTo:
		return "somebody may stand in for " + days(r.Lending.UpTo) + " at most"
	case d.StandIn == d.Away, slices.Contains(may, d.StandIn):
		return d.StandIn + " approves it in her own right, and gives one word"
	case len(r.Lending.Named) > 0 && !slices.Contains(r.Lending.To, d.StandIn):
		return "who stands in has to be one of " + roster.Some(r.Lending.Named, ", ")
	}
	for _, name := range []string{d.Away, d.StandIn} {
		if other := p.heldApart(name, r.Name); other != "" {
			return fmt.Sprintf("%s may have role %s, which is kept apart from it", name, other)
		}
	}
	return ""
}

// closeTo is why a delegation counts for nothing with what this person asks
// for; empty if it counts.
func (p Policy) closeTo(r Role, person string, d roster.Delegation, all []roster.Delegation) string {
	switch {
	case d.StandIn == person:
		return "nobody approves her own request"
	case slices.ContainsFunc(all, func(o roster.Delegation) bool { return o.Away == person && o.StandIn == d.StandIn }):
		return d.StandIn + " stands in for " + person + ", who asks"
	case r.Outside && !r.outside(person, d.StandIn):
		return d.StandIn + " is in the reporting line of " + person + ", or not shown by the directory to be out of it"
	}
	return ""
}

// heldApart is a role that is kept apart from this one, and that the person
// may have; empty if there is none.
func (p Policy) heldApart(person, role string) string {
	from := p.ApartFrom(role)
	for _, e := range p.Eligible {
		if slices.Contains(from, e.Role) && slices.Contains(e.People, person) {
			return e.Role
		}
	}
	return ""
}

// Lends says for which roles a delegation counts, as things are, and why not
// for the others that she who is away approves.
func (p Policy) Lends(d roster.Delegation) (roles, not []string) {
	for _, name := range slices.Sorted(maps.Keys(p.Roles)) {
		r := p.Roles[name]
		may := r.of(r.Approvers, "")
		if slices.Contains(r.By, manager) && slices.Contains(slices.Collect(maps.Values(r.Managers)), d.Away) {
			may = append(may, d.Away)
		}
		switch why := p.unfit(r, may, d); {
		case why == "":
			roles = append(roles, name)
		case slices.Contains(may, d.Away):
			not = append(not, name+": "+why)
		}
	}
	return roles, not
}

// delegation tells whether approvers of the role may be stood in for, and of
// those who are, whether it counts here.
func (x *explainer) delegation() {
	r := x.role
	if len(r.Steps) == 0 || r.Lending.UpTo == 0 && len(x.c.Away) == 0 {
		return
	}
	text := "an approver who is away may let another approve in her place, for " + r.Lending.String()
	if r.Lending.UpTo == 0 {
		text = "nobody approves in another's place"
	}
	x.say("delegation", "delegation", Allows, text, "")
	may := x.policy.MayApprove(r.Name, x.c.Person)
	for _, d := range x.c.Away {
		if !slices.Contains(r.Approvers, d.Away) && !slices.Contains(may, d.Away) {
			continue
		}
		text, why := fmt.Sprintf("%s may approve in place of %s, until %s", d.StandIn, d.Away, d.Until.Format("2006-01-02 15:04 MST")), cmp.Or(x.policy.unfit(r, may, d), x.policy.closeTo(r, x.c.Person, d, x.c.Away))
		if why != "" {
			text = fmt.Sprintf("%s may not approve in place of %s here: %s", d.StandIn, d.Away, why)
		}
		x.say("delegation", "delegation", Allows, text, "")
	}
}
