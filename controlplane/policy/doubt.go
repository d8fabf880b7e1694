package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"curfew.internal/controlplane/policy/condition"
	"curfew.internal/controlplane/roster"
)

// MayBeUnasked reports whether there are requests for the role that nobody has
// to approve: all of them, or those with which no step's condition holds.
func (r Role) MayBeUnasked() bool {
	return !slices.ContainsFunc(r.Steps, func(s Step) bool { return s.When == nil })
}

// risks are the facts of that kind that the condition looks at.
func (c Condition) risks() []string {
	return keep(condition.Risks, func(name string) bool { return slices.Contains(c.Uses, name) })
}

// asked are the steps that this request is asked for, the doubts by which some
// of them are, and those that are not.
func (p Policy) asked(r Role, q roster.Question, hosts []roster.Host, at time.Time) (steps []roster.Step, doubts []roster.Doubt, not []roster.Step) {
	for _, s := range r.Steps {
		step := r.step(s, q.Person)
		if s.When == nil {
			steps = append(steps, step)
			continue
		}
		if step.Because = p.doubt(r, *s.When, q, hosts, at); step.Because == "" {
			not = append(not, step)
			continue
		}
		steps, doubts = append(steps, step), append(doubts, roster.Doubt{If: s.When.Text, Because: step.Because})
	}
	return steps, doubts, not
}

// doubt is why a step with this condition is asked; empty, if it is not. It is
// if the condition holds on one of the hosts, or cannot be judged on one; and if
// it did when it was asked: whoever waits for the morning has the night's
// approvers all the same.
func (p Policy) doubt(r Role, c Condition, q roster.Question, hosts []roster.Host, at time.Time) string {
	if i := slices.IndexFunc(q.Doubts, func(d roster.Doubt) bool { return d.If == c.Text }); i >= 0 {
		return q.Doubts[i].Because
	}
	f, then := p.facts(q, at), p.groupsThen(q.Person, at)
	judged := false
	for _, h := range hosts {
		if !slices.Contains(q.Hosts, h.Name) || !r.Covers(h.Labels) {
			continue
		}
		judged = true
		f.Host, f.Labels = h.Name, h.Labels
		for _, groups := range [][]string{f.Groups, then} {
			f := f
			f.Groups = groups
			if why := c.because(f); why != "" {
				return why
			}
		}
	}
	if !judged {
		return "none of the hosts is known, to judge by whether this holds: " + c.String()
	}
	return ""
}

// because is why a step is asked whose condition this is, in words that go on
// from "because"; empty, if it does not hold.
func (c Condition) because(f condition.Facts) string {
	err := c.Holds(f)
	if errors.Is(err, condition.ErrNot) {
		return ""
	}
	facts := looked(c, f)
	switch risks := c.risks(); {
	case err == nil && c.Say != "":
		return c.Say
	case len(facts) > 0 && len(risks) == len(c.Uses):
		return strings.Join(facts, ", and ")
	case err == nil:
		return strings.Join(append([]string{"this holds: " + c.Text}, facts...), "; ")
	}
	return fmt.Sprintf("it cannot be judged whether this holds: %s (%v)", c, err)
}

// looked are the facts of risk that the condition looks at, in words.
func looked(c Condition, f condition.Facts) []string {
	var all []string
	for _, name := range c.risks() {
		if text := inWords(name, f); text != "" {
			all = append(all, text)
		}
	}
	return all
}

// inWords tells a fact of risk; empty, if there is nothing to tell of it.
func inWords(name string, f condition.Facts) string {
	const unknown = " is not known"
	switch x := f.Risk; name {
	case condition.NewNetwork:
		if x.NewNetwork == nil {
			return "the network that the request comes from" + unknown
		}
		if *x.NewNetwork {
			return "the request comes from a network that is new for " + f.Person
		}
	case condition.FirstTime:
		if x.FirstTime == nil {
			return "whether " + f.Person + " was ever granted this role" + unknown
		}
		if *x.FirstTime {
			return f.Person + " was never granted this role before"
		}
	case condition.FactorRefused:
		if x.FactorRefused == nil {
			return "how often a factor was refused for " + f.Person + unknown
		}
		if n := *x.FactorRefused; n > 0 {
			return fmt.Sprintf("a factor was refused for %s in the hour before (times: %d)", f.Person, n)
		}
	case condition.FactorAge:
		if x.FactorAge == nil {
			return "when the newest factor of " + f.Person + " was enrolled" + unknown
		}
		return fmt.Sprintf("the newest factor of %s was enrolled %s before", f.Person, roughly(*x.FactorAge))
	}
	return ""
}

// roughly is a time to the minute, or to the day if it is many hours.
func roughly(d time.Duration) string {
	if d >= 48*time.Hour {
		return days(d.Truncate(24 * time.Hour))
	}
	return span(d.Truncate(time.Minute))
}

// approvers are all of the steps' people, sorted, each once.
func approvers(steps []roster.Step) []string {
	all := []string{}
	for _, s := range steps {
		all = slices.Concat(all, s.By, s.Later)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// doubtful tells of each step that is not always asked whose word it takes, and
// when.
func doubtful(r Role, person string) []string {
	var all []string
	for _, s := range r.Steps {
		if s.When == nil {
			continue
		}
		step := r.step(s, person)
		all = append(all, fmt.Sprintf("%d of %s, if %s", step.Count, roster.Some(step.By, ", "), s.When.If()))
	}
	return all
}

// If is the condition in words that go on from "if": what its author says, or
// the fact that it looks at, or the expression.
func (c Condition) If() string {
	words := map[string]string{
		condition.NewNetwork: "the request comes from a network that is new for who asks", condition.FirstTime: "the role was never granted to who asks",
	}
	if text := words[c.Text]; c.Say == "" && text != "" {
		return text
	}
	return c.String()
}

// ParseRisk reads facts of risk by their names, as in new_network: true. What is
// not among them is not known.
func ParseRisk(facts map[string]string) (roster.Risk, error) {
	var r roster.Risk
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(facts)) {
		var err error
		switch value := facts[name]; "risk." + name {
		case condition.NewNetwork:
			r.NewNetwork, err = yesOrNo(value)
		case condition.FirstTime:
			r.FirstTime, err = yesOrNo(value)
		case condition.FactorRefused:
			var n int
			if n, err = strconv.Atoi(value); err != nil || n < 0 {
				err = fmt.Errorf("%.40q is no number", value)
			}
			r.FactorRefused = &n
		case condition.FactorAge:
			var age time.Duration
			age, err = ParseDuration(value)
			r.FactorAge = &age
		default:
			err = fmt.Errorf("%.40q is no fact", name)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%.40s: %w", name, err))
		}
	}
	return r, errors.Join(wrong...)
}

func yesOrNo(value string) (*bool, error) {
	b := value == "true"
	if !b && value != "false" {
		return nil, fmt.Errorf("%.40q is neither true nor false", value)
	}
	return &b, nil
}
