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

// A Case is what somebody might ask for. What is left out is not judged: the
// explanation says what would be judged of it.
type Case struct {
	Person string
	Role   string
	Host   *roster.Host
	For    time.Duration
	Reason *string
	Ticket *string
	Source string // the address from which it is asked
	Risk   roster.Risk
	At     time.Time
	Away   []roster.Delegation // that stand then
}

// The ways in which a rule decides.
const (
	Allows  = "allows"
	Refuses = "refuses"
	Needs   = "needs" // it allows, once this is there
)

// A Finding is what one rule says of a case.
type Finding struct {
	Rule  string `json:"rule"` // role, eligibility, hosts, duration, until, reason, ticket, when, apart, freshness, approval, delegation
	Says  string `json:"says"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
	Place Place  `json:"place"`
}

// An Explanation is what each rule says of a case.
type Explanation struct {
	Allowed   bool      `json:"allowed"`
	Needed    int       `json:"approvals"`
	Approvers []string  `json:"approvers"`
	Freshness string    `json:"freshness"` // how old a proof may be with which it is asked for; none
	Findings  []Finding `json:"findings"`
}

// Refusing are the rules that refuse, sorted, each once.
func (e Explanation) Refusing() []string {
	var all []string
	for _, f := range e.Findings {
		if f.Says == Refuses {
			all = append(all, f.Rule)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Explain says of each rule whether it lets the person ask, and where it
// stands. It is for those who keep the policy: it tells of every role.
func (p Policy) Explain(c Case) Explanation {
	p = p.OnCall(c.At)
	role, ok := p.Roles[c.Role]
	if !ok {
		names := strings.Join(slices.Sorted(maps.Keys(p.Roles)), ", ")
		return Explanation{Findings: []Finding{{Rule: "role", Says: Refuses, Text: fmt.Sprintf("there is no role %.64q", c.Role), Fix: "the policy has " + names}}}
	}
	x := &explainer{policy: p, role: role, c: c}
	until, eligible := x.eligibility()
	if eligible {
		x.hosts()
		x.duration(until)
		x.words()
		x.when()
		x.apart()
		x.freshness()
	}
	steps := x.approval()
	x.delegation()
	e := Explanation{Needed: total(steps), Approvers: approvers(steps), Freshness: role.Freshness(), Findings: x.found}
	e.Allowed = len(e.Refusing()) == 0
	return e
}

type explainer struct {
	policy Policy
	role   Role
	c      Case
	found  []Finding
}

// say notes what the rule at a key of the role says; the role itself stands
// for a key that is not written.
func (x *explainer) say(rule, key, says, text, fix string) {
	at, written := x.policy.Places["roles."+x.role.Name+"."+key]
	if !written {
		at = x.policy.Places["roles."+x.role.Name]
	}
	x.found = append(x.found, Finding{Rule: rule, Says: says, Text: text, Fix: fix, Place: at})
}

// eligibility tells each line that names the person, or that none does.
func (x *explainer) eligibility() (until time.Time, ok bool) {
	until, ok = x.policy.EligibleUntil(x.c.Person, x.role.Name, x.c.At)
	named := false
	for _, e := range x.policy.Eligible {
		if e.Role != x.role.Name || !slices.Contains(e.People, x.c.Person) {
			continue
		}
		named = true
		switch {
		case e.Stands(x.c.At) || !ok: // else by another line
			x.found = append(x.found, x.entry(e))
		case e.From.After(x.c.At) && (until.IsZero() || e.From.Before(until)):
			x.found = append(x.found, x.goesOn(e))
		}
	}
	if !named {
		x.nobody()
	}
	return until, ok
}

// goesOn tells of a line that begins before those that stand leave a gap.
func (x *explainer) goesOn(e Eligibility) Finding {
	end := "without end"
	if !e.Until.IsZero() {
		end = "to the end of " + e.Until.AddDate(0, 0, -1).Format(time.DateOnly)
	}
	text := fmt.Sprintf("%s goes on being eligible %s from %s on, %s", x.c.Person, x.by(e.Named), e.From.Format(time.DateOnly), end)
	return Finding{Rule: "eligibility", Says: Allows, Text: text, Place: e.At}
}

// entry tells of a line that names the person whether it counts, and if not,
// when it did or will.
func (x *explainer) entry(e Eligibility) Finding {
	f := Finding{Rule: "eligibility", Says: Refuses, Place: e.At}
	last := e.Until.AddDate(0, 0, -1).Format(time.DateOnly)
	switch who := x.c.Person; {
	case x.c.At.Before(e.From):
		f.Text = fmt.Sprintf("%s will be eligible %s, and that begins on %s", who, x.by(e.Named), e.From.Format(time.DateOnly))
		f.Fix = "ask for a start from then on, or write an earlier from, if she needs it now"
	case !e.Stands(x.c.At):
		f.Text, f.Fix = fmt.Sprintf("%s was eligible %s, and that ended with %s", who, x.by(e.Named), last), "write a later day, if she still needs it"
	case e.Until.IsZero():
		f.Says, f.Text = Allows, who+" is eligible "+x.by(e.Named)+", without end"
	default:
		f.Says, f.Text = Allows, fmt.Sprintf("%s is eligible %s, to the end of %s", who, x.by(e.Named), last)
	}
	return f
}

// nobody tells who is eligible, where the person is not.
func (x *explainer) nobody() {
	var lines []Eligibility
	for _, e := range x.policy.Eligible {
		if e.Role == x.role.Name {
			lines = append(lines, e)
		}
	}
	fix := "add her to a line, or to a group of it, if she needs the role"
	if len(lines) == 0 {
		x.say("eligibility", "", Refuses, fmt.Sprintf("no line under eligible: has role %s: nobody may ask for it", x.role.Name), "add a line, if somebody needs the role")
	}
	for _, e := range lines {
		x.found = append(x.found, Finding{
			Rule: "eligibility", Says: Refuses, Text: fmt.Sprintf("%s is not among %s", x.c.Person, x.written(e.Named)), Fix: fix, Place: e.At,
		})
	}
}

// by says how a person comes to be among those that are written.
func (x *explainer) by(named []string) string {
	var groups []string
	for _, n := range named {
		if n == x.c.Person {
			return "by name"
		}
		group, is := strings.CutPrefix(n, "group:")
		if is && slices.Contains(x.policy.Groups[group], x.c.Person) {
			groups = append(groups, fmt.Sprintf("as a member of group %s (%s)", group, x.policy.Places["groups."+group]))
		}
	}
	return strings.Join(groups, " and ")
}

// written names people and groups, groups with who is in them.
func (x *explainer) written(named []string) string {
	var all []string
	for _, n := range named {
		if group, is := strings.CutPrefix(n, "group:"); is {
			n = fmt.Sprintf("group %s (%s)", group, x.policy.onCall(group, x.c.At))
		}
		if n == manager {
			n = "the manager of " + x.c.Person
			if m := x.policy.Kept.Managers[x.c.Person]; m != "" {
				n += " (" + m + ")"
			}
		}
		all = append(all, n)
	}
	return strings.Join(all, ", ")
}

func (x *explainer) hosts() {
	key, host := "hosts", x.c.Host
	if x.role.AllHosts {
		key = "all_hosts"
	}
	switch {
	case host == nil:
		x.say("hosts", key, Allows, "the role covers "+x.covered(), "")
	case x.role.Covers(host.Labels):
		x.say("hosts", key, Allows, fmt.Sprintf("the role covers %s, and %s is one", x.covered(), host.Name), "")
	default:
		x.say("hosts", key, Refuses, fmt.Sprintf("the role covers %s, and %s has %s", x.covered(), host.Name, labels(host.Labels)),
			"ask for a role that covers it, or mend the host's labels")
	}
}

func (x *explainer) covered() string {
	if x.role.AllHosts {
		return "every host"
	}
	return "hosts with " + x.role.Selector()
}

func labels(of map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(of)) {
		all = append(all, k+"="+of[k])
	}
	if len(all) == 0 {
		return "no labels"
	}
	return strings.Join(all, ", ")
}

func (x *explainer) duration(until time.Time) {
	d, most := x.c.For, x.role.MaxDuration
	switch {
	case d == 0:
		x.say("duration", "max_duration", Allows, "a grant lasts "+span(most)+" at most", "")
	case d < time.Second || d%time.Second != 0:
		x.say("duration", "max_duration", Refuses, d.String()+" is no time of whole seconds", "ask for up to "+span(most))
	case d > most:
		x.say("duration", "max_duration", Refuses, span(d)+" is more than the "+span(most)+" that a grant lasts at most", "ask for that or less")
	default:
		x.say("duration", "max_duration", Allows, span(d)+" is within the "+span(most)+" that a grant lasts at most", "")
	}
	if d > 0 && !until.IsZero() && x.c.At.Add(d).After(until) {
		last, _ := x.policy.EndsWith(x.c.Person, x.role.Name, x.c.At, until)
		x.found = append(x.found, Finding{
			Rule: "until", Says: Refuses, Text: fmt.Sprintf("the grant would outlast the eligibility, which ends at %s", until.Format("2006-01-02 15:04 MST")),
			Fix: "ask for " + span(until.Sub(x.c.At).Truncate(time.Minute)) + " or less", Place: last.At,
		})
	}
}

func (x *explainer) words() {
	r, q := x.role, x.c
	switch {
	case q.Reason != nil && grant.CheckText("reason", *q.Reason, 500) != nil:
		x.say("reason", "reason", Refuses, grant.CheckText("reason", *q.Reason, 500).Error(), "write it anew")
	case q.Reason == nil && r.ReasonRequired:
		x.say("reason", "reason", Needs, "a reason", "")
	case q.Reason != nil && r.ReasonRequired && strings.TrimSpace(*q.Reason) == "":
		x.say("reason", "reason", Refuses, "a reason is required, and none is given", "--why TEXT")
	}
	switch {
	case q.Ticket == nil && r.TicketRequired:
		text := "a ticket"
		if r.TicketPattern != nil {
			text += " that matches " + r.TicketPattern.String()
		}
		x.say("ticket", "ticket", Needs, text, "")
	case q.Ticket == nil:
	case grant.CheckText("ticket", *q.Ticket, 100) != nil:
		x.say("ticket", "ticket", Refuses, grant.CheckText("ticket", *q.Ticket, 100).Error(), "write it anew")
	case *q.Ticket == "" && r.TicketRequired:
		x.say("ticket", "ticket", Refuses, "a ticket is required, and none is given", "--ticket ID")
	case *q.Ticket != "" && r.TicketPattern != nil && r.TicketPattern.FindString(*q.Ticket) != *q.Ticket:
		x.say("ticket", "ticket_pattern", Refuses, fmt.Sprintf("ticket %q does not match %s as a whole", *q.Ticket, r.TicketPattern), "give one that does")
	}
}

func (x *explainer) apart() {
	other := x.policy.eligibleApart(x.c.Person, x.role.Name)
	for _, a := range x.policy.Apart {
		if a.Eligibility && other != "" && slices.Contains(a.Roles, x.role.Name) && slices.Contains(a.Roles, other) {
			x.found = append(x.found, Finding{Rule: "apart", Says: Refuses, Text: x.c.Person + " is eligible for " + other + ", too, which is kept apart", Fix: "take her out of one", Place: a.At})
			continue
		}
		if slices.Contains(a.Roles, x.role.Name) {
			others := strings.Join(without(a.Roles, x.role.Name), " or ")
			x.found = append(x.found, Finding{Rule: "apart", Says: Needs, Text: "no live grant of " + others + ", which is kept apart", Place: a.At})
		}
	}
}

// freshness tells of a role that does not take a proof for each request. Of the
// others there is nothing to tell.
func (x *explainer) freshness() {
	if x.role.Fresh > 0 {
		x.say("freshness", "freshness", Allows, "a proof of the second factor counts that was made on the same session for another request, an extension or an approval, less than "+span(x.role.Fresh)+" before", "")
	}
}

// approval tells of each step whether it is asked, and of whom. What decides
// that and is not said counts as doubt: the step is among those that are asked.
func (x *explainer) approval() (asked []roster.Step) {
	if len(x.role.Steps) == 0 {
		x.say("approval", "approval", Allows, "nobody has to approve: a second factor is enough"+x.byName(), "")
		return nil
	}
	steps := x.role.For(x.c.Person)
	for i, s := range x.role.Steps {
		if _, is := x.asks(s); is {
			asked = append(asked, steps[i])
		}
	}
	short, n := starved(asked), 0
	for i, s := range x.role.Steps {
		key, which := "approval", ""
		if len(steps) > 1 {
			key, which = fmt.Sprintf("approval.%d", i+1), fmt.Sprintf("step %d of %d: ", i+1, len(steps))
		}
		why, is := x.asks(s)
		if !is {
			x.say("approval", key+".when", Allows, which+why, "")
			continue
		}
		n++
		text := which + x.step(s, steps[i]) + why
		if n == short {
			x.say("approval", key+".by", Refuses, text+": too few could be left", "name another approver")
			continue
		}
		x.say("approval", key+".by", Needs, text, "")
	}
	if len(asked) == 0 {
		x.say("approval", "approval", Allows, "so nobody has to approve: a second factor is enough"+x.byName(), "")
	}
	return asked
}

// byName says where the role is named as one that nobody has to approve in
// production.
func (x *explainer) byName() string {
	if p := x.policy.Production; slices.Contains(p.Unapproved, x.role.Name) {
		return fmt.Sprintf(", in production too, as is said of the role by name (%s)", x.policy.Places["production.unapproved"])
	}
	return ""
}

// asks says whether a step is asked, and why.
func (x *explainer) asks(s Step) (why string, is bool) {
	if s.When == nil {
		return "", true
	}
	if unsaid := x.unsaid(*s.When); len(unsaid) > 0 {
		return fmt.Sprintf("; it is asked only if %s, judged by what is not said here (%s)", s.When.If(), strings.Join(unsaid, ", ")), true
	}
	if why = s.When.because(x.facts()); why == "" {
		return "not asked, since it is not so that " + s.When.If(), false
	}
	return "; it is asked because " + why, true
}

// step tells of whom a step is asked.
func (x *explainer) step(s Step, of roster.Step) string {
	word := "approvals"
	if of.Count == 1 {
		word = "approval"
	}
	text := fmt.Sprintf("%d %s by %s", of.Count, word, x.written(s.Named))
	if s.After > 0 {
		text += fmt.Sprintf(", and from %s on by %s", span(s.After), x.written(s.LaterNamed))
	}
	if slices.Contains(s.By, x.c.Person) || slices.Contains(s.Later, x.c.Person) {
		text += "; " + x.c.Person + " does not count for her own request"
	}
	if x.role.Outside {
		text += x.line()
	}
	return text
}

// line tells of the approvers those whom the role keeps from approving.
func (x *explainer) line() string {
	out := keep(without(x.role.Approvers, x.c.Person), func(approver string) bool { return !x.role.outside(x.c.Person, approver) })
	if len(out) == 0 {
		return "; none of them is in her reporting line"
	}
	return "; in her reporting line, or not shown by the directory to be out of it: " + roster.Some(out, ", ")
}
