package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/agent/enforce"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// looked are the receipts for leftovers of a grant.
func (w *world) looked(id string) []ledger.LeftoversReceipt {
	var all []ledger.LeftoversReceipt
	for _, e := range w.told(ledger.Leftovers) {
		r, err := ledger.OpenLeftovers(e.Receipt, ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey))
		if err == nil && e.Grant == id {
			all = append(all, r)
		}
	}
	return all
}

// untold says what is wrong with the record of leftovers, once all is over: a
// look that was lost, two that differ, or a removal that nobody tells of.
func (w *world) untold(begun map[string]bool) string {
	var removed []string
	for id := range begun {
		var first []byte
		for _, e := range w.told(ledger.Leftovers) {
			if e.Grant != id {
				continue
			}
			if first != nil && !bytes.Equal(first, e.Receipt) {
				return id + " was looked after twice"
			}
			first = e.Receipt
		}
		if first == nil {
			return "nobody looked after " + id
		}
		for _, r := range w.looked(id) {
			removed = append(removed, r.Removed...)
		}
	}
	for name := range w.junk {
		return name + " is left"
	}
	for _, l := range w.looks {
		return "a look is left: " + l.Grant
	}
	for _, name := range w.planted {
		if !slices.Contains(removed, name) {
			return name + " went, and nobody tells"
		}
	}
	return ""
}

// over is a world in which a grant with a session has ended, and its receipt
// is made.
func over(t *testing.T, others ...grant.Grant) (*world, *Agent) {
	t.Helper()
	w := newWorld()
	w.offered.Grants = append([]grant.Grant{held("g-a", "ana", 0, time.Hour)}, others...)
	a := w.agent(t)
	pass(t, a)
	a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7})
	w.junk["/tmp/x"] = "ana"
	w.now = noon.Add(time.Hour)
	pass(t, a)
	return w, a
}

func pass(t *testing.T, a *Agent) {
	t.Helper()
	if _, err := a.Pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}

func TestALookFollowsTheReceiptAndHoldsUpNone(t *testing.T) {
	w, a := over(t)
	if len(w.told(ledger.Removed)) != 1 || len(w.told(ledger.Leftovers)) != 0 {
		t.Fatal("the receipt waited for the look")
	}
	if b := w.befores["ana"]; string(b.Seen) != `"quiet"` || !b.Since.Equal(noon) {
		t.Errorf("%+v", b)
	}
	a.LookAfter(t.Context())
	a.LookAfter(t.Context())
	pass(t, a)
	a.LookAfter(t.Context())
	r := w.looked("g-a")
	if len(r) != 1 || !slices.Equal(r[0].Removed, []string{"/tmp/x"}) || !r[0].Since.Equal(noon) || r[0].Grant != "g-a" || len(r[0].Looked) == 0 {
		t.Errorf("%+v", r)
	}
	if w.pending()+len(w.befores)+len(w.looks) > 0 || w.searches != 1 {
		t.Error(w.opened, w.befores, w.looks, w.searches)
	}
}

func TestTheNextAgentLooks(t *testing.T) {
	for name, c := range map[string]struct {
		dies     func(w *world, a *Agent)
		searches int
	}{
		"where none had begun": {func(*world, *Agent) {}, 1},
		"where one died as it had removed": {func(w *world, a *Agent) {
			w.failAt = w.changes + 4 // the try, the plan, the file, and not the entry
			a.LookAfter(t.Context())
		}, 2},
		"where one died before it told": {func(w *world, a *Agent) {
			w.failAt = w.changes + 5
			a.LookAfter(t.Context())
		}, 1},
		"where one was to stop": {func(_ *world, a *Agent) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			a.lookAfter(ctx, a.due()[0])
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w, a := over(t)
			c.dies(w, a)
			w.failAt = 0
			if len(w.told(ledger.Leftovers)) > 0 {
				t.Fatal("told already")
			}
			a = w.agent(t)
			pass(t, a)
			a.LookAfter(t.Context())
			pass(t, a)
			if wrong := w.untold(map[string]bool{"g-a": true}); wrong != "" || w.searches != c.searches {
				t.Error(wrong, w.searches)
			}
			if r := w.looked("g-a"); len(r) != 1 || !slices.Equal(r[0].Removed, []string{"/tmp/x"}) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestALookThatEndsAgentsIsGivenUp(t *testing.T) {
	w, a := over(t)
	o := a.due()[0]
	w.looks["g-a"] = Look{Grant: "g-a", Ended: o.Ended, Tries: tries}
	a.LookAfter(t.Context())
	if r := w.looked("g-a"); len(r) != 1 || w.searches != 0 || !strings.Contains(fmt.Sprint(r[0].Skipped), "ended with the agent") {
		t.Errorf("%+v", r)
	}
}

// What is her own stays while she holds another grant, and the snapshot with
// it.
func TestTheEndOfOneGrantLeavesWhatTheOtherMayNeed(t *testing.T) {
	w, a := over(t)
	w.offered.Grants = append(w.offered.Grants, held("g-b", "ana", time.Hour, 2*time.Hour))
	if _, err := a.Accept(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	a.LookAfter(t.Context())
	pass(t, a)
	if r := w.looked("g-a"); len(r) != 1 || len(r[0].Removed) > 0 || !slices.Equal(r[0].Left, []string{"/tmp/x"}) || len(w.befores) != 1 {
		t.Errorf("%+v %v", r, w.befores)
	}
	w.now = noon.Add(2 * time.Hour)
	pass(t, a)
	a.LookAfter(t.Context())
	if r := w.looked("g-b"); len(r) != 1 || !slices.Equal(r[0].Removed, []string{"/tmp/x"}) || !r[0].Since.Equal(noon) || len(w.befores) != 0 {
		t.Errorf("%+v %v", r, w.befores)
	}
}

// What runs under a grant that drains may need what is hers.
func TestAGrantThatDrainsLeavesWhatRunsItsFiles(t *testing.T) {
	drains := held("g-b", "ana", 0, time.Hour)
	drains.Role.Drain = 10 * time.Minute
	w, a := over(t, drains)
	a.LookAfter(t.Context())
	if r := w.looked("g-a"); len(r) != 1 || len(r[0].Removed) > 0 || len(w.befores) != 1 {
		t.Errorf("%+v %v", r, w.befores)
	}
}

// Nothing runs under a grant that comes when it is over already, drain or not.
func TestAGrantThatComesInItsDrainGivesNothing(t *testing.T) {
	w, a := over(t)
	late := held("g-b", "ana", 0, time.Hour)
	late.Role.Drain = 10 * time.Minute
	w.offered.Grants = append(w.offered.Grants, late)
	if _, err := a.Accept(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	pass(t, a)
	a.LookAfter(t.Context())
	if r := w.looked("g-a"); len(r) != 1 || !slices.Equal(r[0].Removed, []string{"/tmp/x"}) || len(w.things) > 0 || len(w.told(ledger.Removed)) != 1 {
		t.Errorf("%+v %v", r, w.things)
	}
}

// The lease gives the grant back before anybody looked: its next end does.
func TestAGrantThatStandsAgainIsLookedAfterAtItsNextEnd(t *testing.T) {
	w := newWorld()
	g := held("g-a", "ana", 0, 3*time.Hour)
	g.Lease = time.Minute
	w.offered.Grants = []grant.Grant{g}
	a := w.agent(t)
	heard := noon
	a.Heard = func() time.Time { return heard }
	pass(t, a)
	w.now = noon.Add(time.Hour)
	pass(t, a)
	heard = w.now
	pass(t, a)
	a.LookAfter(t.Context())
	if len(w.told(ledger.Leftovers)) > 0 || !w.opened["g-a"].Ended.IsZero() || len(w.told(ledger.Installed)) != 2 {
		t.Error(w.opened)
	}
	w.now = noon.Add(3 * time.Hour)
	pass(t, a)
	a.LookAfter(t.Context())
	pass(t, a)
	if len(w.looked("g-a")) != 1 || w.pending() > 0 {
		t.Error(w.looked("g-a"), w.opened)
	}
}

// What a look had removed when its agent died is told by the next look, also
// if the grant stood again in between.
func TestALookThatWasCutShortIsToldAfterTheNextEnd(t *testing.T) {
	for name, last := range map[string]Look{
		"in the middle":          {Removals: []byte(`["/tmp/gone"]`)},
		"before it was recorded": {Entry: ledger.Entry{Kind: ledger.Leftovers, At: noon, Grant: "g-a", Text: "/tmp/gone"}.Bytes()},
	} {
		t.Run(name, func(t *testing.T) {
			w, a := over(t)
			last.Grant, last.Ended = "g-a", noon
			w.looks["g-a"] = last
			a.LookAfter(t.Context())
			told := w.told(ledger.Leftovers)
			if len(last.Entry) > 0 {
				if len(told) != 2 || told[0].Text != "/tmp/gone" {
					t.Errorf("%+v", told)
				}
			} else if r := w.looked("g-a"); len(r) != 1 || !slices.Equal(r[0].Removed, []string{"/tmp/gone", "/tmp/x"}) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// What the disk would not take is written down as soon as it does.
func TestTheListOnTheDiskFollowsTheOneInMemory(t *testing.T) {
	for n := range 12 {
		w := newWorld()
		w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour)}
		a := w.agent(t)
		pass(t, a)
		w.now = noon.Add(2 * time.Hour)
		w.failAt = w.changes + n
		_, _ = a.Pass(t.Context(), true) // it may well fail
		w.failAt = 0
		pass(t, a)
		if got := w.opened["g-a"]; !got.Ended.Equal(a.opened["g-a"].Ended) || got.Ended.IsZero() {
			t.Errorf("with the disk full from change %d: %+v on it, %+v in memory", n, got, a.opened["g-a"])
		}
	}
}

// A sweep beside an agent that hangs has no record to write to.
func TestASweepBesideLeavesTheReceiptToTheAgent(t *testing.T) {
	w := newWorld()
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour)}
	pass(t, w.agent(t))
	w.owner[9] = w.offered.Grants[0].Person.UID
	w.now = noon.Add(2 * time.Hour)
	sweep := w.agent(t)
	sweep.Beside = true
	if _, err := sweep.Pass(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if len(w.things) > 0 || len(w.owner) > 0 || len(w.told(ledger.Removed)) > 0 || !w.opened["g-a"].Ended.IsZero() {
		t.Errorf("things %v, processes %v, receipts %v, %+v", w.things, w.owner, w.told(ledger.Removed), w.opened["g-a"])
	}
	pass(t, w.agent(t))
	if len(w.told(ledger.Removed)) != 1 || w.opened["g-a"].Ended.IsZero() {
		t.Errorf("receipts %v, %+v", w.told(ledger.Removed), w.opened["g-a"])
	}
}

// What a role lets an account reach binds its processes for as long as there
// are any, and so does the timer that has them ended.
func TestNoProcessIsLetLoose(t *testing.T) {
	w := newWorld()
	g := held("g-a", "ana", 0, time.Hour)
	to, err := grant.ParseDestination("tcp://10.0.0.1:5432")
	if err != nil {
		t.Fatal(err)
	}
	g.Role.Network = []grant.Destination{to}
	w.offered.Grants = []grant.Grant{g}
	a := w.agent(t)
	pass(t, a)
	w.owner[9] = g.Person.UID // as what systemd runs for her: it has no label
	w.now = noon.Add(2 * time.Hour)
	h := &stubborn{fakeHost: fakeHost{w}}
	a.Host = h
	scope, timer := enforce.Thing{Kind: enforce.Network, Name: "ana"}, enforce.Thing{Kind: enforce.EndTimer, Name: "g-a"}
	for _, immortal := range []bool{true, false} {
		h.immortal = immortal
		_, err := a.Pass(t.Context(), true)
		_, scoped := w.things[scope]
		_, timed := w.things[timer]
		if scoped != immortal || timed != immortal || (err != nil) != immortal || h.loose {
			t.Errorf("a process that would not end %v: scope %v, timer %v, let loose %v, %v", immortal, scoped, timed, h.loose, err)
		}
	}
	if len(w.things) > 0 || len(w.owner) > 0 {
		t.Error(w.things, w.owner)
	}
}

// stubborn is a host with a process that does not end, and a look at whether
// it is let loose.
type stubborn struct {
	fakeHost
	immortal, loose bool
}

func (h *stubborn) KillUID(ctx context.Context, uid uint32) (int, error) {
	if h.immortal {
		return 0, errCrash
	}
	return h.fakeHost.KillUID(ctx, uid)
}

func (h *stubborn) Apply(ctx context.Context, s enforce.Step) error {
	h.loose = h.loose || s.Op == enforce.Remove && binding(s.Thing.Kind) && len(h.owner) > 0
	return h.fakeHost.Apply(ctx, s)
}
