// Package plan says what a change of the policy would do.
//
// It compares two policies and what each would have said to requests; it is
// arithmetic on values and changes nothing.
package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/policy"
)

// The directions of a change. What is neither more nor less privilege for
// certain is other: somebody has to look.
const (
	Wider    = "wider"
	Narrower = "narrower"
	Other    = "other"
)

// A Change is one difference between two policies.
type Change struct {
	Direction string       `json:"direction"`
	Role      string       `json:"role"`
	Kind      string       `json:"kind"` // role, eligible, until, max_duration, approvers, approvals, hosts, commands, ...
	Text      string       `json:"text"`
	People    []string     `json:"people,omitempty"` // whom it is about
	Old       policy.Place `json:"old,omitzero"`     // where it stands, if it does
	New       policy.Place `json:"new,omitzero"`
}

// Compare tells all that a change from one policy to the other does to those
// who may ask at that time.
func Compare(from, to policy.Policy, at time.Time) []Change {
	roles := map[string]bool{}
	for _, p := range []policy.Policy{from, to} {
		for name := range p.Roles {
			roles[name] = true
		}
	}
	all := append(kept(from, to), production(from, to)...)
	before, after := asks(from, at), asks(to, at)
	was, is := ahead(from, before, at), ahead(to, after, at)
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		c := &comparer{from: from, to: to, at: at, a: from.Roles[name], b: to.Roles[name], role: name, before: before[name], after: after[name], was: was[name], is: is[name]}
		_, had := from.Roles[name]
		_, has := to.Roles[name]
		c.eligibility()
		c.ahead()
		switch {
		case !had:
			c.add(Other, "role", "the role is new: read it as a whole", nil)
		case !has:
			c.add(Narrower, "role", "the role is gone", nil)
		default:
			c.content()
		}
		all = append(all, c.found...)
	}
	return all
}

// kept are the groups that the directory keeps from now on, or another group
// of it, since no file says whom that lets in; and those of which others are on
// call, or at other times.
func kept(from, to policy.Policy) []Change {
	all := []Change{}
	for _, group := range slices.Sorted(maps.Keys(to.Directory)) {
		if name, was := from.Directory[group]; !was || name != to.Directory[group] {
			all = append(all, Change{
				Direction: Other, Role: "-", Kind: "group", Text: fmt.Sprintf("the directory's %q says who is in group %s: at any time", to.Directory[group], group),
				Old: from.Places["groups."+group], New: to.Places["groups."+group],
			})
		}
	}
	for _, group := range slices.Sorted(maps.Keys(to.Calls)) {
		if name, was := from.Calls[group]; !was || name != to.Calls[group] {
			all = append(all, Change{
				Direction: Other, Role: "-", Kind: "group", Text: fmt.Sprintf("the on-call source's %q says who is on call in group %s: at any time", to.Calls[group], group),
				Old: from.Places["groups."+group], New: to.Places["groups."+group],
			})
		}
	}
	for _, group := range slices.Sorted(maps.Keys(to.Rotations)) {
		was, is := from.Rotations[group], to.Rotations[group]
		if !slices.Equal(was.People, is.People) || !was.First.Equal(is.First) || was.First.Location().String() != is.First.Location().String() {
			all = append(all, Change{
				Direction: Other, Role: "-", Kind: "group", Text: fmt.Sprintf("on call in group %s are, week by week, %s", group, strings.Join(is.People, ", ")),
				Old: from.Places["groups."+group], New: to.Places["groups."+group],
			})
		}
	}
	return all
}

// production is a change of which hosts are production, and of the roles that
// nobody approves there.
func production(from, to policy.Policy) []Change {
	was, is := from.Production, to.Production
	if was.Selector() == is.Selector() && slices.Equal(was.Unapproved, is.Unapproved) {
		return nil
	}
	text := "no hosts are said to be production: nothing keeps a role from being given unapproved there"
	if hosts := is.Selector(); hosts != "" {
		text = "production is " + hosts + ": no role there is without an approval"
		if len(is.Unapproved) > 0 {
			text += ", but for " + strings.Join(is.Unapproved, ", ")
		}
	}
	return []Change{{Direction: Other, Role: "-", Kind: "production", Text: text, Old: was.At, New: is.At}}
}

type comparer struct {
	from, to      policy.Policy
	at            time.Time
	a, b          policy.Role
	role          string
	before, after map[string]time.Time // who may ask, and until when
	was, is       map[string][]spell   // who may from a later day on
	found         []Change
}

// add notes a change at a key of the role; "role" is the role itself.
func (c *comparer) add(direction, kind, text string, people []string) {
	c.found = append(c.found, Change{
		Direction: direction, Role: c.role, Kind: kind, Text: text, People: people, Old: place(c.from, c.role, kind), New: place(c.to, c.role, kind),
	})
}

// place is where a key of a role stands; where it is not written, the role.
func place(p policy.Policy, role, key string) policy.Place {
	if at, ok := p.Places["roles."+role+"."+key]; ok {
		return at
	}
	return p.Places["roles."+role]
}

// asks are those who may ask for each role, and until when without a gap; zero:
// no end. It goes over the policy once: a fleet has many people, and many roles.
func asks(p policy.Policy, at time.Time) map[string]map[string]time.Time {
	all := map[string]map[string]time.Time{}
	for _, e := range p.Eligible {
		if !e.Stands(at) {
			continue
		}
		if all[e.Role] == nil {
			all[e.Role] = map[string]time.Time{}
		}
		for _, person := range e.People {
			was, had := all[e.Role][person]
			if !had || !was.IsZero() && (e.Until.IsZero() || e.Until.After(was)) {
				all[e.Role][person] = e.Until
			}
		}
	}
	for _, e := range later(p, at) {
		goOn(e, all[e.Role])
	}
	return all
}

// goOn has the people of a line ask until its end, if it begins before they have
// a gap.
func goOn(e policy.Eligibility, asks map[string]time.Time) {
	for _, person := range e.People {
		until, has := asks[person]
		if has && !until.IsZero() && !e.From.After(until) && (e.Until.IsZero() || e.Until.After(until)) {
			asks[person] = e.Until
		}
	}
}

// later are the lines that begin after that time, in the order in which they do.
func later(p policy.Policy, at time.Time) []policy.Eligibility {
	var all []policy.Eligibility
	for _, e := range p.Eligible {
		if e.From.After(at) {
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b policy.Eligibility) int { return a.From.Compare(b.From) })
	return all
}

func (c *comparer) eligibility() {
	before, after := c.before, c.after
	gain, lose, later, sooner := map[policy.Place][]string{}, map[policy.Place][]string{}, map[string][]string{}, map[string][]string{}
	for _, person := range slices.Sorted(maps.Keys(after)) {
		was, had := before[person]
		switch is := after[person]; {
		case !had:
			at := c.line(c.to, person, is)
			gain[at] = append(gain[at], person)
		case cmp.Or(is.Equal(was), is.IsZero() && was.IsZero()):
		case is.IsZero() || !was.IsZero() && is.After(was):
			later[last(was)+" to "+last(is)] = append(later[last(was)+" to "+last(is)], person)
		default:
			sooner[last(was)+" to "+last(is)] = append(sooner[last(was)+" to "+last(is)], person)
		}
	}
	for _, person := range slices.Sorted(maps.Keys(before)) {
		if _, has := after[person]; !has {
			at := c.line(c.from, person, before[person])
			lose[at] = append(lose[at], person)
		}
	}
	c.comeAndGo(gain, lose)
	c.ends(Wider, later)
	c.ends(Narrower, sooner)
}

func (c *comparer) comeAndGo(gain, lose map[policy.Place][]string) {
	for _, at := range slices.SortedFunc(maps.Keys(gain), byPlace) {
		c.found = append(c.found, Change{Direction: Wider, Role: c.role, Kind: "eligible", Text: strings.Join(gain[at], ", ") + " may ask for it", People: gain[at], New: at})
	}
	for _, at := range slices.SortedFunc(maps.Keys(lose), byPlace) {
		c.found = append(c.found, Change{Direction: Narrower, Role: c.role, Kind: "eligible", Text: strings.Join(lose[at], ", ") + " may no longer ask for it", People: lose[at], Old: at})
	}
}

// A spell is a time that is to come, in which somebody may ask.
type spell struct {
	from, until time.Time
	at          policy.Place
}

// ahead are, by role and person, the spells that begin after that time, and let
// her ask for longer than she may already.
func ahead(p policy.Policy, now map[string]map[string]time.Time, at time.Time) map[string]map[string][]spell {
	all := map[string]map[string][]spell{}
	for _, e := range p.Eligible {
		if !e.From.After(at) {
			continue
		}
		if all[e.Role] == nil {
			all[e.Role] = map[string][]spell{}
		}
		for _, person := range e.People {
			if until, has := now[e.Role][person]; !within(e.Until, until, has) {
				all[e.Role][person] = append(all[e.Role][person], spell{e.From, e.Until, e.At})
			}
		}
	}
	return all
}

// within reports whether who may ask until the one time may until the other
// anyway.
func within(until, anyway time.Time, has bool) bool {
	return has && (anyway.IsZero() || !until.IsZero() && !until.After(anyway))
}

// ahead notes who may ask from a later day on, and could not before.
func (c *comparer) ahead() {
	come, gone := begin(c.is, c.was, nil), begin(c.was, c.is, c.after)
	for _, s := range slices.SortedFunc(maps.Keys(come), bySpell) {
		text := fmt.Sprintf("%s may ask for it from %s on", strings.Join(come[s], ", "), s.from.Format(time.DateOnly))
		if !s.until.IsZero() {
			text += ", to " + last(s.until)
		}
		c.found = append(c.found, Change{Direction: Wider, Role: c.role, Kind: "from", Text: text, People: come[s], New: s.at})
	}
	for _, s := range slices.SortedFunc(maps.Keys(gone), bySpell) {
		text := fmt.Sprintf("%s may not ask for it from %s on any more", strings.Join(gone[s], ", "), s.from.Format(time.DateOnly))
		c.found = append(c.found, Change{Direction: Narrower, Role: c.role, Kind: "from", Text: text, People: gone[s], Old: s.at})
	}
}

// begin are by spell those who have it here and not there, unless they may ask
// anyway.
func begin(here, there map[string][]spell, anyway map[string]time.Time) map[spell][]string {
	all := map[spell][]string{}
	for _, person := range slices.Sorted(maps.Keys(here)) {
		until, has := anyway[person]
		for _, s := range here[person] {
			same := func(o spell) bool { return o.from.Equal(s.from) && o.until.Equal(s.until) }
			if !within(s.until, until, has) && !slices.ContainsFunc(there[person], same) {
				all[s] = append(all[s], person)
			}
		}
	}
	return all
}

func (c *comparer) ends(direction string, moved map[string][]string) {
	for _, how := range slices.Sorted(maps.Keys(moved)) {
		people := moved[how]
		c.found = append(c.found, Change{
			Direction: direction, Role: c.role, Kind: "until", Text: "eligibility of " + strings.Join(people, ", ") + " moves from " + how, People: people,
			Old: c.line(c.from, people[0], c.before[people[0]]), New: c.line(c.to, people[0], c.after[people[0]]),
		})
	}
}

func byPlace(a, b policy.Place) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}

func bySpell(a, b spell) int { return byPlace(a.at, b.at) }

// line is where it is written that the person may ask now, and until then.
func (c *comparer) line(p policy.Policy, person string, until time.Time) policy.Place {
	e, _ := p.EndsWith(person, c.role, c.at, until)
	return e.At
}

func last(until time.Time) string {
	if until.IsZero() {
		return "no end"
	}
	return until.AddDate(0, 0, -1).Format(time.DateOnly)
}

// affected are those who may ask in both policies: who gains or loses the
// role as a whole is told already.
func (c *comparer) affected() []string {
	var all []string
	for person := range c.before {
		if _, still := c.after[person]; still {
			all = append(all, person)
		}
	}
	slices.Sort(all)
	return all
}

// moved notes a change from one value to another.
func (c *comparer) moved(kind, was, is, direction string) {
	if was != is {
		c.add(direction, kind, fmt.Sprintf("%s: %s becomes %s", kind, was, is), c.affected())
	}
}
