package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"curfew.internal/agent/doctor"
	"curfew.internal/agent/enforce"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

func TestKnock(t *testing.T) {
	for _, c := range []struct {
		name           string
		knock          Knock
		allow, strange bool
		says           string
	}{
		{name: "a live grant opens the door", knock: Knock{Service: "sshd", User: "ana"}, allow: true},
		{name: "a grant that ended does not", knock: Knock{Service: "sshd", User: "bob"}, says: "your grant ended 12:00 UTC"},
		{name: "a grant of later does not", knock: Knock{Service: "sshd", User: "cyd"}, says: "your grant begins 13:00 UTC"},
		{name: "an account of nobody's grant is left alone", knock: Knock{Service: "sshd", User: "root"}, strange: true},
		{name: "sudo is asked for by whoever calls it", knock: Knock{Service: "sudo", User: "root", RUser: "ana"}, allow: true},
		{name: "sudo of one whose grant ended", knock: Knock{Service: "sudo", User: "root", RUser: "bob"}, says: "curfew request"},
		{name: "su into an account that ended, by root", knock: Knock{Service: "su", User: "bob", RUser: "root"}, says: "ended"},
		{name: "su from a live account into one that ended", knock: Knock{Service: "su", User: "bob", RUser: "ana"}, says: "ended"},
		{name: "nobody at all", knock: Knock{}, strange: true},
		{name: "the doctor is told that it came through", knock: Knock{Service: "sshd", User: "nobody", TTY: doctor.TTY}, strange: true, says: doctor.Answer},
		{name: "whoever says to be the doctor gets no further", knock: Knock{Service: "sshd", User: "bob", TTY: doctor.TTY}, says: "ended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour), held("g-b", "bob", -time.Hour, 0), held("g-c", "cyd", time.Hour, 2*time.Hour)}
			for _, who := range []string{"ana", "bob", "cyd"} {
				w.things[enforce.Thing{Kind: enforce.Account, Name: who}] = "x"
			}
			got := w.agent(t).Knock(t.Context(), c.knock)
			if got.Allow != c.allow || got.Stranger != c.strange || !strings.Contains(got.Message, c.says) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestASessionIsLabelledBeforeItIsOpened(t *testing.T) {
	w := newWorld()
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour)}
	a := w.agent(t)
	if _, err := a.Pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7}); !got.Allow || w.tasks[7] == 0 {
		t.Fatalf("%+v, label %x", got, w.tasks[7])
	}
	if s := w.sessions[w.tasks[7]]; s.Grant != "g-a" || s.Person != "ana" || s.Kind != LoginSession || !slices.Equal(s.Approvers, []string{"ben"}) {
		t.Errorf("%+v", s)
	}
	if got := a.Knock(t.Context(), Knock{Open: true, Service: "sudo", User: "root", RUser: "ana", PID: 8}); !got.Allow || w.sessions[w.tasks[8]].Kind != SudoSession {
		t.Errorf("%+v", got)
	}
	gone := func() bool { return true }
	if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 9, Gone: gone}); got.Allow || w.tasks[9] != 0 {
		t.Errorf("a caller that has ended: %+v", got)
	}
	// A session that cannot be put under record is not opened.
	w.failAt = w.changes + 1
	if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 9}); got.Allow || w.tasks[9] != 0 {
		t.Errorf("%+v", got)
	}
	w.failAt = w.changes + 2 // the file is written, the label fails
	if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 10}); got.Allow {
		t.Errorf("%+v", got)
	}
}

func TestTheEndOfOneGrantMovesTheLoginToTheOther(t *testing.T) {
	w := newWorld()
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour)}
	a := w.agent(t)
	pass := func() {
		t.Helper()
		if _, err := a.Pass(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	pass()
	a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7})
	a.Knock(t.Context(), Knock{Open: true, Service: "sudo", User: "root", RUser: "ana", PID: 8})
	w.offered.Grants = append(w.offered.Grants, held("g-b", "ana", 0, 3*time.Hour))
	if _, err := a.Accept(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	// A shell of a setuid file, and one of hers, in the login; sshd's own is root's.
	uid := w.offered.Grants[0].Person.UID
	w.owner[7], w.owner[9], w.owner[10] = 0, 0, uid
	w.tasks[9], w.tasks[10] = w.tasks[7], w.tasks[7]
	w.now = noon.Add(90 * time.Minute)
	pass()
	if s, ok := w.sessions[w.tasks[7]]; !ok || s.Grant != "g-b" || w.tasks[10] != w.tasks[7] {
		t.Errorf("the login: %+v", s)
	}
	if w.tasks[9] != 0 {
		t.Error("a root that the grant which ended was good for lives on in the login")
	}
	if w.tasks[8] != 0 {
		t.Error("what ran under the grant that ended lives")
	}
	if got := w.told(ledger.Removed); len(got) != 1 || got[0].Grant != "g-a" {
		t.Errorf("%+v", got)
	}
}

func TestALeaseSuspendsAndComesBack(t *testing.T) {
	w := newWorld()
	g := held("g-a", "ana", 0, 3*time.Hour)
	g.Lease = 5 * time.Minute
	w.offered.Grants = []grant.Grant{g}
	a := w.agent(t)
	heard := noon
	a.Heard = func() time.Time { return heard }
	for _, c := range []struct {
		after time.Duration
		heard bool
		there bool
	}{{0, true, true}, {4 * time.Minute, false, true}, {5 * time.Minute, false, false}, {6 * time.Minute, true, true}} {
		w.now = noon.Add(c.after)
		if c.heard {
			heard = w.now
		}
		if _, err := a.Pass(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if there := len(w.things) > 0; there != c.there {
			t.Errorf("after %v: on the host: %v", c.after, there)
		}
	}
}

func TestAHostsOwnAccountBarsItsPersonAlone(t *testing.T) {
	w := newWorld()
	w.accounts["idah"] = true
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour), held("g-i", "idah", 0, time.Hour)}
	a := w.agent(t)
	for range 3 {
		if _, err := a.Pass(t.Context(), true); err == nil {
			t.Error("the conflict was not told")
		}
	}
	if _, ok := w.things[enforce.Thing{Kind: enforce.SudoRule, Name: "g-i"}]; ok {
		t.Error("a rule for somebody else's account")
	}
	if _, ok := w.things[enforce.Thing{Kind: enforce.SudoRule, Name: "g-a"}]; !ok {
		t.Error("ana was barred with her")
	}
	if got := w.told(ledger.SetRefused); len(got) != 1 || got[0].Grant != "g-i" {
		t.Errorf("told %d times: %s", len(got), words(got))
	}
	if got := w.told(ledger.Installed); len(got) != 1 || got[0].Grant != "g-a" {
		t.Errorf("%+v", got)
	}
}

func TestARefusedSetChangesNothing(t *testing.T) {
	w := newWorld()
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour)}
	a := w.agent(t)
	if _, err := a.Pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	before := len(w.things)
	if _, err := a.Accept(t.Context(), nil, []byte("bad")); err == nil {
		t.Error("taken")
	}
	if _, err := a.Pass(t.Context(), true); err != nil || len(w.things) != before {
		t.Errorf("%v, %d things of %d", err, len(w.things), before)
	}
	if got := w.told(ledger.SetRefused); len(got) != 1 || !strings.Contains(got[0].Text, "signature") {
		t.Errorf("%+v", got)
	}
}

// Whatever the order of grants, revocations, logins and time, and wherever
// the agent is killed: nothing is on the host that no live grant calls for
// once a pass is through, nobody's process outlives her last grant, and every
// grant that was begun has its receipt.
func TestKilledAtAnyLine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld()
		a := w.agent(t)
		begun := map[string]bool{}
		for i := range rapid.IntRange(1, 12).Draw(rt, "steps") {
			act(rt, w, a, i)
			if rapid.Bool().Draw(rt, "crash") {
				w.failAt = w.changes + rapid.IntRange(1, 12).Draw(rt, "at")
			}
			_, err := a.Pass(t.Context(), true)
			crashed := w.failAt > 0 && w.changes >= w.failAt
			if err != nil && !crashed {
				rt.Fatalf("pass: %v", err)
			}
			for id := range w.opened {
				begun[id] = true
			}
			a.LookAfter(t.Context())
			crashed = crashed || w.failAt > 0 && w.changes >= w.failAt
			if w.failAt = 0; crashed {
				a = w.agent(t)
			}
			if _, err := a.Pass(t.Context(), true); err != nil {
				rt.Fatalf("pass after a crash: %v", err)
			}
			if more := w.excess(); len(more) > 0 {
				rt.Fatalf("on the host and not wanted: %v", more)
			}
		}
		w.now = noon.Add(48 * time.Hour)
		for range 2 {
			if _, err := a.Pass(t.Context(), true); err != nil {
				rt.Fatal(err)
			}
			a.LookAfter(t.Context())
		}
		if len(w.things) > 0 || len(w.tasks) > 0 || w.pending() > 0 || len(w.befores) > 0 {
			rt.Fatalf("left: %v %v %v %v", w.things, w.tasks, w.opened, w.befores)
		}
		if wrong := w.untold(begun); wrong != "" {
			rt.Fatal(wrong)
		}
		for id := range begun {
			if !slices.ContainsFunc(w.told(ledger.Removed), func(e ledger.Entry) bool { return e.Grant == id }) {
				rt.Fatalf("%s has no receipt", id)
			}
		}
	})
}

// act does one thing to the world.
func act(rt *rapid.T, w *world, a *Agent, i int) {
	person := rapid.SampledFrom([]string{"ana", "benno"}).Draw(rt, "person")
	switch rapid.IntRange(0, 3).Draw(rt, "what") {
	case 0:
		from := w.now.Sub(noon)
		length := time.Duration(rapid.IntRange(1, 300).Draw(rt, "minutes")) * time.Minute
		w.offered.Grants = append(w.offered.Grants, held("g-"+string(rune('a'+i)), person, from, from+length))
	case 1:
		if n := len(w.offered.Grants); n > 0 {
			k := rapid.IntRange(0, n-1).Draw(rt, "revoked")
			w.offered.Grants = slices.Delete(slices.Clone(w.offered.Grants), k, k+1)
		}
	case 2:
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 200).Draw(rt, "later")) * time.Minute)
	case 3:
		pid := 100 + i
		live := slices.ContainsFunc(w.offered.Grants, func(g grant.Grant) bool { return g.Person.Name == person && g.LiveAt(w.now) })
		got := a.Knock(rt.Context(), Knock{Open: true, Service: "sshd", User: person, PID: pid})
		if got.Allow && !live {
			rt.Fatalf("%s came in without a live grant", person)
		}
		if got.Allow {
			w.owner[pid] = grant.UIDMin + uint32(len(person))
			name := "/tmp/" + person + string(rune('a'+i))
			w.junk[name], w.planted = person, append(w.planted, name)
		}
	}
	if _, err := a.Accept(rt.Context(), nil, nil); err != nil && !errors.Is(err, errCrash) {
		rt.Fatal(err)
	}
}

// A session is guarded, but under a grant whose role says otherwise, and
// again when it goes on under one that does not.
func TestASessionIsGuardedAsItsGrantSays(t *testing.T) {
	w := newWorld()
	free, held := held("g-a", "ana", 0, time.Hour), held("g-b", "ana", time.Minute, 2*time.Hour)
	free.Role.Unguarded = true
	w.offered.Grants = []grant.Grant{free, held}
	a := w.agent(t)
	pass(t, a)
	a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7})
	if session := w.tasks[7]; session == 0 || !w.freed[session] {
		t.Fatal(w.tasks, w.freed)
	}
	w.now = noon.Add(30 * time.Minute) // the other one ends later
	w.deaf = true
	if _, err := a.Pass(t.Context(), true); err == nil || w.sessions[w.tasks[7]].Grant != "g-a" {
		t.Error("a session goes on under a grant, and is not guarded as that says", err)
	}
	w.deaf = false
	pass(t, a)
	if session := w.tasks[7]; session == 0 || w.freed[session] || w.sessions[session].Grant != "g-b" {
		t.Error(w.tasks, w.freed, w.sessions)
	}
}

// A session whose end the kernel does not take, as that of one which is yet to
// be labelled, stays under its grant, and is moved with its end later.
func TestASessionIsMovedWithItsEnd(t *testing.T) {
	w := newWorld()
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour), held("g-b", "ana", time.Minute, 2*time.Hour)}
	a := w.agent(t)
	pass(t, a)
	a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7})
	session, ends := w.tasks[7], w.ends
	w.now, w.ends = noon.Add(30*time.Minute), map[uint64]uint64{}
	if _, err := a.Pass(t.Context(), true); err == nil || w.sessions[session].Grant != "g-a" {
		t.Error("moved, and the kernel does not know until when", err, w.sessions)
	}
	w.ends = ends
	pass(t, a)
	g := w.offered.Grants[1]
	if got := w.sessions[session].Grant; got != "g-b" || w.ends[session] != a.deadline(g) {
		t.Errorf("under %s, until %v in place of %v", got, time.Duration(w.ends[session]), time.Duration(a.deadline(g)))
	}
}
