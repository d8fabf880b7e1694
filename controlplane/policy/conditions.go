package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"curfew.internal/controlplane/policy/condition"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// maxConditions is how many a role may have.
const maxConditions = 10

// A Condition has to hold when a role is asked for, and at each approval.
type Condition struct {
	*condition.Condition
	Say string // what it means, in its author's words; empty: nothing was said
	At  Place
}

// String is the condition as people read it.
func (c Condition) String() string {
	if c.Say != "" {
		return c.Say
	}
	return c.Text
}

// when reads a role's conditions: one, or a list.
func (r *reader) when(n ast.Node, field string, role *Role) {
	all := []ast.Node{n}
	if seq, ok := n.(*ast.SequenceNode); ok {
		all = seq.Values
	}
	if len(all) == 0 || len(all) > maxConditions {
		r.wrong(n, field, fmt.Sprintf("%d conditions", len(all)), fmt.Sprintf("write 1 to %d, or leave the key out", maxConditions))
		return
	}
	for i, v := range all {
		f := fmt.Sprintf("%s.%d", field, i+1)
		r.policy.Places[f] = r.place(v)
		c := r.condition(v, f)
		if c == nil {
			continue
		}
		if risks := c.risks(); len(risks) > 0 {
			r.wrong(v, f, "looks at "+strings.Join(risks, ", ")+", and would keep people out where another approver is what is called for",
				"write it as the `when` of a step of approval: {by: [...], when: ...}")
			continue
		}
		role.When = append(role.When, *c)
	}
}

// condition reads one: an expression, or {if: EXPRESSION, say: TEXT}; nil, if it
// is none.
func (r *reader) condition(n ast.Node, field string) *Condition {
	c := Condition{At: r.place(n)}
	text := r.expression(n, field, &c)
	if text == nil {
		r.wrong(n, field+".if", "missing", "write the condition, in quotes")
		return nil
	}
	if r.compiler == nil {
		var err error
		if r.compiler, err = condition.NewCompiler(); err != nil {
			r.wrong(n, field, err.Error(), "report this: no condition can be read")
			return nil
		}
	}
	s, plain := scalar(text)
	if _, is := text.(*ast.BoolNode); !plain || is {
		r.wrong(text, field, "no condition", "write an expression in quotes, such as 'length <= duration(\"1h\")'")
		return nil
	}
	read, mistake := r.compiler.Compile(s)
	if mistake != nil {
		fix := "docs/policy.md tells what a condition may say; put it in quotes"
		if strings.Contains(mistake.Text, "'risk") {
			fix = "there are " + strings.Join(condition.Risks, ", ")
		}
		r.wrong(text, field, fmt.Sprintf("at character %d: %s", mistake.At+1, mistake.Text), fix)
		return nil
	}
	c.Condition = read
	if !r.labelled(c, text, field) {
		return nil
	}
	return &c
}

// expression is where the condition itself stands; nil, if it does not.
func (r *reader) expression(n ast.Node, field string, c *Condition) ast.Node {
	if !isMapping(n) {
		return n
	}
	var text ast.Node
	r.pairs(n, field, func(key string, k, v ast.Node) {
		switch key {
		case "if":
			text = v
		case "say":
			c.Say = r.text(v, field+".say")
			if err := grant.CheckText("say", c.Say, 200); err != nil {
				r.wrong(v, field+".say", err.Error(), "")
			}
		default:
			r.wrong(k, join(field, key), "unknown key", "a condition has if and say")
		}
	})
	return text
}

// labelled finds the first label, or value of one, that no host can have. It
// reports whether there is none.
func (r *reader) labelled(c Condition, n ast.Node, field string) bool {
	for _, l := range c.Labels {
		switch values, known := r.policy.Labels[l.Key]; {
		case !known:
			r.wrong(n, field, fmt.Sprintf("unknown label %.64q", l.Key), "name it and its values under labels:")
			return false
		case l.Value != "" && !slices.Contains(values, l.Value):
			r.wrong(n, field, fmt.Sprintf("label %s has no value %.64q", l.Key, l.Value), "it has "+strings.Join(values, ", "))
			return false
		}
	}
	return true
}

// facts are what conditions of a role may look at, but for the host.
func (p Policy) facts(q roster.Question, at time.Time) condition.Facts {
	return condition.Facts{
		Person: q.Person, Groups: p.groupsOf(q.Person), Begin: at, Length: q.Duration, Source: q.Source, Reason: q.Reason, Ticket: q.Ticket,
		Risk: condition.Risk(q.Risk),
	}
}

// groupsOf are those that the person is in, sorted.
func (p Policy) groupsOf(person string) []string {
	var all []string
	for name, people := range p.Groups {
		if _, in := slices.BinarySearch(people, person); in {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// groupsThen are those that the person is in when a grant would begin: who is on
// call now may ask for a time at which somebody else is.
func (p Policy) groupsThen(person string, at time.Time) []string {
	all := p.groupsOf(person)
	for _, name := range p.timed() {
		all = without(all, name)
		if slices.Contains(people(p.turnsAt(name, at)), person) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// unmet are the role's conditions that the request does not meet, as its
// person is told. Those of the hosts that the role does not cover are told of
// elsewhere.
func (p Policy) unmet(r Role, q roster.Question, hosts []roster.Host, at time.Time) []string {
	if len(r.When) == 0 {
		return nil
	}
	f, then := p.facts(q, at), p.groupsThen(q.Person, at)
	asked := map[string]bool{}
	for _, name := range q.Hosts {
		asked[name] = true
	}
	var wrong []string
	for _, c := range r.When {
		whys, on := []string{}, map[string][]string{}
		for _, h := range hosts {
			if !asked[h.Name] || !r.Covers(h.Labels) {
				continue
			}
			f.Host, f.Labels = h.Name, h.Labels
			err := c.Holds(f)
			if f := f; err == nil && !slices.Equal(f.Groups, then) {
				f.Groups = then
				err = c.Holds(f)
			}
			if err != nil {
				whys = append(whys, err.Error())
				on[err.Error()] = append(on[err.Error()], h.Name)
			}
		}
		slices.Sort(whys)
		for _, why := range slices.Compact(whys) {
			slices.Sort(on[why])
			wrong = append(wrong, refusal(r.Name, c, why, on[why]))
		}
	}
	return wrong
}

func refusal(role string, c Condition, why string, on []string) string {
	where := ""
	if slices.Contains(c.Uses, "labels") || slices.Contains(c.Uses, "host") {
		where = " on " + strings.Join(on, ", ")
	}
	if why == condition.ErrNot.Error() {
		return fmt.Sprintf("role %s has a condition that does not hold%s: %s", role, where, c)
	}
	return fmt.Sprintf("role %s has a condition that cannot be judged%s (%s), and so does not hold: %s", role, where, why, c)
}

// question is the case as it would be asked.
func (x *explainer) question() roster.Question {
	q := roster.Question{Person: x.c.Person, Duration: x.c.For, Source: x.c.Source, Risk: x.c.Risk}
	if x.c.Reason != nil {
		q.Reason = *x.c.Reason
	}
	if x.c.Ticket != nil {
		q.Ticket = *x.c.Ticket
	}
	return q
}

// facts are those of the case.
func (x *explainer) facts() condition.Facts {
	f := x.policy.facts(x.question(), x.c.At)
	if h := x.c.Host; h != nil {
		f.Host, f.Labels = h.Name, h.Labels
	}
	return f
}

// unsaid is what the condition looks at and the case does not say.
func (x *explainer) unsaid(c Condition) []string {
	missing := map[string]bool{
		"length": x.c.For == 0, "end": x.c.For == 0, "reason": x.c.Reason == nil, "ticket": x.c.Ticket == nil, "source": x.c.Source == "",
		"labels": x.c.Host == nil, "host": x.c.Host == nil || grant.CheckHost(x.c.Host.Name) != nil,
		condition.NewNetwork: x.c.Risk.NewNetwork == nil, condition.FirstTime: x.c.Risk.FirstTime == nil,
		condition.FactorRefused: x.c.Risk.FactorRefused == nil, condition.FactorAge: x.c.Risk.FactorAge == nil,
	}
	return slices.DeleteFunc(slices.Clone(c.Uses), func(name string) bool { return !missing[name] })
}

// when tells of each condition whether it holds, or what it looks at that is
// not said.
func (x *explainer) when() {
	f := x.facts()
	for _, c := range x.role.When {
		finding := Finding{Rule: "when", Says: Allows, Text: "the condition holds: " + c.String(), Place: c.At}
		unsaid := x.unsaid(c)
		switch err := c.Holds(f); {
		case len(unsaid) > 0:
			finding.Says, finding.Text = Needs, fmt.Sprintf("a condition, judged by what is not said here (%s): %s", strings.Join(unsaid, ", "), c)
		case errors.Is(err, condition.ErrNot):
			finding.Says, finding.Text, finding.Fix = Refuses, "a condition does not hold: "+c.String(), "ask when it does"
		case err != nil:
			finding.Says, finding.Text, finding.Fix = Refuses, fmt.Sprintf("a condition cannot be judged (%v): %s", err, c), "mend it, or give what it looks at"
		}
		x.found = append(x.found, finding)
	}
}

// mostTried is how many hosts are thought of to see whether a condition says
// anything.
const mostTried = 256

// conditionAdvice finds conditions that say nothing: those that look at
// nothing but labels are tried on every host that the role could cover.
func (p Policy) conditionAdvice(r Role) []Problem {
	var all []Problem
	for i, c := range r.When {
		field := fmt.Sprintf("roles.%s.when.%d", r.Name, i+1)
		switch holds, _, of := p.tried(r, c); {
		case of == 0:
		case holds == 0:
			all = append(all, p.warning(c.At, field, "can never be true, so that nobody gets the role", "mend it"))
		case holds == of:
			all = append(all, p.warning(c.At, field, "is always true, and holds nothing back", "mend it, or take it out"))
		}
	}
	for i, s := range r.Steps {
		if s.When == nil {
			continue
		}
		field := fmt.Sprintf("roles.%s.approval.%d.when", r.Name, i+1)
		switch holds, not, of := p.tried(r, *s.When); {
		case of == 0:
		case not == of:
			all = append(all, p.warning(s.When.At, field, "can never be true, so that nobody is asked in this step", "mend it, or take the step out"))
		case holds == of:
			all = append(all, p.warning(s.When.At, field, "is always true, and so is the step always asked", "mend it, or take it out"))
		}
	}
	return all
}

// tried is on how many of those hosts the condition holds, and on how many it
// does not; none, if it looks at more than labels.
func (p Policy) tried(r Role, c Condition) (holds, not, of int) {
	if len(c.Uses) > 1 || len(c.Uses) == 1 && c.Uses[0] != "labels" {
		return 0, 0, 0
	}
	all := p.thinkable(r, c)
	for _, labels := range all {
		switch err := c.Holds(condition.Facts{Labels: labels}); {
		case err == nil:
			holds++
		case errors.Is(err, condition.ErrNot):
			not++
		}
	}
	return holds, not, len(all)
}

// thinkable are the hosts that the role covers, as far as the condition tells
// them apart; none, if there are too many.
func (p Policy) thinkable(r Role, c Condition) []map[string]string {
	keys := map[string]bool{}
	for _, l := range c.Labels {
		keys[l.Key] = true
	}
	if len(keys) == 0 && len(c.Uses) > 0 {
		return nil // it looks at all of them at once
	}
	all := []map[string]string{{}}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		values, asked := r.Hosts[key]
		if !asked {
			values = append(slices.Clone(p.Labels[key]), "")
		}
		var more []map[string]string
		for _, labels := range all {
			for _, v := range values {
				with := maps.Clone(labels)
				if v != "" {
					with[key] = v
				}
				more = append(more, with)
			}
		}
		if all = more; len(all) > mostTried {
			return nil
		}
	}
	return all
}
