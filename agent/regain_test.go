package agent

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/agent/watch"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// Somebody took the labels away, and the agent with them: the next one gives
// them again, and says of what it cannot find that it did not look there.
func TestLabelsThatWereTakenAwayAreGivenAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		audit  grant.Audit
		ends   bool // while the agent is away
		opener bool // lives
		lives  bool
	}{
		{name: "of a session that goes on", opener: true, lives: true},
		{name: "of what outlived the process that came in", lives: true},
		{name: "of a session whose role demands a whole record: it is ended", audit: grant.AuditEnd, opener: true},
		{name: "of a session whose grant has ended meanwhile: it is ended", ends: true, opener: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			g := held("g-a", "ana", 0, time.Hour)
			g.Role.Audit = c.audit
			w.offered.Grants = []grant.Grant{g}
			a := w.agent(t)
			pass(t, a)
			if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7}); !got.Allow {
				t.Fatal(got)
			}
			session := w.tasks[7]
			w.owner[7], w.owner[8] = g.Person.UID, g.Person.UID
			clear(w.tasks)
			clear(w.ends)
			if !c.opener {
				delete(w.owner, 7)
			}
			w.now = w.now.Add(time.Minute)
			if c.ends {
				w.now = w.now.Add(time.Hour)
			}
			a = w.agent(t)
			a.regain()
			if !c.ends && (w.tasks[8] != session || c.opener && w.tasks[7] != session || w.ends[session] != a.deadline(g)) {
				t.Errorf("labels %v, ends %v", w.tasks, w.ends)
			}
			told := w.told(ledger.Gap)
			if len(told) != 1 || told[0].Grant != "g-a" || told[0].Session != session || !strings.Contains(told[0].Text, "were taken away") {
				t.Errorf("%+v", told)
			}
			pass(t, a)
			if _, lives := w.tasks[8]; lives != c.lives {
				t.Errorf("process 8 lives: %v", lives)
			}
			w.now = w.now.Add(2 * time.Hour)
			pass(t, a)
			a.LookAfter(t.Context())
			looks := w.told(ledger.Leftovers)
			if len(looks) != 1 || len(w.tasks) != 0 || len(w.owner) != 0 {
				t.Fatalf("%+v %v %v", looks, w.tasks, w.owner)
			}
			r, err := ledger.OpenLeftovers(looks[0].Receipt, a.ReceiptKey.Public().(ed25519.PublicKey))
			if err != nil || !slices.ContainsFunc(r.Skipped, func(s string) bool { return strings.Contains(s, "labels were taken away at") }) {
				t.Errorf("%+v: %v", r, err)
			}
		})
	}
}

// Whoever holds our maps can take labels away, which nothing tells.
func TestAReceiptSaysWhoTookHoldOfOurMaps(t *testing.T) {
	w := newWorld()
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour), held("g-b", "bo", 0, time.Hour)}
	a := w.agent(t)
	pass(t, a)
	for i, name := range []string{"ana", "bo"} {
		if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: name, PID: 7 + i}); !got.Allow {
			t.Fatal(got)
		}
	}
	if err := a.Record(t.Context(), []ledger.Entry{
		{Kind: ledger.Act, Session: w.tasks[7], At: w.now, Text: watch.TookHold},
		{Kind: ledger.Act, Session: w.tasks[8], At: w.now, Text: "bpf: loaded a program x"},
	}); err != nil {
		t.Fatal(err)
	}
	pass(t, a)
	a = w.agent(t)
	w.now = w.now.Add(2 * time.Hour)
	pass(t, a)
	a.LookAfter(t.Context())
	said := map[string]string{}
	for _, e := range w.told(ledger.Leftovers) {
		r, err := ledger.OpenLeftovers(e.Receipt, a.ReceiptKey.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		said[r.Grant] = strings.Join(r.Skipped, "; ")
	}
	if len(said) != 2 || !strings.Contains(said["g-a"], "took hold of BPF objects at 12:00:00Z") || said["g-b"] != "" {
		t.Error(said)
	}
}
