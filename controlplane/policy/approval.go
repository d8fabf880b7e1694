package policy

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// approval reads who has to say yes: none, one step, or a list of steps.
func (r *reader) approval(n ast.Node, field string, role *Role) {
	if s, ok := scalar(n); ok {
		if s != "none" {
			r.wrong(n, field, fmt.Sprintf("%.40q", s), "write {by: [...], count: 1}, or none for a role that nobody has to approve")
		}
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		r.step(n, field, role)
	} else {
		if len(seq.Values) == 0 || len(seq.Values) > maxSteps {
			r.wrong(n, field, fmt.Sprintf("%d steps", len(seq.Values)), fmt.Sprintf("write 1 to %d, or none", maxSteps))
			r.unsure[role.Name] = true
		}
		for i, v := range seq.Values {
			r.step(v, fmt.Sprintf("%s.%d", field, i+1), role)
		}
	}
	var people []string
	for _, s := range role.Steps {
		people, role.By = slices.Concat(people, s.By, s.Later), slices.Concat(role.By, s.Named, s.LaterNamed)
	}
	role.Count = total(role.For(""))
	slices.Sort(people)
	role.Approvers = slices.Compact(people)
}

func (r *reader) step(n ast.Node, field string, role *Role) {
	s := Step{Count: 1}
	var by ast.Node
	whole := true
	r.pairs(n, field, func(key string, k, v ast.Node) {
		switch key {
		case "by":
			by = v
			s.By, s.Named, whole = r.people(v, field+".by")
		case "count":
			s.Count = r.count(v, field+".count")
		case "escalate":
			known := r.escalation(v, field+".escalate", &s)
			whole = whole && known
		case "when":
			s.When = r.condition(v, field+".when")
		default:
			r.wrong(k, join(field, key), "unknown key", "a step of approval has by, count, escalate and when")
		}
	})
	if by == nil {
		r.wrong(n, field, "by is missing", "name the people or groups who may approve")
		whole = false
	}
	role.Steps = append(role.Steps, s)
	if r.unsure[role.Name] = r.unsure[role.Name] || !whole; r.unsure[role.Name] {
		return
	}
	if at := starved(role.For("")); at == len(role.Steps) {
		if at == 1 {
			r.wrong(by, field+".by", fmt.Sprintf("%d people cannot give %d approvals", len(still(slices.Concat(s.By, s.Later), nil)), s.Count), "name more, or lower count")
		} else {
			r.wrong(by, field+".by", "could be left without enough people: who approves in a step does not count again in a later one",
				"name more, or others than in the steps before")
		}
		r.unsure[role.Name] = true
	}
}

// count reads how many have to approve: a number, any or all.
func (r *reader) count(n ast.Node, field string) int {
	switch s := r.text(n, field); s {
	case "any":
		return 1
	case "all":
		return 0
	default:
		c, err := strconv.Atoi(s)
		if err != nil || c < 1 || c > 10 {
			r.wrong(n, field, "not a number of approvals", "write 1 to 10, any or all")
			return 1
		}
		return c
	}
}

// escalation reads who else may approve, once nobody did for so long.
func (r *reader) escalation(n ast.Node, field string, s *Step) (whole bool) {
	whole = true
	r.pairs(n, field, func(key string, k, v ast.Node) {
		switch key {
		case "after":
			s.After = r.duration(v, field+".after", time.Minute, 7*24*time.Hour)
		case "to":
			s.Later, s.LaterNamed, whole = r.people(v, field+".to")
		default:
			r.wrong(k, join(field, key), "unknown key", "escalate has after and to")
		}
	})
	if s.After == 0 || len(s.LaterNamed) == 0 {
		r.wrong(n, field, "after or to is missing", "write {after: 15m, to: [NAME, group:NAME]}")
		whole = false
	}
	return whole
}

// escalates finds steps that would pass to others after the request lapsed.
func (r *reader) escalates(role Role, field string) {
	var before time.Duration
	for i, s := range role.Steps {
		before += s.After
		if s.After > 0 && before >= role.Pending {
			at, key := r.policy.Places[field+".approval"], field+".approval.escalate"
			if p, ok := r.policy.Places[fmt.Sprintf("%s.approval.%d.escalate", field, i+1)]; ok {
				at, key = p, fmt.Sprintf("%s.approval.%d.escalate", field, i+1)
			} else if p, ok := r.policy.Places[key]; ok {
				at = p
			}
			r.problems = append(r.problems, Problem{
				File: at.File, Line: at.Line, Column: at.Column, Field: key,
				Text: "comes too late: a request lapses after " + span(role.Pending), Fix: "escalate sooner, or write a longer pending",
			})
			return
		}
	}
}
