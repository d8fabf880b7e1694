package notify

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/test/postoffice"
)

// people is what a world knows of people, and what they are to be told.
type people struct {
	known  map[string]roster.Person
	waits  []string // whose word the request waits for
	mails  []roster.Mail
	done   map[string]bool
	cannot error    // end a mail
	asked  int      // how often somebody was asked for
	added  []string // by an escalation
	ended  []roster.Delegation
	more   int // requests that wait besides, for the same
}

func (w *world) Person(_ context.Context, name string) (roster.Person, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.people.asked++
	p, ok := w.people.known[name]
	if !ok {
		return p, fmt.Errorf("person: %w", roster.ErrUnknown)
	}
	return p, nil
}

func (w *world) EndedDelegations(context.Context, string, time.Time) ([]roster.Delegation, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.people.ended), nil
}

func (w *world) Asked(context.Context) ([]roster.Request, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.request.State != "asked" {
		return nil, nil
	}
	all := []roster.Request{w.request}
	for i := range w.people.more {
		one := w.request
		one.ID = fmt.Sprintf("r-%d", i+2)
		all = append(all, one)
	}
	return all, nil
}

func (w *world) PutMails(_ context.Context, all []roster.Mail, _ time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range all {
		if !slices.ContainsFunc(w.people.mails, func(o roster.Mail) bool {
			return o.Target == m.Target && o.What == m.What && o.Request == m.Request && o.Person == m.Person
		}) {
			w.people.mails = append(w.people.mails, m)
		}
	}
	return nil
}

func (w *world) OpenMails(_ context.Context, target string) ([]roster.Mail, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.people.mails), func(m roster.Mail) bool { return m.Target != target || w.people.done[m.ID] }), nil
}

func (w *world) EndMail(_ context.Context, id string, _ time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.people.cannot != nil {
		return w.people.cannot
	}
	w.people.done[id] = true
	return nil
}

func (w *world) Addresses(context.Context) (map[string]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]string{}
	for name, p := range w.people.known {
		if !p.Disabled && p.Email != "" {
			all[name] = p.Email
		}
	}
	return all, nil
}

func (w *world) Mailed(_ context.Context, target, what string) (map[string][]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string][]string{}
	for _, m := range w.people.mails {
		if m.Target == target && m.What == what {
			all[m.Request] = append(all[m.Request], m.Person)
		}
	}
	return all, nil
}

func (w *world) awaited(_ context.Context, asked []roster.Request) (map[string][][]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string][][]string{}
	for _, r := range asked {
		all[r.ID] = [][]string{slices.Clone(w.people.waits), slices.Clone(w.people.added)}
	}
	return all, nil
}

// office is a world in which people are told by mail, and the one who tells them.
type office struct {
	*testing.T
	*world
	at     *postoffice.Office
	target Target
	n      *Notifier
	log    *strings.Builder
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{T: t, world: newWorld(), at: postoffice.New(t), log: &strings.Builder{}}
	o.people = people{known: map[string]roster.Person{}, done: map[string]bool{}, waits: []string{"ben", "cy"}}
	for _, name := range []string{"ana", "ben", "cy", "eve"} {
		o.people.known[name] = roster.Person{Name: name, Email: name + "@example.com"}
	}
	o.target = Target{Name: "people", Form: FormMail, ToFile: file(t, "smtp://"+o.at.Address+"/?from=Curfew+%3Ccurfew%40example.org%3E&tls=off")}
	o.request.State = "denied" // until it is asked
	o.start()
	o.quietly()
	return o
}

// start is a server that starts, or starts again.
func (o *office) start() {
	o.Helper()
	var err error
	if o.n, err = New("https://curfew.example:7443", []Target{o.target}, o.world, o.world, slog.New(slog.NewTextHandler(o.log, nil))); err != nil {
		o.Fatal(err)
	}
	o.n.Awaited = o.awaited
}

// turn has it look until it has no more to do, and returns what it says.
func (o *office) turn() error {
	o.Helper()
	for range 100 {
		if more, err := o.n.turn(o.Context(), o.n.lines[0]); err != nil || !more {
			return err
		}
	}
	o.Fatal("it comes to no end")
	return nil
}

func (o *office) ask() {
	o.mu.Lock()
	o.request.State, o.request.AskedAt = "asked", o.now
	o.mu.Unlock()
	o.decide("asked", "ana", "")
}

func (o *office) decide(step, by, text string) {
	o.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: step, Person: by, Text: text})
}

func (o *office) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

// told checks who got mail, in whichever order, since the last look.
func (o *office) told(want ...string) []postoffice.Letter {
	o.Helper()
	got := o.at.Took()
	var to []string
	for _, l := range got {
		to = append(to, strings.TrimSuffix(l.To, "@example.com"))
	}
	slices.Sort(to)
	if !slices.Equal(to, want) {
		o.Fatalf("told %q and not %q\n%s", to, want, o.log)
	}
	return got
}

func (o *office) quietly() {
	o.Helper()
	if err := o.turn(); err != nil {
		o.Fatal(err)
	}
}
