package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/policy"
)

// content compares all that a role says.
func (c *comparer) content() {
	a, b := c.a, c.b
	c.moved("max_duration", span(a.MaxDuration), span(b.MaxDuration), up(int64(a.MaxDuration), int64(b.MaxDuration)))
	c.approval()
	c.apart()
	c.lending()
	c.hosts()
	c.commands()
	c.names("run_as", a.RunAs, b.RunAs)
	c.network()
	c.names("leftovers", a.Remove, b.Remove)
	c.moved("guard", fmt.Sprint(!a.Unguarded), fmt.Sprint(!b.Unguarded), choice(!a.Unguarded))
	c.moved("audit", a.Demands(), b.Demands(), up(-int64(a.Audit), -int64(b.Audit)))
	c.moved("record.terminal", fmt.Sprint(!a.Unseen), fmt.Sprint(!b.Unseen), choice(!a.Unseen))
	c.moved("record.input", fmt.Sprint(a.Typed), fmt.Sprint(b.Typed), choice(a.Typed))
	c.moved("record.required", fmt.Sprint(a.Strict), fmt.Sprint(b.Strict), choice(a.Strict))
	c.moved("human_signatures", fmt.Sprint(a.Signed), fmt.Sprint(b.Signed), choice(a.Signed))
	c.moved("outside_line", fmt.Sprint(a.Outside), fmt.Sprint(b.Outside), choice(a.Outside))
	c.moved("noexec", fmt.Sprint(a.NoExec), fmt.Sprint(b.NoExec), choice(a.NoExec))
	c.moved("reason", wanted(a.ReasonRequired), wanted(b.ReasonRequired), choice(a.ReasonRequired))
	c.moved("ticket", wanted(a.TicketRequired), wanted(b.TicketRequired), choice(a.TicketRequired))
	c.when()
	c.moved("ticket_pattern", pattern(a), pattern(b), Other)
	c.moved("pending", span(a.Pending), span(b.Pending), up(int64(a.Pending), int64(b.Pending)))
	c.moved("freshness", a.Freshness(), b.Freshness(), up(int64(a.Fresh), int64(b.Fresh)))
	c.moved("drain", span(a.Drain), span(b.Drain), up(int64(a.Drain), int64(b.Drain)))
	c.moved("lease", lease(a.Lease), lease(b.Lease), up(unbounded(a.Lease), unbounded(b.Lease)))
	c.moved("description", fmt.Sprintf("%q", a.Description), fmt.Sprintf("%q", b.Description), Other)
}

// lending compares whether approvers may be stood in for, and by whom.
func (c *comparer) lending() {
	a, b := c.a.Lending, c.b.Lending
	if a.UpTo != b.UpTo {
		c.moved("delegation", a.String(), b.String(), up(int64(a.UpTo), int64(b.UpTo)))
		return
	}
	switch {
	case len(a.Named) == 0 && len(b.Named) > 0:
		c.moved("delegation", a.String(), b.String(), Narrower)
	case len(a.Named) > 0 && len(b.Named) == 0:
		c.moved("delegation", a.String(), b.String(), Wider)
	default:
		c.names("delegation.to", a.To, b.To)
	}
}

// apart compares the roles that may not be held besides.
func (c *comparer) apart() {
	was, is := c.from.ApartFrom(c.role), c.to.ApartFrom(c.role)
	if more := without(is, was); len(more) > 0 {
		c.add(Narrower, "apart", "is kept apart from "+strings.Join(more, ", "), c.affected())
	}
	if less := without(was, is); len(less) > 0 {
		c.add(Wider, "apart", "is no longer kept apart from "+strings.Join(less, ", "), c.affected())
	}
}

// when compares conditions: each is one more thing that has to hold.
func (c *comparer) when() {
	was, is := conditions(c.a), conditions(c.b)
	if more := without(is, was); len(more) > 0 {
		c.add(Narrower, "when", "has to hold besides: "+strings.Join(more, "; "), c.affected())
	}
	if less := without(was, is); len(less) > 0 {
		c.add(Wider, "when", "has to hold no longer: "+strings.Join(less, "; "), c.affected())
	}
}

// conditions are the role's, as they are judged: what is said of them counts
// for nothing.
func conditions(r policy.Role) []string {
	var all []string
	for _, c := range r.When {
		all = append(all, c.Text)
	}
	return all
}

// approval compares who may approve, and how many have to.
func (c *comparer) approval() {
	if direction := c.doubts(); direction != "" {
		c.moved("approval", steps(c.a), steps(c.b), direction)
		return
	}
	if len(c.a.Steps) > 1 || len(c.b.Steps) > 1 || escalates(c.a) || escalates(c.b) {
		c.moved("approval", steps(c.a), steps(c.b), Other)
		return
	}
	fewer := up(-int64(c.a.Count), -int64(c.b.Count))
	c.moved("approval", approvals(c.a.Count), approvals(c.b.Count), fewer)
	if c.a.Count > 0 && c.b.Count > 0 { // or the change of the count says it
		c.names("approval.by", c.a.Approvers, c.b.Approvers)
	}
}

func escalates(r policy.Role) bool {
	return slices.ContainsFunc(r.Steps, func(s policy.Step) bool { return s.After > 0 })
}

// doubts is the direction of a change of when steps are asked: fewer requests
// have to be approved by a step that had no condition. It is empty if there is
// none in either.
func (c *comparer) doubts() string {
	if !doubtful(c.a) && !doubtful(c.b) {
		return ""
	}
	if len(c.a.Steps) != len(c.b.Steps) {
		return Other
	}
	more, less := false, false
	for i, was := range c.a.Steps {
		is := c.b.Steps[i]
		switch {
		case written(was) != written(is):
			return Other
		case was.When == nil && is.When != nil:
			more = true
		case was.When != nil && is.When == nil:
			less = true
		case was.When != nil && was.When.Text != is.When.Text:
			return Other
		}
	}
	switch {
	case more && !less:
		return Wider
	case less && !more:
		return Narrower
	}
	return Other
}

func doubtful(r policy.Role) bool {
	return slices.ContainsFunc(r.Steps, func(s policy.Step) bool { return s.When != nil })
}

// written is a step without its condition.
func written(s policy.Step) string {
	s.When = nil
	return fmt.Sprint(s)
}

// steps tells an approval of more than one step, or of one that escalates.
func steps(r policy.Role) string {
	var all []string
	for i, s := range r.For("") {
		text := fmt.Sprintf("%d of %s", s.Count, strings.Join(r.Steps[i].By, ", "))
		if s.After > 0 {
			text += fmt.Sprintf(" (after %s also %s)", span(s.After), strings.Join(r.Steps[i].Later, ", "))
		}
		if c := r.Steps[i].When; c != nil {
			text += " (only if " + c.Text + ")"
		}
		all = append(all, text)
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", then ")
}

func approvals(count int) string {
	if count == 0 {
		return "none"
	}
	return fmt.Sprintf("%d by its approvers", count)
}

func (c *comparer) hosts() {
	a, b := c.a, c.b
	key := "hosts"
	if b.AllHosts {
		key = "all_hosts"
	}
	was, is := a.Selector(), b.Selector()
	if was == is && a.AllHosts == b.AllHosts {
		return
	}
	within := func(x, y policy.Role) bool { // each host of x is one of y
		if y.AllHosts {
			return true
		}
		for label, values := range y.Hosts {
			of, said := x.Hosts[label]
			if !said || slices.ContainsFunc(of, func(v string) bool { return !slices.Contains(values, v) }) {
				return false
			}
		}
		return !x.AllHosts
	}
	direction := Other
	switch {
	case within(a, b) && within(b, a): // the same in another order
		return
	case within(a, b):
		direction = Wider
	case within(b, a):
		direction = Narrower
	}
	c.moved(key, was, is, direction)
}

func (c *comparer) commands() {
	switch {
	case c.a.AnyCommand && c.b.AnyCommand:
	case c.b.AnyCommand:
		c.add(Wider, "any_command", "any command, in place of those that are named", c.affected())
	case c.a.AnyCommand:
		c.add(Narrower, "any_command", "the commands that are named, in place of any", c.affected())
	default:
		c.names("commands", texts(c.a.Commands), texts(c.b.Commands))
	}
}

// network compares destinations: naming the first limits what was open.
func (c *comparer) network() {
	was, is := texts(c.a.Network), texts(c.b.Network)
	switch {
	case len(was) == 0 && len(is) > 0:
		c.add(Narrower, "network", "connections are limited to "+strings.Join(is, ", "), c.affected())
	case len(was) > 0 && len(is) == 0:
		c.add(Wider, "network", "connections are no longer limited", c.affected())
	default:
		c.names("network", was, is)
	}
}

// names compares lists in which more is wider.
func (c *comparer) names(kind string, was, is []string) {
	if more := without(is, was); len(more) > 0 {
		c.add(Wider, kind, kind+": "+strings.Join(more, ", ")+" is added", c.affected())
	}
	if less := without(was, is); len(less) > 0 {
		c.add(Narrower, kind, kind+": "+strings.Join(less, ", ")+" is taken out", c.affected())
	}
}

func without(all, those []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(those, s) })
}

func texts[T fmt.Stringer](all []T) []string {
	out := make([]string, 0, len(all))
	for _, v := range all {
		out = append(out, v.String())
	}
	return out
}

func up(was, is int64) string {
	if is > was {
		return Wider
	}
	return Narrower
}

// choice is the direction in which a rule that was asked for, or was not,
// changes.
func choice(was bool) string {
	if was {
		return Wider
	}
	return Narrower
}

func wanted(required bool) string {
	if required {
		return "required"
	}
	return "optional"
}

func pattern(r policy.Role) string {
	if r.TicketPattern == nil {
		return "none"
	}
	return r.TicketPattern.String()
}

func lease(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return span(d)
}

// unbounded is a lease as a bound: none is the widest.
func unbounded(d time.Duration) int64 {
	if d == 0 {
		return 1<<63 - 1
	}
	return int64(d)
}

func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
