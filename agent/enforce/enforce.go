// Package enforce decides which changes bring a host to what its grants say.
//
// It is arithmetic on values: [Want] says what live grants call for, and
// [Plan] compares it with what was seen and returns the steps between them.
// It reads no file and no clock, so every rule about what is taken away, what
// is given and in which order can be tested without a host.
package enforce

import (
	"cmp"
	"fmt"
	"slices"
)

// A Kind is a sort of thing that a grant puts on a host.
type Kind int

// The kinds, in the order in which they are given. They are taken away in the
// opposite order: rights go before the account that holds them, and what
// limits an account goes after what it limits.
const (
	EndTimer   Kind = iota + 1 // starts the sweep at the end, should we be dead by then
	Network                    // where the account may connect
	Group                      // group record in /run/userdb
	Account                    // user record in /run/userdb
	Marker                     // says, with no agent there, that an account is ours
	Home                       // home folder
	Principals                 // grants whose SSH certificates open the account
	SudoRule                   // sudoers file
)

// String is the kind as people read it.
func (k Kind) String() string {
	names := [...]string{"unknown", "end timer", "network scope", "group", "account", "marker", "home", "ssh principals", "sudo rule"}
	if k < EndTimer || k > SudoRule {
		return names[0]
	}
	return names[k]
}

// A Thing names one object on the host: by the grant's id for a sudo rule
// and an end timer, else by the person's name. Only objects that carry our mark, or lie in
// folders of ours, are ever named by a Thing, so no plan can touch what an
// administrator made.
type Thing struct {
	Kind Kind
	Name string
}

// String is the thing as people read it.
func (t Thing) String() string { return t.Kind.String() + " " + t.Name }

// State says what each thing holds.
type State map[Thing]string

// An Op is what a step does.
type Op int

// The operations.
const (
	Remove Op = iota + 1
	Put
)

// A Step is one change to the host. Applying it twice does no more than
// applying it once.
type Step struct {
	Op      Op
	Thing   Thing
	Content string // for Put
}

// String is the step as people read it.
func (s Step) String() string {
	if s.Op == Remove {
		return "remove " + s.Thing.String()
	}
	return "put " + s.Thing.String()
}

// GoString keeps contents out of error texts.
func (s Step) GoString() string { return fmt.Sprintf("enforce.Step(%v)", s.String()) }

// Plan returns the steps that turn seen into want: first all that is taken
// away, then all that is given. A host that stops half-way through a plan
// therefore grants too little, never too much.
func Plan(want, seen State) []Step {
	var steps []Step
	for thing := range seen {
		if _, ok := want[thing]; !ok {
			steps = append(steps, Step{Op: Remove, Thing: thing})
		}
	}
	for thing, content := range want {
		if got, ok := seen[thing]; !ok || got != content {
			steps = append(steps, Step{Put, thing, content})
		}
	}
	slices.SortFunc(steps, order)
	return steps
}

func order(a, b Step) int {
	byKind := cmp.Compare(a.Thing.Kind, b.Thing.Kind)
	if a.Op == Remove {
		byKind = -byKind
	}
	return cmp.Or(cmp.Compare(a.Op, b.Op), byKind, cmp.Compare(a.Thing.Name, b.Thing.Name))
}
