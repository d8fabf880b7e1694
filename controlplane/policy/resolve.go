package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

)

// resolve looks up what the files say of each other.
func (l *loader) resolve() {
	for _, name := range slices.Sorted(maps.Keys(l.roles)) {
		d := l.roles[name]
		r := &reader{file: d.file}
		l.resolveHosts(r, d)
		l.resolveApprovers(r, d)
		l.problems = append(l.problems, r.problems...)
	}
	asked := map[string]bool{}
	for i := range l.entries {
		e := &l.entries[i]
		r := &reader{file: e.file}
		l.resolveEntry(r, e)
		asked[e.role.text] = true
		l.problems = append(l.problems, r.problems...)
	}
	for name, d := range l.roles {
		if !asked[name] {
			l.problems = append(l.problems, Problem{
				File: d.file, Line: d.line, Column: d.column, Field: under("roles", name),
				Text: "nobody is eligible for it", Fix: "name somebody under `eligible`, or take the role out", Warning: true,
			})
		}
	}
}

func (l *loader) resolveHosts(r *reader, d *draft) {
	unknown := map[string]bool{}
	for _, w := range d.selector {
		known, ok := l.labels[w.label.text]
		switch {
		case !ok && !unknown[w.label.text]:
			unknown[w.label.text] = true
			r.bad(w.label.place, w.field, "is no label of the policy", "write one of "+some(l.labels)+", or add it to `labels`")
		case ok && !slices.Contains(known.values, w.value.text):
			r.bad(w.value.place, w.field, quote(w.value.text)+" is no value of the label",
				"write one of "+strings.Join(known.values, ", ")+", or add it to `labels`")
		}
	}
}

func (l *loader) resolveApprovers(r *reader, d *draft) {
	field := under(under("roles", d.Name), "approval")
	for i, w := range d.approvers {
		at := element(field+".by", i)
		name, isGroup := strings.CutPrefix(w.text, "group:")
		switch {
		case !isGroup && r.person(w, at):
			d.Approvers = append(d.Approvers, name)
		case !isGroup:
			d.silent = true
		default:
			people, ok := l.peopleOf(r, word{w.place, name}, at)
			d.silent = d.silent || !ok
			d.Approvers = append(d.Approvers, people...)
		}
	}
	slices.Sort(d.Approvers)
	d.Approvers = slices.Compact(d.Approvers)
	if n := len(d.Approvers); d.Needed > n && !d.silent {
		r.bad(d.approval, field, fmt.Sprintf("wants %d approvals from %s", d.Needed, people(n)), "name more people, or lower `count`")
		d.silent = true
	}
}

func (l *loader) peopleOf(r *reader, w word, field string) ([]string, bool) {
	g, ok := l.groups[w.text]
	if !ok {
		r.bad(w.place, field, quote(w.text)+" is no group", "write one of "+some(l.groups)+", or add it to `groups`")
	}
	return g.people, ok
}

func (l *loader) resolveEntry(r *reader, e *entry) {
	for i, w := range e.groups {
		people, _ := l.peopleOf(r, w, element(under(e.field, "groups"), i))
		for _, name := range people {
			e.people = append(e.people, word{w.place, name})
		}
	}
	if e.role.line == 0 || e.role.text == "" {
		return
	}
	d, ok := l.roles[e.role.text]
	if !ok {
		r.bad(e.role.place, under(e.field, "role"), quote(e.role.text)+" is no role", "write one of "+some(l.roles)+", or add it to `roles`")
		return
	}
	if d.silent || d.Needed == 0 {
		return
	}
	told := map[string]bool{}
	for _, w := range e.people {
		left := len(d.Approvers)
		if slices.Contains(d.Approvers, w.text) {
			left-- // nobody approves her own request
		}
		if left < d.Needed && !told[w.text] {
			told[w.text] = true
			r.bad(w.place, e.field, fmt.Sprintf("%s could never use %s: without her own, %d of %d approvals can come", w.text, d.Name, left, d.Needed),
				"name another approver of the role, or take her out here")
		}
	}
}

func (l *loader) finished() map[string]Role {
	all := map[string]Role{}
	for name, d := range l.roles {
		all[name] = d.Role
	}
	return all
}

// eligible returns who may ask for which role until when. Of several entries
// for one person and role, the one that lasts longest counts.
func (l *loader) eligible() map[string]map[string]time.Time {
	all := map[string]map[string]time.Time{}
	for _, e := range l.entries {
		people := all[e.role.text]
		if people == nil {
			people = map[string]time.Time{}
			all[e.role.text] = people
		}
		for _, w := range e.people {
			was, ok := people[w.text]
			if !ok || !was.IsZero() && (e.until.IsZero() || e.until.After(was)) {
				people[w.text] = e.until
			}
		}
	}
	return all
}

// some lists names, not more than fit on a line.
func some[T any](m map[string]T) string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(m)), func(s string) bool { return plainName(s) != s })
	if len(names) == 0 {
		return "(there is none)"
	}
	if len(names) > 10 {
		names = append(names[:10:10], "…")
	}
	return strings.Join(names, ", ")
}

func people(n int) string {
	if n == 1 {
		return "1 person"
	}
	return fmt.Sprintf("%d people", n)
}

