package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const maxItems = 2000 // of any list

// A reader reads one file and collects what is wrong in it.
type reader struct {
	file     string
	problems []Problem
}

func (r *reader) bad(at place, field, text, fix string) {
	r.problems = append(r.problems, Problem{File: r.file, Line: at.line, Column: at.column, Field: field, Text: text, Fix: fix})
}

func (r *reader) warn(at place, field, text, fix string) {
	r.problems = append(r.problems, Problem{File: r.file, Line: at.line, Column: at.column, Field: field, Text: text, Fix: fix, Warning: true})
}

// A word is a piece of text and where it stands.
type word struct {
	place
	text string
}

// pairs returns the entries of a mapping, each key once.
func (r *reader) pairs(n node, field string) []pair {
	if n.kind != mapping {
		r.bad(n.place, field, "is not a mapping", "write `key: value` lines below it")
		return nil
	}
	seen := map[string]place{}
	var all []pair
	for _, p := range n.pairs {
		if first, ok := seen[p.key]; ok {
			r.bad(p.place, under(field, p.key), fmt.Sprintf("stands here a second time, after line %d", first.line), "take one out")
			continue
		}
		seen[p.key] = p.place
		all = append(all, p)
	}
	return all
}

// fields returns the entries of a mapping whose keys are all known. An entry
// without a value is a mistake: nobody can say what it was to mean.
func (r *reader) fields(n node, field string, known ...string) map[string]node {
	found := map[string]node{}
	for _, p := range r.pairs(n, field) {
		switch {
		case !slices.Contains(known, p.key):
			r.bad(p.place, under(field, p.key), "is not known", "write one of "+strings.Join(known, ", "))
		case p.value.kind == nothing:
			r.bad(p.place, under(field, p.key), "is empty", "write its value, or take it out")
		default:
			found[p.key] = p.value
		}
	}
	return found
}

// items returns the elements of a list.
func (r *reader) items(n node, field string) []node {
	if n.kind != list {
		r.bad(n.place, field, "is not a list", "write it as a list, like [a, b]")
		return nil
	}
	if len(n.items) > maxItems {
		r.bad(n.place, field, fmt.Sprintf("has over %d elements", maxItems), "split it")
		return nil
	}
	return n.items
}

// words returns the elements of a list of texts, each once.
func (r *reader) words(n node, field string) []word {
	var all []word
	seen := map[string]bool{}
	for i, item := range r.items(n, field) {
		at := element(field, i)
		text, ok := r.text(item, at)
		switch {
		case !ok:
		case seen[text]:
			r.bad(item.place, at, quote(text)+" stands in the list twice", "take one out")
		default:
			seen[text] = true
			all = append(all, word{item.place, text})
		}
	}
	return all
}

func (r *reader) text(n node, field string) (string, bool) {
	if n.kind != scalar {
		r.bad(n.place, field, "is not a text", "write one value")
		return "", false
	}
	return n.text, true
}

// truth reads true or false; a field that is missing is false.
func (r *reader) truth(f map[string]node, field, key string) bool {
	n, ok := f[key]
	if !ok {
		return false
	}
	if n.kind == scalar && !n.quoted && (n.text == "true" || n.text == "false") {
		return n.text == "true"
	}
	r.bad(n.place, under(field, key), "is neither true nor false", "write `true` or `false`")
	return false
}

// choice reads one of a few words; what is missing is the first.
func (r *reader) choice(f map[string]node, field, key string, words ...string) string {
	n, ok := f[key]
	if !ok {
		return words[0]
	}
	text, ok := r.text(n, under(field, key))
	if ok && slices.Contains(words, text) {
		return text
	}
	if ok {
		r.bad(n.place, under(field, key), quote(text)+" is not known", "write "+strings.Join(words, " or "))
	}
	return words[0]
}

func (r *reader) count(n node, field string) int {
	text, ok := r.text(n, field)
	if !ok {
		return 1
	}
	v, err := strconv.ParseUint(text, 10, 16)
	if err != nil || v == 0 || n.quoted || strings.HasPrefix(text, "0") {
		r.bad(n.place, field, quote(text)+" is not a count", "write a whole number from 1 on")
		return 1
	}
	return int(v)
}

func (r *reader) duration(n node, field string) (time.Duration, bool) {
	text, ok := r.text(n, field)
	if !ok {
		return 0, false
	}
	d, err := ParseDuration(text)
	if err != nil {
		what, fix, _ := strings.Cut(err.Error(), ": ")
		r.bad(n.place, field, what+" does not do", fix)
		return 0, false
	}
	return d, true
}

// positive reads a duration that is more than none.
func (r *reader) positive(n node, field string) (time.Duration, bool) {
	d, ok := r.duration(n, field)
	if ok && d == 0 {
		r.bad(n.place, field, "is no time at all", "write a duration like 4h")
		return 0, false
	}
	return d, ok
}

// under is the name of a field's field.
func under(field, key string) string {
	if field == "" {
		return plainName(key)
	}
	return field + "." + plainName(key)
}

func element(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
