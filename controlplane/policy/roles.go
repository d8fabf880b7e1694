package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"curfew.internal/grant"
)

const defaultPending = time.Hour

// mostFresh is how old a proof may be at most.
const mostFresh = time.Hour

func (r *reader) roles(n ast.Node) {
	r.pairs(n, "roles", func(name string, k, v ast.Node) {
		field := "roles." + name
		if err := grant.CheckRole(name); err != nil {
			r.wrong(k, field, err.Error(), "")
		}
		if _, twice := r.policy.Roles[name]; twice {
			r.wrong(k, field, "said in two files", "keep one of them")
		}
		r.policy.Roles[name] = r.role(name, field, k, v)
	})
}

// role reads one role. Each key has one reader; what holds between keys is
// looked at when all are read.
func (r *reader) role(name, field string, at, n ast.Node) Role {
	role := Role{Name: name, RunAs: []string{"root"}, ReasonRequired: true, Pending: defaultPending}
	readers := r.roleReaders(&role)
	seen := map[string]ast.Node{}
	r.pairs(n, field, func(key string, k, v ast.Node) {
		read, known := readers[key]
		if !known {
			r.wrong(k, join(field, key), "unknown key", "see docs/policy.md for the keys of a role")
			return
		}
		seen[key] = k
		read(v, join(field, key))
	})
	r.contradictions(role, field, at, seen)
	r.escalates(role, field)
	return role
}

func (r *reader) roleReaders(role *Role) map[string]func(n ast.Node, field string) {
	return map[string]func(n ast.Node, field string){
		"description": func(n ast.Node, f string) {
			role.Description = r.text(n, f)
			if err := grant.CheckText("description", role.Description, 200); err != nil {
				r.wrong(n, f, err.Error(), "")
			}
		},
		"hosts":          func(n ast.Node, f string) { role.Hosts = r.selector(n, f) },
		"all_hosts":      func(n ast.Node, f string) { role.AllHosts = r.flag(n, f) },
		"run_as":         func(n ast.Node, f string) { role.RunAs = r.accounts(n, f) },
		"commands":       func(n ast.Node, f string) { role.Commands = r.commands(n, f) },
		"any_command":    func(n ast.Node, f string) { role.AnyCommand = r.flag(n, f) },
		"noexec":         func(n ast.Node, f string) { role.NoExec = r.flag(n, f) },
		"network":        func(n ast.Node, f string) { role.Network = r.network(n, f) },
		"max_duration":   func(n ast.Node, f string) { role.MaxDuration = r.duration(n, f, time.Second, grant.MaxDuration) },
		"reason":         func(n ast.Node, f string) { role.ReasonRequired = r.choice(n, f) },
		"ticket":         func(n ast.Node, f string) { role.TicketRequired = r.choice(n, f) },
		"ticket_pattern": func(n ast.Node, f string) { role.TicketPattern = r.pattern(n, f) },
		"approval":       func(n ast.Node, f string) { r.approval(n, f, role) },
		"mfa": func(n ast.Node, f string) {
			if s := r.text(n, f); s != "totp" {
				r.wrong(n, f, fmt.Sprintf("%.40q", s), "write totp")
			}
		},
		"freshness": func(n ast.Node, f string) { role.Fresh = r.duration(n, f, time.Minute, mostFresh) },
		"pending":   func(n ast.Node, f string) { role.Pending = r.duration(n, f, time.Minute, 7*24*time.Hour) },
		"lease":     func(n ast.Node, f string) { role.Lease = r.duration(n, f, 0, 24*time.Hour) },
		"drain":     func(n ast.Node, f string) { role.Drain = r.duration(n, f, 0, grant.MaxDrain) },
		"guard":     func(n ast.Node, f string) { role.Unguarded = !r.flag(n, f) },
		"audit": func(n ast.Node, f string) {
			if s := r.text(n, f); s != "required" {
				r.wrong(n, f, fmt.Sprintf("%.40q", s), "write required, or leave it out")
			}
			if role.Audit == grant.AuditAsCan { // else on_gap has said
				role.Audit = grant.AuditEnd
			}
		},
		"on_gap": func(n ast.Node, f string) {
			onGap := map[string]grant.Audit{"end": grant.AuditEnd, "alert": grant.AuditAlert}
			s := r.text(n, f)
			if role.Audit = onGap[s]; role.Audit == grant.AuditAsCan {
				r.wrong(n, f, fmt.Sprintf("%.40q", s), "write end or alert")
			}
		},
		"outside_line":     func(n ast.Node, f string) { role.Outside = r.flag(n, f) },
		"delegation":       func(n ast.Node, f string) { r.lending(n, f, role) },
		"human_signatures": func(n ast.Node, f string) { role.Signed = r.flag(n, f) },
		"record":           func(n ast.Node, f string) { r.record(n, f, role) },
		"when":             func(n ast.Node, f string) { r.when(n, f, role) },
		"leftovers":        func(n ast.Node, f string) { role.Remove = r.leftovers(n, f) },
	}
}

func (r *reader) contradictions(role Role, field string, at ast.Node, seen map[string]ast.Node) {
	for _, must := range []struct{ key, fix string }{
		{"max_duration", "say how long a grant may last at most, such as 4h"},
		{"approval", "say who approves, or none"},
	} {
		if seen[must.key] == nil {
			r.wrong(at, join(field, must.key), "missing", must.fix)
		}
	}
	switch {
	case role.AllHosts && seen["hosts"] != nil:
		r.wrong(seen["all_hosts"], field+".all_hosts", "contradicts hosts", "keep one of them")
	case !role.AllHosts && seen["hosts"] == nil:
		r.wrong(at, field+".hosts", "missing", "name a label of the hosts, or write `all_hosts: true`")
	}
	r.approvalContradictions(role, field, seen)
	if seen["on_gap"] != nil && seen["audit"] == nil {
		r.wrong(seen["on_gap"], field+".on_gap", "no whole record is demanded", "add `audit: required`, or leave on_gap out")
	}
	if role.AnyCommand && seen["commands"] != nil {
		r.wrong(seen["any_command"], field+".any_command", "contradicts commands", "keep one of them")
	}
	if seen["run_as"] != nil && !role.AnyCommand && seen["commands"] == nil {
		r.wrong(seen["run_as"], field+".run_as", "no command to run", "list commands, or leave run_as out")
	}
	if role.NoExec && !role.AnyCommand && seen["commands"] == nil {
		r.wrong(seen["noexec"], field+".noexec", "no command to hold", "list commands, or leave noexec out")
	}
}

// approvalContradictions are those between who approves, and how.
func (r *reader) approvalContradictions(role Role, field string, seen map[string]ast.Node) {
	if seen["approval"] == nil {
		return // which is told
	}
	if role.Signed && role.MayBeUnasked() {
		r.wrong(seen["human_signatures"], field+".human_signatures", "nobody approves, or not always, whose key could sign", "name approvers in a step without `when`, or leave human_signatures out")
	}
	switch at, fresh := seen["freshness"], field+".freshness"; {
	case at == nil:
	case role.MayBeUnasked():
		r.wrong(at, fresh, "nobody approves, or not always: the second factor is all that stands between", "name approvers in a step without `when`, or leave freshness out")
	case role.Signed:
		r.wrong(at, fresh, "people's own keys sign each request, and an earlier proof signs none", "leave freshness or human_signatures out")
	}
	if role.Lending.UpTo > 0 && len(role.Steps) == 0 {
		r.wrong(seen["delegation"], field+".delegation", "nobody approves, whom somebody could stand in for", "name approvers, or leave delegation out")
	}
	if role.Outside && (len(role.Steps) == 0 || slices.Contains(role.By, manager)) {
		r.wrong(seen["outside_line"], field+".outside_line", "nobody approves, or the requester's manager does", "name approvers outside of her line, or leave outside_line out")
	}
}

func (r *reader) accounts(n ast.Node, field string) []string {
	var all []string
	for _, w := range r.list(n, field) {
		if err := grant.CheckAccount(w.text); err != nil {
			r.wrong(w.node, field, err.Error(), "")
		}
		all = append(all, w.text)
	}
	return all
}

func (r *reader) commands(n ast.Node, field string) []grant.Command {
	var all []grant.Command
	for _, w := range r.list(n, field) {
		c, err := grant.ParseCommand(w.text)
		if err != nil {
			r.wrong(w.node, field, err.Error(), "")
			continue
		}
		all = append(all, c)
		r.policy.Places[fmt.Sprintf("%s.%d", field, len(all))] = r.place(w.node)
	}
	return all
}

func (r *reader) network(n ast.Node, field string) []grant.Destination {
	var all []grant.Destination
	for _, w := range r.list(n, field) {
		d, err := grant.ParseDestination(w.text)
		if err != nil {
			r.wrong(w.node, field, err.Error(), "")
			continue
		}
		all = append(all, d)
	}
	return all
}

// record reads what of the sessions' terminals is recorded.
func (r *reader) record(n ast.Node, field string, role *Role) {
	r.pairs(n, field, func(key string, k, v ast.Node) {
		switch key {
		case "terminal":
			role.Unseen = !r.flag(v, field+".terminal")
		case "input":
			role.Typed = r.flag(v, field+".input")
		case "required":
			role.Strict = r.flag(v, field+".required")
		default:
			r.wrong(k, join(field, key), "unknown key", "record has terminal, input and required")
		}
	})
	if role.Unseen && (role.Typed || role.Strict) {
		r.wrong(n, field, "terminal: false leaves nothing to record or to require", "keep terminal, or leave input and required out")
	}
}

// leftovers reads which kinds of what sessions left the end removes.
func (r *reader) leftovers(n ast.Node, field string) []string {
	var kinds []string
	said := false
	r.pairs(n, field, func(key string, k, v ast.Node) {
		if key != "remove" {
			r.wrong(k, join(field, key), "unknown key", "leftovers has remove")
			return
		}
		said = true
		for _, w := range r.list(v, field+".remove") {
			switch {
			case grant.CheckLeftover(w.text) != nil:
				r.wrong(w.node, field+".remove", fmt.Sprintf("%.40q is no kind of leftovers that can be removed", w.text),
					"write some of "+strings.Join(grant.Leftovers(), ", "))
			case slices.Contains(kinds, w.text):
				r.wrong(w.node, field+".remove", w.text+" is said twice", "keep one of them")
			default:
				kinds = append(kinds, w.text)
			}
		}
	})
	if !said {
		r.wrong(n, field+".remove", "missing", "write {remove: [KIND, ...]}, or leave leftovers out")
	}
	slices.Sort(kinds)
	return kinds
}

// lines reads the list at a top key, one line after the other.
func (r *reader) lines(n ast.Node, key, example string, line func(ast.Node, string)) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		r.wrong(n, key, "not a list", "write - "+example+" lines")
		return
	}
	for i, v := range seq.Values {
		line(v, fmt.Sprintf("%s.%d", key, i+1))
	}
}

func (r *reader) eligible(n ast.Node) {
	r.lines(n, "eligible", "{role: ..., people: [...]}", r.eligibility)
}

func (r *reader) eligibility(n ast.Node, field string) {
	e, whole := Eligibility{At: r.place(n)}, true
	r.pairs(n, field, func(key string, k, v ast.Node) {
		switch key {
		case "role":
			e.Role = r.text(v, field+".role")
			if _, known := r.policy.Roles[e.Role]; !known {
				r.wrong(v, field+".role", fmt.Sprintf("unknown role %.64q", e.Role), "name it under roles:")
			}
		case "people":
			people, named, known := r.askers(v, field+".people")
			e.People, e.Named, whole = append(e.People, people...), append(e.Named, named...), whole && known
		case "groups":
			people, named, known := r.members(v, field+".groups")
			e.People, e.Named, whole = append(e.People, people...), append(e.Named, named...), whole && known
		case "from":
			e.From, _ = r.day(v, field+".from", "eligibility begins when that day begins, UTC")
		case "until":
			if t, ok := r.day(v, field+".until", "eligibility ends when that day ends, UTC"); ok {
				e.Until = t.AddDate(0, 0, 1)
			}
		case "review":
			e.Review, _ = r.day(v, field+".review", "from that day on, UTC, it is warned of")
		default:
			r.wrong(k, join(field, key), "unknown key", "eligibility has role, people, groups, from, until and review")
		}
	})
	if e.Role == "" {
		r.wrong(n, field+".role", "missing", "name the role")
	}
	if len(e.People) == 0 && whole {
		r.wrong(n, field+".people", "nobody", "name people or groups")
	}
	if !e.Until.IsZero() && !e.From.Before(e.Until) {
		r.wrong(n, field+".until", "before from: nobody would ever be eligible", "write a later until, or an earlier from")
	}
	slices.Sort(e.People)
	e.People = slices.Compact(e.People)
	r.lonely(n, field, e)
	r.policy.Eligible = append(r.policy.Eligible, e)
}

// day reads a day: the instant at which it begins.
func (r *reader) day(n ast.Node, field, means string) (time.Time, bool) {
	t, err := time.Parse(time.DateOnly, r.text(n, field))
	if err != nil || t.Year() < 2000 || t.Year() > 9000 {
		r.wrong(n, field, "no date", "write YEAR-MONTH-DAY; "+means)
		return time.Time{}, false
	}
	return t, true
}

// askers reads people who may ask: each is named, or in a group.
func (r *reader) askers(n ast.Node, field string) (all, named []string, whole bool) {
	all, named, whole = r.people(n, field)
	if slices.Contains(named, manager) {
		r.wrong(n, field, "nobody is manager of herself", manager+" is for approvals")
	}
	for _, name := range named {
		r.notOnCall(strings.TrimPrefix(name, "group:"), n, field)
	}
	return all, named, whole
}

// members resolves names of groups, as people does.
func (r *reader) members(n ast.Node, field string) (all, named []string, whole bool) {
	whole = true
	for _, w := range r.list(n, field) {
		people, known := r.policy.Groups[w.text]
		if !known {
			r.wrong(w.node, field, fmt.Sprintf("unknown group %.40q", w.text), "name it under groups:")
		}
		r.notOnCall(w.text, w.node, field)
		_, elsewhere := r.policy.Directory[w.text]
		all, named, whole = append(all, people...), append(named, "group:"+w.text), whole && known && !elsewhere
	}
	return all, named, whole
}

// lonely finds people who could ask, and whom nobody else could approve.
func (r *reader) lonely(n ast.Node, field string, e Eligibility) {
	role := r.policy.Roles[e.Role]
	for _, person := range e.People {
		if _, approves := slices.BinarySearch(role.Approvers, person); !approves || role.Outside {
			continue // for her, the steps are as they were read; or the directory says who may
		}
		switch step := starved(role.For(person)); {
		case r.unsure[e.Role] || step == 0:
		case len(role.Steps) == 1:
			r.wrong(n, field, fmt.Sprintf("nobody but %s could approve what %s asks for", person, person), "name another approver in role "+e.Role)
		default:
			r.wrong(n, field, fmt.Sprintf("when %s asks, step %d of the approval could be left without enough people", person, step), "name another approver in role "+e.Role)
		}
	}
}
