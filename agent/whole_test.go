package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"curfew.internal/agent/keep"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

func TestARoleMayDemandAWholeRecord(t *testing.T) {
	broken := errors.New("disk full")
	for _, c := range []struct {
		name    string
		demands grant.Audit
		works   error
		gap     uint64 // of whom: 1 the session's, 2 another's, 0 nobody knows
		allow   bool
		lives   bool
		says    string
	}{
		{name: "demands nothing, and the record does not work", works: broken, gap: 1, allow: true, lives: true},
		{name: "demands one, and the record does not work", demands: grant.AuditEnd, works: broken},
		{name: "would have an alert, and the record does not work", demands: grant.AuditAlert, works: broken},
		{name: "a gap ends the session", demands: grant.AuditEnd, gap: 1, allow: true, says: "is ended"},
		{name: "a gap of which nobody knows whose it is", demands: grant.AuditEnd, allow: true, says: "is ended"},
		{name: "a gap in another's record", demands: grant.AuditEnd, gap: 2, allow: true, lives: true},
		{name: "a gap is an alert", demands: grant.AuditAlert, gap: 1, allow: true, lives: true, says: ledger.Demanded},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			g := held("g-a", "ana", 0, time.Hour)
			g.Role.Audit = c.demands
			w.offered.Grants = []grant.Grant{g}
			a := w.agent(t)
			a.Recording = func() error { return c.works }
			pass := func() {
				t.Helper()
				if _, err := a.Pass(t.Context(), true); err != nil {
					t.Fatal(err)
				}
			}
			pass()
			got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7})
			if got.Allow != c.allow || got.Allow != (got.Message == "") {
				t.Fatalf("%+v", got)
			}
			if !c.allow {
				if told := w.told(ledger.Refused); len(told) != 1 || !strings.Contains(told[0].Text, "disk full") || w.tasks[7] != 0 {
					t.Errorf("%+v", told)
				}
				return
			}
			session := map[uint64]uint64{0: 0, 1: w.tasks[7], 2: w.tasks[7] + 2}[c.gap]
			if err := a.Record(t.Context(), []ledger.Entry{{Kind: ledger.Gap, Session: session, Lost: 3, Text: "lost"}}); err != nil {
				t.Fatal(err)
			}
			pass()
			if told := w.told(ledger.Gap); len(told) != 1 || strings.Contains(told[0].Text, ledger.Demanded) != (c.says != "") || !strings.Contains(told[0].Text, c.says) {
				t.Errorf("%+v", told)
			}
			if _, lives := w.sessions[session]; c.gap == 1 && lives != c.lives || (w.tasks[7] != 0) != c.lives {
				t.Errorf("lives %v, task %x", lives, w.tasks[7])
			}
			if ended := w.told(ledger.Logout); (len(ended) == 0) != c.lives || len(ended) > 0 && !strings.Contains(ended[0].Text, "its record has a gap") {
				t.Errorf("%+v", ended)
			}
		})
	}
}

// A full is a keep that has no room for programs.
type full struct {
	Keep
	of uint64 // whose it says that they were
}

func (f *full) Append(entries ...ledger.Entry) error {
	if entries[0].Kind != ledger.Exec {
		return f.Keep.Append(entries...)
	}
	return &keep.LostError{Of: []uint64{f.of}}
}

// What finds no room on the host is a gap like any other: in whose record it
// is, that one's session is ended, or there is an alert.
func TestWhatFindsNoRoomTearsTheRecord(t *testing.T) {
	for _, c := range []struct {
		name    string
		demands grant.Audit
		of      uint64 // of whom: 1 the session's, 2 another's
		lives   bool
		told    int
	}{
		{name: "the role demands nothing", of: 1, lives: true},
		{name: "it ends the session", demands: grant.AuditEnd, of: 1, told: 1},
		{name: "it is an alert", demands: grant.AuditAlert, of: 1, lives: true, told: 1},
		{name: "another's flood", demands: grant.AuditEnd, of: 2, lives: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			g := held("g-a", "ana", 0, time.Hour)
			g.Role.Audit = c.demands
			w.offered.Grants = []grant.Grant{g}
			a := w.agent(t)
			pass := func() {
				t.Helper()
				if _, err := a.Pass(t.Context(), true); err != nil {
					t.Fatal(err)
				}
			}
			pass()
			if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7}); !got.Allow {
				t.Fatalf("%+v", got)
			}
			session := w.tasks[7]
			a.Keep = &full{Keep: a.Keep, of: map[uint64]uint64{1: session, 2: session + 2}[c.of]}
			if err := a.Record(t.Context(), []ledger.Entry{{Kind: ledger.Exec, Session: session, Process: &ledger.Process{}}}); err != nil {
				t.Fatal(err)
			}
			pass()
			if _, lives := w.sessions[session]; lives != c.lives {
				t.Errorf("lives %v", lives)
			}
			told := w.told(ledger.Gap)
			if len(told) != c.told || c.told > 0 && (told[0].Session != session || told[0].Person != "ana" || !strings.Contains(told[0].Text, ledger.Demanded)) {
				t.Errorf("%+v", told)
			}
		})
	}
}
