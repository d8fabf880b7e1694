package notify

import (
	"fmt"
	"strings"
	"testing"

	"curfew.internal/controlplane/roster"
)

// Of a crowd some are told, and the log says so; also by parts. Whom its escalation
// adds is not among the crowd, and nor is who comes after it in the next step.
func TestACrowdIsNotTold(t *testing.T) {
	o := newOffice(t)
	var all []string
	for i := range mostWaited + 10 {
		name := fmt.Sprintf("p%03d", i)
		all = append(all, name)
		o.people.known[name] = roster.Person{Name: name, Email: name + "@example.com"}
	}
	o.set(func() { o.people.waits = all[:mostWaited-10] })
	o.ask()
	o.quietly()
	o.told(all[:mostWaited-10]...)
	o.set(func() { o.people.waits = all })
	for range 3 {
		o.pass(lookAgain)
		o.quietly()
	}
	o.told(all[mostWaited-10 : mostWaited]...)
	o.set(func() { o.people.added = []string{"eve"} })
	o.pass(lookAgain)
	o.quietly()
	o.told("eve")
	o.set(func() { o.people.waits, o.people.added = []string{"ben", "p005"}, nil })
	o.pass(lookAgain)
	o.quietly()
	o.told("ben")
	if s := o.log.String(); strings.Count(s, "more people than are told by mail") != 1 {
		t.Error(s)
	}
}

// Many requests wait for the same crowd, of whom few have an address: a look asks
// for none of the others by herself, and each who has one is told of each.
func TestALookAsksForNobodyByHerself(t *testing.T) {
	o := newOffice(t)
	for i := range 1000 {
		o.people.waits = append(o.people.waits, fmt.Sprintf("p%03d", i))
	}
	o.people.known["cy"] = roster.Person{Name: "cy"}
	o.people.more = 2 * mailsAtOnce
	o.ask()
	o.quietly()
	if n := len(o.at.Took()); n != 1+2*mailsAtOnce {
		t.Errorf("%d are told", n)
	}
	if o.people.asked > 2*(1+2*mailsAtOnce) { // who is told, when that is kept and when it is handed in
		t.Errorf("it asked %d times", o.people.asked)
	}
}
