package trial

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"curfew.internal/controlplane/policy"
)

// written is a test as its file has it.
type written struct {
	Name      string            `yaml:"name"`
	Who       string            `yaml:"who"`
	Role      string            `yaml:"role"`
	Host      map[string]string `yaml:"host"`
	For       string            `yaml:"for"`
	At        string            `yaml:"at"`
	Reason    *string           `yaml:"reason"`
	Ticket    *string           `yaml:"ticket"`
	From      string            `yaml:"from"`
	Risk      map[string]any    `yaml:"risk"`
	Expect    string            `yaml:"expect"`
	Because   []string          `yaml:"because"`
	Approvals *int              `yaml:"approvals"`
	Approvers []string          `yaml:"approvers"`
	Freshness string            `yaml:"freshness"`
}

const keys = "a test has name, who, role, host, for, at, from, risk, reason, ticket, expect, because, approvals, approvers and freshness"

// noFreshness is expected of a role of which each request takes a proof of its own.
const noFreshness = "none"

type reader struct {
	file     string
	tests    []Test
	problems []policy.Problem
}

// positioned is what the YAML library's nodes and errors have.
type positioned interface{ GetToken() *token.Token }

func (r *reader) place(of any) policy.Place {
	at := policy.Place{File: r.file, Line: 1, Column: 1}
	if n, ok := of.(positioned); ok && n.GetToken() != nil && n.GetToken().Position != nil {
		at.Line, at.Column = n.GetToken().Position.Line, n.GetToken().Position.Column
	}
	return at
}

func (r *reader) wrong(of any, text, fix string) {
	at := r.place(of)
	r.problems = append(r.problems, policy.Problem{File: at.File, Line: at.Line, Column: at.Column, Text: text, Fix: fix})
}

func (r *reader) read(b []byte) {
	if text, fix := policy.Unreadable(b); text != "" {
		r.wrong(nil, text, fix)
		return
	}
	f, err := parser.ParseBytes(b, 0)
	if err != nil {
		r.wrong(err, "this is no YAML", "check indentation and quotes here")
		return
	}
	for _, doc := range f.Docs {
		if doc.Body != nil {
			r.document(doc.Body)
		}
	}
}

func (r *reader) document(n ast.Node) {
	var list ast.Node
	switch n := n.(type) {
	case *ast.MappingValueNode:
		list = under(n)
	case *ast.MappingNode:
		if len(n.Values) == 1 {
			list = under(n.Values[0])
		}
	}
	seq, ok := list.(*ast.SequenceNode)
	if !ok {
		r.wrong(n, "not a list of tests", "write `tests:` alone, and `- name: ...` lines under it")
		return
	}
	for _, v := range seq.Values {
		r.test(v)
	}
}

// under is what stands under the key tests.
func under(v *ast.MappingValueNode) ast.Node {
	if v.Key.String() == "tests" {
		return v.Value
	}
	return nil
}

func (r *reader) test(n ast.Node) {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		r.wrong(n, "not a test", keys)
		return
	}
	var w written
	if err := yaml.NodeToValue(n, &w, yaml.Strict()); err != nil {
		r.wrong(err, "a key that is not known, or a value of another kind", keys)
		return
	}
	t := Test{Name: w.Name, Place: r.first(n), Expect: w.Expect, Approvals: w.Approvals, Approvers: sorted(w.Approvers), Because: sorted(w.Because), Freshness: freshness(w.Freshness)}
	t.Case = policy.Case{Person: w.Who, Role: w.Role, Reason: w.Reason, Ticket: w.Ticket, Source: w.From}
	if w.Host != nil {
		t.Case.Host = host(w.Host)
	}
	before := len(r.problems)
	r.times(n, w, &t)
	r.risk(n, w, &t)
	r.expectations(n, w)
	if len(r.problems) == before {
		r.tests = append(r.tests, t)
	}
}

// first is where a test begins: at its first key.
func (r *reader) first(n ast.Node) policy.Place {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		return r.place(m.Values[0].Key)
	}
	if v, ok := n.(*ast.MappingValueNode); ok {
		return r.place(v.Key)
	}
	return r.place(n)
}

func (r *reader) times(n ast.Node, w written, t *Test) {
	var err error
	if w.For != "" {
		if t.Case.For, err = policy.ParseDuration(w.For); err != nil || t.Case.For == 0 {
			r.wrong(n, fmt.Sprintf("for: %.40q is no duration", w.For), "write 30m, 2h or 7d")
		}
	}
	if w.From != "" {
		if _, err := netip.ParseAddr(w.From); err != nil {
			r.wrong(n, fmt.Sprintf("from: %.40q is no address", w.From), "write one like 10.0.0.7")
		}
	}
	if w.At != "" {
		if t.Case.At, err = time.Parse(time.RFC3339, w.At); err != nil || t.Case.At.Year() < 2000 || t.Case.At.Year() > 9000 {
			r.wrong(n, fmt.Sprintf("at: %.40q is no time", w.At), "write it like 2027-01-31T14:00:00Z, or leave it out for now")
		}
	}
}

// risk reads what is known of the risk; of what is left out, nothing is.
func (r *reader) risk(n ast.Node, w written, t *Test) {
	facts := map[string]string{}
	for name, value := range w.Risk {
		facts[name] = fmt.Sprint(value)
	}
	var err error
	if t.Case.Risk, err = policy.ParseRisk(facts); err != nil {
		r.wrong(n, "risk: "+err.Error(), "write some of {new_network: true, first_time: true, factor_refused: 3, factor_age: 2h}")
	}
}

func (r *reader) expectations(n ast.Node, w written) {
	for _, must := range [][2]string{{"name", w.Name}, {"who", w.Who}, {"role", w.Role}} {
		if must[1] == "" {
			r.wrong(n, must[0]+" is missing", keys)
		}
	}
	if w.Expect != allowed && w.Expect != refused {
		r.wrong(n, fmt.Sprintf("expect: %.40q", w.Expect), "write allowed or refused")
	}
	if _, err := policy.ParseDuration(w.Freshness); err != nil && w.Freshness != "" && w.Freshness != noFreshness {
		r.wrong(n, fmt.Sprintf("freshness: %.40q is no duration", w.Freshness), "write 10m, or none where each request takes a proof of its own")
	}
	if len(w.Because) > 0 && w.Expect == allowed {
		r.wrong(n, "because: nothing refuses what is allowed", "leave it out")
	}
	for _, b := range w.Because {
		if !slices.Contains(rules, b) {
			r.wrong(n, fmt.Sprintf("because: %.40q is no rule", b), "write some of "+strings.Join(rules, ", "))
		}
	}
}

// freshness is what is written as an explanation would have it: 60m is 1h.
func freshness(s string) string {
	d, err := policy.ParseDuration(s)
	if err != nil {
		return s
	}
	return policy.Role{Fresh: d}.Freshness()
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}
