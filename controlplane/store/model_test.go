package store

import (
	"flag"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"curfew.internal/controlplane/request"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// believed is what a request has to be like.
type believed struct {
	state   string
	extends string // the request whose grant it goes on from
}

// lives is the model of all requests: a map, and two open stores of one
// database that are to tell the same.
type lives struct {
	t        *testing.T
	stores   []*Store
	all      map[string]*believed
	order    []string
	revision map[string]uint64 // of each host
	disabled bool              // ana
	now      time.Time
}

// any takes one of the servers.
func (l *lives) any(r *rapid.T) *Store {
	return l.stores[rapid.IntRange(0, len(l.stores)-1).Draw(r, "server")]
}

func (l *lives) one(r *rapid.T) string {
	if len(l.order) == 0 {
		r.Skip("nobody has asked")
	}
	return rapid.SampledFrom(l.order).Draw(r, "request")
}

// ask asks anew, or to go on from what was asked before.
func (l *lives) ask(r *rapid.T) {
	q := asked("r-" + number(len(l.order)))
	q.AskedAt, q.LapsesAt = l.now, l.now.Add(time.Hour)
	from := ""
	if len(l.order) > 0 && rapid.Bool().Draw(r, "extends") {
		from = l.one(r)
		q.Extends = "g" + from[1:]
	}
	_, err := l.any(r).Ask(l.t.Context(), q, l.now, roster.Change{Steps: []roster.Decision{{At: l.now, What: "asked", Person: "ana"}}})
	known := from == "" || slices.Contains([]string{"issued", "ended", "revoked"}, l.all[from].state)
	switch {
	case l.disabled, !known, from != "" && l.all[from].state == "revoked":
		if err == nil {
			r.Fatalf("asked, disabled %v, going on from %q", l.disabled, from)
		}
		return
	case err != nil:
		r.Fatal(err)
	}
	l.all[q.ID] = &believed{state: "asked", extends: from}
	l.order = append(l.order, q.ID)
}

// move tries one step of one request's life.
func (l *lives) move(r *rapid.T) {
	id := l.one(r)
	b := l.all[id]
	to := rapid.SampledFrom([]string{"issued", "denied", "withdrawn", "lapsed", "ended", "revoked"}).Draw(r, "to")
	if to == b.state {
		r.Skip("it is")
	}
	_, err := l.any(r).Change(l.t.Context(), id, l.now, func(q roster.Request) (roster.Change, error) {
		c := roster.Change{State: to, By: "ben", Steps: []roster.Decision{{At: l.now, What: to, Person: "ben"}}}
		if to == "issued" {
			c.Approval = &roster.Approval{Person: "ben", Factor: "totp", At: l.now}
			c.Grant = grantFor(q, "g"+q.ID[1:])
		}
		return c, nil
	})
	may := request.May(request.State(b.state), request.State(to))
	if to == "issued" && may {
		// Of a revoked grant nothing goes on.
		may = !l.disabled && (b.extends == "" || l.all[b.extends].state != "revoked")
	}
	if may != (err == nil) {
		r.Fatalf("%s from %s to %s: %v", id, b.state, to, err)
	}
	if !may {
		return
	}
	b.state = to
	if to == "revoked" {
		l.follow(id)
	}
}

// follow ends what goes on from a grant that was revoked.
func (l *lives) follow(id string) {
	for other, b := range l.all {
		switch {
		case b.extends != id:
		case b.state == "asked":
			b.state = "denied"
		case b.state == "issued":
			b.state = "revoked"
			l.follow(other)
		}
	}
}

// disable ends all that ana has. It happens once in a while.
func (l *lives) disable(r *rapid.T) {
	if rapid.IntRange(0, 9).Draw(r, "rarely") > 0 {
		return
	}
	_, err := l.any(r).DisablePerson(l.t.Context(), "ana", roster.Act{By: "ben", At: l.now})
	if err != nil {
		r.Fatal(err)
	}
	l.disabled = true
	for _, b := range l.all {
		switch b.state {
		case "asked":
			b.state = "denied"
		case "issued":
			b.state = "revoked"
		}
	}
}

// restore sets nothing back, and ends all the same.
func (l *lives) restore(r *rapid.T) {
	if rapid.IntRange(0, 9).Draw(r, "rarely") > 0 {
		return
	}
	if err := l.any(r).Restored(l.t.Context(), roster.Act{By: "root", At: l.now}, "restored"); err != nil {
		r.Fatal(err)
	}
	for _, b := range l.all {
		switch b.state {
		case "asked":
			b.state = "denied"
		case "issued":
			b.state = "revoked"
		}
	}
}

// check compares what both servers tell, and what hosts are sent, with the
// model.
func (l *lives) check(r *rapid.T) {
	var live []string
	for id, b := range l.all {
		if b.state == "issued" {
			live = append(live, "g"+id[1:])
		}
	}
	slices.Sort(live)
	for _, s := range l.stores {
		for id, b := range l.all {
			q, err := s.Request(l.t.Context(), id)
			if err != nil || q.State != b.state || (q.Grant != nil) != slices.Contains([]string{"issued", "ended", "revoked"}, b.state) {
				r.Fatalf("%s is %s with grant %v, not %s: %v", id, q.State, q.Grant, b.state, err)
			}
		}
		for _, host := range []string{"db1", "db2"} {
			o := opened(l.t, s, host)
			if o.Revision < l.revision[host] {
				r.Fatalf("%s went from revision %d to %d", host, l.revision[host], o.Revision)
			}
			l.revision[host] = o.Revision
			if held := ids(o.Grants); !slices.Equal(held, live) {
				r.Fatalf("%s holds %v, not %v", host, held, live)
			}
		}
	}
}

func ids(grants []grant.Grant) []string {
	all := map[string]bool{}
	for _, g := range grants {
		all[g.ID] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// Whatever is asked of two servers in whatever order, they tell the same, each
// request moves as its life allows, hosts are sent what stands and no more,
// with revisions that grow, and the log is that of the entries.
func TestLivesGoAsTheModelSays(t *testing.T) {
	// Each has a database of its own: some are enough for every run.
	checks := flag.Lookup("rapid.checks")
	was := checks.Value.String()
	must(t, checks.Value.Set("8"))
	t.Cleanup(func() { must(t, checks.Value.Set(was)) })
	rapid.Check(t, func(r *rapid.T) {
		place := newPlace(t)
		l := &lives{t: t, all: map[string]*believed{}, revision: map[string]uint64{}, now: noon}
		for range 2 {
			l.stores = append(l.stores, openAt(t, place))
		}
		addPerson(t, l.stores[0], "ana")
		addPerson(t, l.stores[0], "ben")
		addHost(t, l.stores[0], "db1")
		addHost(t, l.stores[1], "db2")
		r.Repeat(map[string]func(*rapid.T){
			"ask": l.ask, "move": l.move, "disable": l.disable, "restore": l.restore, "": l.check,
		})
		logged(t, l.stores[0])
		for _, s := range l.stores {
			must(t, s.Close())
		}
	})
}
