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

// Judge says what a request needs, or refuses it and says what to change: all
// of it at once.
func (p Policy) Judge(q roster.Question, hosts []roster.Host, at time.Time) (roster.Verdict, error) {
	role, known := p.Roles[q.Role]
	until, ok := p.EligibleUntil(q.Person, q.Role, at)
	if from := p.eligibleFrom(q.Person, q.Role, at); known && !ok && !from.IsZero() {
		return roster.Verdict{}, roster.Refuse(roster.Denied, "you are eligible for role %s from %s on, and not before: ask for a start from then on",
			q.Role, from.Format("2006-01-02 15:04 MST"))
	}
	if !known || !ok {
		return roster.Verdict{}, roster.Refuse(roster.Denied, "you are not eligible for role %.64q: %s", q.Role, p.others(q.Person, at))
	}
	wrong := slices.Concat(role.wrongHosts(q.Hosts, hosts), role.wrongTime(q.Duration), role.wrongWords(q), p.unmet(role, q, hosts, at))
	if !until.IsZero() && at.Add(q.Duration).After(until) {
		wrong = append(wrong, fmt.Sprintf("you are eligible for role %s until %s: ask for %s or less",
			role.Name, until.Format("2006-01-02 15:04 MST"), span(until.Sub(at).Truncate(time.Minute))))
	}
	if other := p.eligibleApart(q.Person, q.Role); other != "" {
		wrong = append(wrong, fmt.Sprintf("you are eligible for role %s as well, and the policy keeps the two apart: ask who keeps it to take you out of one", other))
	}
	steps, doubts, not := p.asked(role, q, hosts, at)
	who := approvers(steps)
	nobody := p.missed(role.By, p.AsOf)
	if starved(steps) > 0 {
		but := "but you"
		if role.Outside {
			but = "outside of your reporting line, as the directory knows it,"
		}
		text := fmt.Sprintf("role %s needs %d approvals, and only %d people %s may give one: ask for another approver in the policy",
			role.Name, total(steps), len(who), but)
		if nobody != "" {
			text += " (" + nobody + ")"
		}
		wrong = append(wrong, text)
	}
	if len(wrong) > 0 {
		return roster.Verdict{Nobody: nobody}, roster.Refuse(roster.Invalid, "%s", strings.Join(wrong, "; "))
	}
	return roster.Verdict{
		Role: role.Grant(), Lease: role.Lease, Needed: total(steps), Steps: steps, Doubts: doubts, Approvers: who, Spared: without(approvers(not), who...), Waits: role.Pending, Fresh: role.Fresh, Version: p.Version,
		Apart: p.ApartFrom(role.Name), OnCall: p.onDuty(role.By, p.AsOf), Nobody: nobody,
	}, nil
}

// others says what the person may ask for instead. It tells no role that is
// not hers.
func (p Policy) others(person string, at time.Time) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(p.Roles)) {
		if _, ok := p.EligibleUntil(person, name, at); ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "there is no role that you may ask for; ask who keeps the policy to make you eligible"
	}
	return "you may ask for " + strings.Join(names, ", ")
}

func (r Role) wrongHosts(asked []string, hosts []roster.Host) []string {
	if len(asked) == 0 {
		return []string{"say on which host: --on HOST"}
	}
	covered := map[string]bool{}
	for _, h := range hosts {
		covered[h.Name] = r.Covers(h.Labels)
	}
	var wrong []string
	for _, name := range asked {
		if !covered[name] {
			// A host that is not there and one that is not the role's read the
			// same: no list of hosts can be had by asking.
			wrong = append(wrong, fmt.Sprintf("role %s covers hosts with %s, and %.64q is none of them: see `curfew roles`", r.Name, r.Selector(), name))
		}
	}
	return wrong
}

func (r Role) wrongTime(d time.Duration) []string {
	switch {
	case d < time.Second || d%time.Second != 0:
		return []string{fmt.Sprintf("say for how long, up to %s, in whole seconds: --for TIME", span(r.MaxDuration))}
	case d > r.MaxDuration:
		return []string{fmt.Sprintf("role %s lasts %s at most: ask for that or less", r.Name, span(r.MaxDuration))}
	}
	return nil
}

func (r Role) wrongWords(q roster.Question) []string {
	var wrong []string
	for _, err := range []error{grant.CheckText("reason", q.Reason, 500), grant.CheckText("ticket", q.Ticket, 100)} {
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if r.ReasonRequired && strings.TrimSpace(q.Reason) == "" {
		wrong = append(wrong, fmt.Sprintf("role %s wants a reason: --why TEXT", r.Name))
	}
	if r.TicketRequired && q.Ticket == "" {
		wrong = append(wrong, fmt.Sprintf("role %s wants a ticket: --ticket ID", r.Name))
	}
	if q.Ticket != "" && r.TicketPattern != nil && r.TicketPattern.FindString(q.Ticket) != q.Ticket {
		wrong = append(wrong, fmt.Sprintf("the ticket does not look like one of role %s: it has to match %s", r.Name, r.TicketPattern))
	}
	return wrong
}

// Offers lists what the person may ask for.
func (p Policy) Offers(person string, hosts []roster.Host, at time.Time) []roster.Offer {
	var offers []roster.Offer
	for _, name := range slices.Sorted(maps.Keys(p.Roles)) {
		if until, ok := p.EligibleUntil(person, name, at); ok {
			offers = append(offers, p.offer(name, person, hosts, until))
		}
	}
	return offers
}

// Ahead lists what the person may not ask for yet, and may from a later day on.
func (p Policy) Ahead(person string, hosts []roster.Host, at time.Time) []roster.Offer {
	var offers []roster.Offer
	for _, name := range slices.Sorted(maps.Keys(p.Roles)) {
		from := p.eligibleFrom(person, name, at)
		if _, already := p.EligibleUntil(person, name, at); already || from.IsZero() {
			continue
		}
		until, _ := p.EligibleUntil(person, name, from)
		o := p.offer(name, person, hosts, until)
		o.From = from
		offers = append(offers, o)
	}
	return offers
}

func (p Policy) offer(name, person string, hosts []roster.Host, until time.Time) roster.Offer {
	r := p.Roles[name]
	var covered []string
	for _, h := range hosts {
		if r.Covers(h.Labels) {
			covered = append(covered, h.Name)
		}
	}
	slices.Sort(covered)
	var always []roster.Step
	for _, s := range r.Steps {
		if s.When == nil {
			always = append(always, r.step(s, person))
		}
	}
	return roster.Offer{
		Role: r.Grant(), Description: r.Description, Hosts: covered, Selector: r.Selector(), MaxDuration: r.MaxDuration,
		ReasonRequired: r.ReasonRequired, TicketRequired: r.TicketRequired, Fresh: r.Fresh,
		Approvers: approvers(always), Needed: total(always), Doubtful: doubtful(r, person),
		Anybody: p.MayApprove(name, person), Most: total(r.For(person)), Until: until, When: conditions(r),
	}
}

// conditions are the role's, as people read them.
func conditions(r Role) []string {
	var all []string
	for _, c := range r.When {
		all = append(all, c.String())
	}
	return all
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
