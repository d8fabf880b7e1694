package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"curfew.internal/grant"
)

// text reads a string.
func (r *reader) text(n ast.Node, field string) string {
	s, ok := scalar(n)
	if !ok {
		r.wrong(n, field, "not a plain value", "write one word or a quoted text; anchors and aliases are not read")
	}
	return s
}

// list reads a string, or a list of them.
func (r *reader) list(n ast.Node, field string) []word {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		if s, plain := scalar(n); plain && s != "" {
			return []word{{s, n}}
		}
		r.wrong(n, field, "not a list", "write [a, b]")
		return nil
	}
	var all []word
	for _, v := range seq.Values {
		if s, ok := member(v); ok {
			all = append(all, word{s, v})
			continue
		}
		if s := r.text(v, field); s != "" {
			all = append(all, word{s, v})
		} else {
			r.wrong(v, field, "an empty value", "write a word, or take it out")
		}
	}
	if len(seq.Values) == 0 {
		r.wrong(n, field, "an empty list", "name something, or leave the key out")
	}
	return all
}

// word is a word and where it stands.
type word struct {
	text string
	node ast.Node
}

// member reads group:NAME and requester:manager, which inside brackets come as
// mappings.
func member(n ast.Node) (string, bool) {
	pair, ok := n.(*ast.MappingValueNode)
	if m, is := n.(*ast.MappingNode); is && len(m.Values) == 1 {
		pair, ok = m.Values[0], true
	}
	if !ok {
		return "", false
	}
	key, isKey := scalar(pair.Key)
	name, isName := scalar(pair.Value)
	return key + ":" + name, isKey && isName && (key == "group" || key+":"+name == manager)
}

func (r *reader) flag(n ast.Node, field string) bool {
	b, ok := n.(*ast.BoolNode)
	if !ok {
		r.wrong(n, field, "neither true nor false", "write true or false")
		return false
	}
	return b.Value
}

func (r *reader) duration(n ast.Node, field string, least, most time.Duration) time.Duration {
	d, err := ParseDuration(r.text(n, field))
	if err != nil {
		r.wrong(n, field, err.Error(), "")
		return 0
	}
	if d < least || d > most {
		r.wrong(n, field, span(d)+" is out of range", fmt.Sprintf("write %s to %s", span(least), span(most)))
	}
	return d
}

// choice reads required or optional.
func (r *reader) choice(n ast.Node, field string) bool {
	s := r.text(n, field)
	if s != "required" && s != "optional" {
		r.wrong(n, field, fmt.Sprintf("%.40q", s), "write required or optional")
	}
	return s == "required"
}

func (r *reader) labels(n ast.Node) {
	r.pairs(n, "labels", func(key string, k, v ast.Node) {
		field := "labels." + key
		if _, twice := r.policy.Labels[key]; twice {
			r.wrong(k, field, "said in two files", "keep one of them")
		}
		if grant.CheckRole(key) != nil {
			r.wrong(k, field, "no name for a label", "use a-z, 0-9 and -")
		}
		var values []string
		for _, w := range r.list(v, field) {
			if grant.CheckRole(w.text) != nil {
				r.wrong(w.node, field, fmt.Sprintf("%.40q is no value for a label", w.text), "use a-z, 0-9 and -")
			}
			values = append(values, w.text)
		}
		r.policy.Labels[key] = values
	})
}

func (r *reader) groups(n ast.Node) {
	r.pairs(n, "groups", func(key string, k, v ast.Node) {
		field := "groups." + key
		if _, twice := r.policy.Groups[key]; twice {
			r.wrong(k, field, "said in two files", "keep one of them")
		}
		if grant.CheckRole(key) != nil {
			r.wrong(k, field, "no name for a group", "use a-z, 0-9 and -")
		}
		if isMapping(v) {
			switch {
			case hasKey(v, "rotation"):
				r.rotation(key, field, v)
			case hasKey(v, "on_call"):
				r.called(key, field, v)
			default:
				r.kept(key, field, v)
			}
			return
		}
		var people []string
		for _, w := range r.list(v, field) {
			if err := grant.CheckPerson(w.text); err != nil {
				r.wrong(w.node, field, err.Error(), "")
			}
			people = append(people, w.text)
		}
		slices.Sort(people)
		r.policy.Groups[key] = slices.Compact(people)
	})
}

// people resolves names and group:NAME to people, and keeps what is written.
// It reports whether all of it is known: who is not cannot be counted.
func (r *reader) people(n ast.Node, field string) (all, named []string, whole bool) {
	whole = true
	for _, w := range r.list(n, field) {
		named = append(named, w.text)
		group, isGroup := strings.CutPrefix(w.text, "group:")
		if w.text == manager {
			all, whole = append(all, manager), false // who that is depends on who asks
			continue
		}
		if !isGroup {
			if err := grant.CheckPerson(w.text); err != nil {
				r.wrong(w.node, field, err.Error(), "")
			}
			all = append(all, w.text)
			continue
		}
		members, known := r.policy.Groups[group]
		if !known {
			r.wrong(w.node, field, fmt.Sprintf("unknown group %.40q", group), "name it under groups:, or write the people")
			whole = false
		}
		// Who is in a directory's group, or on call, is known when it is asked, not here.
		_, elsewhere := r.policy.Directory[group]
		whole = whole && !elsewhere && !r.policy.changes(group)
		all = append(all, members...)
	}
	slices.Sort(all)
	return slices.Compact(all), named, whole
}

// selector reads which hosts a role covers.
func (r *reader) selector(n ast.Node, field string) map[string][]string {
	found := map[string][]string{}
	r.pairs(n, field, func(key string, k, v ast.Node) {
		values, known := r.policy.Labels[key]
		if !known {
			r.wrong(k, join(field, key), "unknown label", "name it and its values under labels:")
		}
		for _, w := range r.list(v, join(field, key)) {
			if known && !slices.Contains(values, w.text) {
				r.wrong(w.node, join(field, key), fmt.Sprintf("unknown value %.40q", w.text), "the label has "+strings.Join(values, ", "))
			}
			found[key] = append(found[key], w.text)
		}
	})
	if len(found) == 0 {
		r.wrong(n, field, "covers nothing", "name a label, or write `all_hosts: true` beside it for every host")
	}
	return found
}

func (r *reader) pattern(n ast.Node, field string) *regexp.Regexp {
	s := r.text(n, field)
	re, err := regexp.Compile(s)
	if err != nil || grant.CheckText("pattern", s, 200) != nil {
		r.wrong(n, field, "no regular expression of up to 200 characters", "see RE2 syntax, such as ^INC-[0-9]+$")
		return nil
	}
	re.Longest() // so that a match of the whole ticket is found if there is one
	return re
}
