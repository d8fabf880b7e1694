package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"curfew.internal/controlplane/roster"
)

// maxSteps is how many steps an approval may have.
const maxSteps = 5

// A Step is one part of an approval. Steps are taken one after the other.
type Step struct {
	By         []string      // people who may approve, sorted
	Named      []string      // the same, as it is written
	Count      int           // how many of them; 0: all but the one who asks
	After      time.Duration // from the step's beginning, until Later may approve too; 0: nobody else may
	Later      []string      // sorted
	LaterNamed []string      // the same, as it is written
	When       *Condition    // it is asked only if that holds, or cannot be judged; nil: always
}

// without is all but some.
func without(all []string, some ...string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

// manager stands among approvers for the manager of whoever asks.
const manager = "requester:manager"

// of are those of the approvers who may approve what the person asks for,
// sorted: her manager, if that is written, and never herself, nor somebody of
// her reporting line where the role wants others.
func (r Role) of(approvers []string, person string) []string {
	all := without(approvers, person)
	if slices.Contains(all, manager) {
		all = without(all, manager)
		if m := r.Managers[person]; m != "" && m != person && !slices.Contains(all, m) {
			all = append(all, m)
		}
		slices.Sort(all)
	}
	if r.Outside && person != "" {
		all = keep(all, func(approver string) bool { return r.outside(person, approver) })
	}
	return all
}

// For are all the role's steps for who asks: nobody counts for her own request.
func (r Role) For(person string) []roster.Step {
	var steps []roster.Step
	for _, s := range r.Steps {
		steps = append(steps, r.step(s, person))
	}
	return steps
}

// step is one of them.
func (r Role) step(s Step, person string) roster.Step {
	step := roster.Step{By: r.of(s.By, person), Count: s.Count, After: s.After, Later: r.of(s.Later, person)}
	if step.Count == 0 {
		step.Count = max(1, len(step.By)) // of nobody, one is missing
	}
	return step
}

func total(steps []roster.Step) int {
	n := 0
	for _, s := range steps {
		n += s.Count
	}
	return n
}

// starved is the first step, from 1, that could be left without enough
// people, whoever approved before; 0 if there is none. Who approved in an
// earlier step does not count again.
func starved(steps []roster.Step) int {
	earlier, used := map[string]bool{}, 0
	for i, s := range steps {
		people := map[string]bool{}
		for _, name := range slices.Concat(s.By, s.Later) {
			people[name] = true
		}
		both := 0
		for name := range people {
			if earlier[name] {
				both++
			}
			earlier[name] = true
		}
		if len(people)-min(both, used) < s.Count {
			return i + 1
		}
		used += s.Count
	}
	return 0
}

// A Standing is how far an approval has come.
type Standing struct {
	Done      bool
	Counted   []roster.Approval // of those that were given
	Step      int               // that waits, from 1; 0 when all are done
	Missing   int               // approvals of that step
	Approvers []string          // who may give one now, sorted
	StandIns  []roster.Delegation
	Later     []string // who may too, from then on
	From      time.Time
	Joined    []string // who may too, and could not at first
	Since     time.Time
	Because   string // why the step is asked that waits; empty: it always is
	Nobody    string // why nobody is on call where somebody could approve, see [roster.Verdict]
}

// A Waiting is a request as its approval sees it.
type Waiting struct {
	Asked    time.Time
	Given    []roster.Approval
	StandIns []roster.Delegation // see [Policy.StandIns]
	Least    int                 // approvals, whatever the steps want now: what it was told when it was asked
}

// Stand says how far the approval of a request has come: what each step has
// of the approvals that were given, and who may give the next. An approval
// counts once, in the first step that takes it, and only while its giver is
// among those who may give it, or stands in for one of them. Whoever gives it,
// it is the word of one of those whom the policy names, and nobody's word
// counts twice.
func Stand(steps []roster.Step, w Waiting, now time.Time) Standing {
	given := slices.DeleteFunc(slices.Clone(w.Given), func(a roster.Approval) bool { return a.InPlaceOf != "" && !w.standsIn(a) })
	slices.SortStableFunc(given, func(a, b roster.Approval) int { return a.At.Compare(b.At) })
	st, open := Standing{}, w.Asked
	for i, s := range steps {
		had := len(st.Counted)
		given = st.take(s, given, open)
		took := st.Counted[had:]
		if len(took) == s.Count {
			open = took[len(took)-1].At
			continue
		}
		st.Step, st.Missing, st.Because = i+1, s.Count-len(took), s.Because
		words := s.By
		if from := open.Add(s.After); s.After > 0 && !now.Before(from) {
			words = slices.Concat(s.By, s.Later)
			st.Joined, st.Since = still(without(s.Later, s.By...), w.Given), from
		} else if s.After > 0 {
			st.Later, st.From = s.Later, from
		}
		return st.waitsFor(words, w)
	}
	return st.enough(steps, w, given)
}

// standsIn reports whether an approval is given for somebody who is away.
func (w Waiting) standsIn(a roster.Approval) bool {
	return slices.ContainsFunc(w.StandIns, func(d roster.Delegation) bool { return d.Away == a.InPlaceOf && d.StandIn == a.Person })
}

// counts reports whether the giver of an approval, or whose word it is, counts
// already.
func (st Standing) counts(a roster.Approval) bool {
	return slices.ContainsFunc(st.Counted, func(c roster.Approval) bool { return c.Person == a.Person || c.Whose() == a.Whose() })
}

// take gives a step those of the approvals that it counts, and leaves the rest.
func (st *Standing) take(s roster.Step, given []roster.Approval, open time.Time) (left []roster.Approval) {
	had := len(st.Counted)
	for _, a := range given {
		late := s.After > 0 && !a.At.Before(open.Add(s.After)) && slices.Contains(s.Later, a.Whose())
		if len(st.Counted)-had < s.Count && !st.counts(a) && (late || slices.Contains(s.By, a.Whose())) {
			st.Counted = append(st.Counted, a)
		} else {
			left = append(left, a)
		}
	}
	return left
}

// enough looks at what was promised when the request was asked: steps that
// have become fewer since do not make it easier.
func (st Standing) enough(steps []roster.Step, w Waiting, left []roster.Approval) Standing {
	var all []string
	for _, s := range steps {
		all = slices.Concat(all, s.By, s.Later)
	}
	for _, a := range left {
		if slices.Contains(all, a.Whose()) && !st.counts(a) {
			st.Counted = append(st.Counted, a)
		}
	}
	if st.Done = len(st.Counted) >= max(w.Least, total(steps)); st.Done {
		return st
	}
	st.Step, st.Missing = len(steps), w.Least-len(st.Counted)
	return st.waitsFor(all, w)
}

// waitsFor has the approval wait for the words of these people, as far as they
// were not given yet: by themselves, or by who stands in for them.
func (st Standing) waitsFor(words []string, w Waiting) Standing {
	st.Approvers = still(words, w.Given)
	st.Approvers = slices.DeleteFunc(st.Approvers, func(name string) bool {
		return slices.ContainsFunc(st.Counted, func(a roster.Approval) bool { return a.Whose() == name })
	})
	for _, d := range w.StandIns {
		if slices.Contains(st.Approvers, d.Away) && !slices.ContainsFunc(w.Given, func(a roster.Approval) bool { return a.Person == d.StandIn }) {
			st.StandIns = append(st.StandIns, d)
		}
	}
	slices.SortStableFunc(st.StandIns, func(a, b roster.Delegation) int {
		return cmp.Or(cmp.Compare(a.StandIn, b.StandIn), cmp.Compare(a.Away, b.Away))
	})
	return st
}

// still are those who have not approved yet, sorted, each once.
func still(people []string, given []roster.Approval) []string {
	people = slices.DeleteFunc(slices.Clone(people), func(name string) bool {
		return slices.ContainsFunc(given, func(a roster.Approval) bool { return a.Person == name })
	})
	slices.Sort(people)
	return slices.Compact(people)
}

// May reports whether the person may give the next approval, and in whose
// place; empty if in nobody's.
func (st Standing) May(person string) (inPlaceOf string, ok bool) {
	if slices.Contains(st.Approvers, person) {
		return "", true
	}
	for _, d := range st.StandIns {
		if d.StandIn == person {
			return d.Away, true
		}
	}
	return "", false
}

// Who are all who may, sorted, each once.
func (st Standing) Who() []string {
	all := slices.Clone(st.Approvers)
	for _, d := range st.StandIns {
		all = append(all, d.StandIn)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Circles are the same, those apart who may since the step waits for so long.
func (st Standing) Circles() (first, added []string) {
	joined := func(name string) bool {
		_, is := slices.BinarySearch(st.Joined, name)
		return is
	}
	for _, name := range st.Who() {
		_, own := slices.BinarySearch(st.Approvers, name)
		if own && !joined(name) || slices.ContainsFunc(st.StandIns, func(d roster.Delegation) bool { return d.StandIn == name && !joined(d.Away) }) {
			first = append(first, name)
		} else {
			added = append(added, name)
		}
	}
	return first, added
}

// String tells what an approval waits for.
func (st Standing) String() string {
	if st.Done {
		return "nothing"
	}
	s := fmt.Sprintf("%d of: %s", st.Missing, cmp.Or(roster.Some(st.Approvers, ", "), "nobody"))
	var places []string
	for _, d := range st.StandIns {
		places = append(places, fmt.Sprintf(", or %s in place of %s", d.StandIn, d.Away))
	}
	s += roster.Some(places, "")
	if len(st.Later) > 0 {
		s += fmt.Sprintf("; from %s also %s", st.From.UTC().Format("15:04 MST"), roster.Some(st.Later, ", "))
	}
	if st.Because != "" {
		s += "; this step is asked because " + st.Because
	}
	if st.Nobody != "" {
		s += " (" + st.Nobody + ")"
	}
	return s
}

// Escalates is how long after it was asked, at the soonest, others may approve
// a request for the role than at first; 0: never.
func (p Policy) Escalates(role string) time.Duration {
	var soonest time.Duration
	for _, s := range p.Roles[role].Steps {
		if s.After > 0 && (soonest == 0 || s.After < soonest) {
			soonest = s.After
		}
	}
	return soonest
}
