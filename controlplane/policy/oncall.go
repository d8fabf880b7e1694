package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// called reads a group of which somebody else than the files says who is on
// call.
func (r *reader) called(group, field string, n ast.Node) {
	name := ""
	r.pairs(n, field, func(key string, k, v ast.Node) {
		if key != "on_call" {
			r.wrong(k, join(field, key), "unknown key", "such a group is {on_call: NAME}, and the on-call source says who is in that rotation")
			return
		}
		name = r.text(v, field+".on_call")
	})
	if err := grant.CheckText("on_call", name, 200); err != nil || name == "" {
		r.wrong(n, field+".on_call", "no name of a rotation", "write what the on-call source calls it")
	}
	r.policy.Groups[group], r.policy.Calls[group] = nil, name
}

// Called is the policy as one who asks it knows who is on call: what the source
// of that said last.
func (p Policy) Called(c roster.Calls) Policy {
	p.Answer = c
	return p
}

// changes reports whether the time says who is in the group.
func (p Policy) changes(group string) bool {
	_, inTurn := p.Rotations[group]
	_, called := p.Calls[group]
	return inTurn || called
}

// turnsAt are those who are on call in the group then.
func (p Policy) turnsAt(group string, at time.Time) []roster.Turn {
	if name, called := p.Calls[group]; called {
		return slices.DeleteFunc(slices.Clone(p.Answer.Rotations[name]), func(t roster.Turn) bool { return at.Before(t.From) || !at.Before(t.Until) })
	}
	r, inTurn := p.Rotations[group]
	if who, from, until := r.At(at); inTurn && who != "" {
		return []roster.Turn{{Person: who, From: from, Until: until}}
	}
	return nil
}

// timed are the groups in which somebody is on call, sorted.
func (p Policy) timed() []string {
	all := slices.Concat(slices.Collect(maps.Keys(p.Rotations)), slices.Collect(maps.Keys(p.Calls)))
	slices.Sort(all)
	return all
}

// OnCall is the policy with those in its groups who are on call then. One that
// is asked without has nobody in them.
func (p Policy) OnCall(at time.Time) Policy {
	if len(p.Rotations)+len(p.Calls) == 0 {
		return p
	}
	p.Groups, p.AsOf = maps.Clone(p.Groups), at
	for _, group := range p.timed() {
		p.Groups[group] = people(p.turnsAt(group, at))
	}
	return p.resolved()
}

// people are those whose turns these are, sorted, each once.
func people(turns []roster.Turn) []string {
	var all []string
	for _, t := range turns {
		all = append(all, t.Person)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// far is later than anybody looks ahead.
const far = 365 * 24 * time.Hour

// Handover is from when until when those are on call who are then.
func (p Policy) Handover(at time.Time) (from, until time.Time) {
	until = at.Add(far)
	meets := func(t time.Time) {
		if t.After(at) && t.Before(until) {
			until = t
		}
		if !t.After(at) && t.After(from) {
			from = t
		}
	}
	for _, r := range p.Rotations {
		_, f, u := r.At(at)
		meets(f)
		meets(u)
	}
	for _, name := range p.Calls {
		for _, t := range p.Answer.Rotations[name] {
			meets(t.From)
			meets(t.Until)
		}
	}
	return from, until
}

// onCall tells who of the group is, if it is one in which somebody is on call.
func (p Policy) onCall(group string, at time.Time) string {
	if !p.changes(group) {
		return roster.Some(p.Groups[group], ", ")
	}
	var all []string
	for _, t := range p.turnsAt(group, at) {
		all = append(all, fmt.Sprintf("%s, on call until %s", t.Person, t.Until.Format("2006-01-02 15:04 MST")))
	}
	if len(all) == 0 {
		return p.nobody(group, at)
	}
	return roster.Some(all, ", ")
}

// nobody tells why nobody of the group is on call.
func (p Policy) nobody(group string, at time.Time) string {
	name, called := p.Calls[group]
	if !called {
		_, _, until := p.Rotations[group].At(at)
		return "nobody is on call before " + until.Format("2006-01-02 15:04 MST")
	}
	turns, known := p.Answer.Rotations[name]
	switch {
	case p.Answer.Why != "":
		return "nobody is on call: " + p.Answer.Why
	case p.Answer.Rotations == nil:
		return "the server knows who is on call"
	case !known:
		return fmt.Sprintf("nobody is on call: the on-call source has no rotation %.40q", name)
	}
	for _, t := range turns {
		if t.From.After(at) {
			return "nobody is on call before " + t.From.Format("2006-01-02 15:04 MST")
		}
	}
	return fmt.Sprintf("nobody is on call: the on-call source names nobody for that time in %.40q", name)
}

// missed tells of each group among approvers in which nobody is on call why
// that is; empty, if there is none.
func (p Policy) missed(named []string, at time.Time) string {
	var all []string
	for _, n := range named {
		group, is := strings.CutPrefix(n, "group:")
		if text := ""; is && p.changes(group) && len(p.turnsAt(group, at)) == 0 {
			text = fmt.Sprintf("group %s: %s", group, p.nobody(group, at))
			if !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
	}
	return strings.Join(all, "; ")
}

// onDuty says of those among approvers who are on call in which group, and
// until when.
func (p Policy) onDuty(named []string, at time.Time) map[string]string {
	all := map[string]string{}
	for _, n := range named {
		group, is := strings.CutPrefix(n, "group:")
		if !is || !p.changes(group) {
			continue
		}
		for _, t := range p.turnsAt(group, at) {
			all[t.Person] = fmt.Sprintf("on call in %s until %s", group, t.Until.UTC().Format("2006-01-02 15:04 MST"))
		}
	}
	return all
}

// turners are all who are on call at some time, as far as it is known, sorted,
// each once.
func (p Policy) turners() []string {
	var all []string
	for _, r := range p.Rotations {
		all = append(all, r.People...)
	}
	for _, name := range p.Calls {
		all = append(all, people(p.Answer.Rotations[name])...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
