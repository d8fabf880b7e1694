// Package trial tells whether a policy does what its keepers wrote down that
// it does.
//
// It is arithmetic on values: it reads test cases from bytes and asks the
// policy for its explanation. It never judges by rules of its own.
package trial

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
)

// The two answers that a test may expect.
const (
	allowed = "allowed"
	refused = "refused"
)

// rules are the names by which a refusal may be expected.
var rules = []string{"role", "eligibility", "hosts", "duration", "until", "reason", "ticket", "when", "approval"}

// A Test is one case, and what the policy is to say of it.
type Test struct {
	Name      string
	Place     policy.Place
	Case      policy.Case // without At: at the time of the trial
	Expect    string
	Because   []string // rules that are to refuse: exactly these, if any is named
	Approvals *int
	Approvers []string // exactly these, if any is named
	Freshness string   // as [policy.Explanation] has it; empty: not compared
}

// An Outcome is what became of a test.
type Outcome struct {
	Name   string       `json:"name"`
	Place  policy.Place `json:"place"`
	Passed bool         `json:"passed"`
	Wrong  []string     `json:"wrong,omitempty"` // each difference, with the rule that makes it
}

// Run tries all tests on the policy.
func Run(p policy.Policy, tests []Test, now time.Time) []Outcome {
	all := make([]Outcome, 0, len(tests))
	for _, t := range tests {
		if t.Case.At.IsZero() {
			t.Case.At = now
		}
		wrong := append(t.mislabelled(p), t.differs(p.Explain(t.Case))...)
		all = append(all, Outcome{Name: t.Name, Place: t.Place, Passed: len(wrong) == 0, Wrong: wrong})
	}
	return all
}

// mislabelled finds labels that no host has: a test that is refused for a slip
// of the pen would hold for ever.
func (t Test) mislabelled(p policy.Policy) []string {
	if t.Case.Host == nil {
		return nil
	}
	var wrong []string
	for _, key := range slices.Sorted(maps.Keys(t.Case.Host.Labels)) {
		values, known := p.Labels[key]
		if value := t.Case.Host.Labels[key]; !known {
			wrong = append(wrong, fmt.Sprintf("host: the policy has no label %.64q", key))
		} else if !slices.Contains(values, value) {
			wrong = append(wrong, fmt.Sprintf("host: label %s has no value %.64q, but %s", key, value, strings.Join(values, ", ")))
		}
	}
	return wrong
}

func (t Test) differs(e policy.Explanation) []string {
	var wrong []string
	refusing := e.Refusing()
	switch {
	case t.Expect == allowed && !e.Allowed:
		wrong = append(wrong, "expected allowed, is refused: "+told(e, refusing))
	case t.Expect == refused && e.Allowed:
		wrong = append(wrong, "expected refused, is allowed: "+told(e, []string{"eligibility"}))
	case t.Expect == refused && len(t.Because) > 0 && !slices.Equal(t.Because, refusing):
		wrong = append(wrong, fmt.Sprintf("expected refused because of %s, is refused because of %s: %s",
			strings.Join(t.Because, ", "), strings.Join(refusing, ", "), told(e, refusing)))
	}
	if slices.Contains(refusing, "role") { // it has no approvers to compare
		return wrong
	}
	if t.Approvals != nil && *t.Approvals != e.Needed {
		wrong = append(wrong, fmt.Sprintf("expected %d approvals, needs %d: %s", *t.Approvals, e.Needed, told(e, []string{"approval"})))
	}
	if len(t.Approvers) > 0 && !slices.Equal(t.Approvers, e.Approvers) {
		wrong = append(wrong, fmt.Sprintf("expected approvers %s, has %s: %s",
			strings.Join(t.Approvers, ", "), strings.Join(e.Approvers, ", "), told(e, []string{"approval"})))
	}
	if t.Freshness != "" && t.Freshness != e.Freshness {
		wrong = append(wrong, fmt.Sprintf("expected freshness %s, has %s", t.Freshness, e.Freshness))
	}
	return wrong
}

// told is what some of the rules say, with their places.
func told(e policy.Explanation, which []string) string {
	var all []string
	for _, f := range e.Findings {
		switch {
		case !slices.Contains(which, f.Rule):
		case f.Place.Line == 0:
			all = append(all, f.Text+" ("+f.Fix+")")
		default:
			all = append(all, fmt.Sprintf("%s (%s)", f.Text, f.Place))
		}
	}
	return strings.Join(all, "; ")
}

// Parse reads test cases; problems are told as those of policies.
func Parse(files map[string][]byte) ([]Test, []policy.Problem) {
	r := &reader{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		r.file = name
		r.read(files[name])
	}
	if len(r.tests) == 0 && len(r.problems) == 0 {
		r.problems = append(r.problems, policy.Problem{Text: "no tests", Fix: "write some in FOLDER/tests/*.yaml: see curfew policy test --help"})
	}
	return r.tests, r.problems
}

// host is a host of which only the labels matter.
func host(labels map[string]string) *roster.Host {
	return &roster.Host{Name: "the host", Labels: labels}
}
