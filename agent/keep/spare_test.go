package keep

import (
	"errors"
	"os"
	"testing"
	"time"

	"curfew.internal/clock"
	"curfew.internal/ledger"
)

// tally is what an outbox has, and tells as missing.
func tally(t *testing.T, o *Outbox) (kinds map[ledger.Kind]uint64, lost uint64) {
	t.Helper()
	kinds = map[ledger.Kind]uint64{}
	for _, e := range all(t, o, 0) {
		if e.Kind == ledger.Gap {
			lost += e.Lost
			continue
		}
		kinds[e.Kind]++
	}
	return kinds, lost
}

// flood appends opened files until the outbox takes no more of them, and a
// third more; it returns how many there were, and how many were not taken.
func flood(t *testing.T, o *Outbox) (made, dropped uint64) {
	t.Helper()
	for ; made < 100_000; made++ {
		err := o.Append(ledger.Entry{Kind: ledger.Open, Object: "/etc/shadow", Session: 9})
		if errors.Is(err, ErrLost) {
			dropped++
		} else if err != nil {
			t.Fatal(err)
		}
		if 3*dropped > made {
			return made + 1, dropped
		}
	}
	t.Fatal("everything is taken")
	return 0, 0
}

func TestAFloodOfFilesCostsNoReceipt(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Clock: clock.System{}, Host: "db1", Quota: 64 << 10})
	made, dropped := flood(t, o)
	for n := range uint64(50) {
		if err := o.Append(entry(n), ledger.Entry{Kind: ledger.Removed, Receipt: make([]byte, 64)}); err != nil {
			t.Fatal("what comes first is not taken:", err)
		}
	}
	kinds, _ := tally(t, o)
	if kinds[ledger.Exec] != 50 || kinds[ledger.Removed] != 50 || kinds[ledger.Open] != made-dropped {
		t.Errorf("%v, and %d opens were taken", kinds, made-dropped)
	}
	// The control plane takes everything: then the rest is told, with nothing
	// new to say.
	if err := o.Kept(o.durable, true); err != nil {
		t.Fatal(err)
	}
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	if _, lost := tally(t, o); lost != dropped {
		t.Errorf("%d are told as missing, and %d are", lost, dropped)
	}
}

func TestWhatWasDroppedOutlivesTheAgent(t *testing.T) {
	c := Config{Dir: t.TempDir(), Run: t.TempDir(), Clock: clock.System{}, Host: "db1", Quota: 64 << 10}
	o := openBox(t, c)
	_, dropped := flood(t, o)
	if err := o.Append(entry(1)); err != nil {
		t.Fatal(err)
	}
	o = openBox(t, c) // was killed
	if err := o.Append(entry(2)); err != nil {
		t.Fatal(err)
	}
	if _, lost := tally(t, o); lost != dropped {
		t.Errorf("%d are told as missing, and %d are", lost, dropped)
	}
}

func TestALongFloodIsToldInBetween(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Clock: clock.System{}, Host: "db1", Quota: 4 << 10})
	_, dropped := flood(t, o)
	for range 2 * missedAtOnce {
		if err := o.Append(ledger.Entry{Kind: ledger.Exit}); errors.Is(err, ErrLost) {
			dropped++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	if _, lost := tally(t, o); lost < missedAtOnce || lost > dropped {
		t.Errorf("%d are told as missing, and %d are", lost, dropped)
	}
}

// floodOf appends programs of a session until a third of them is not taken.
func floodOf(t *testing.T, o *Outbox, session uint64) (made, dropped uint64, began int) {
	t.Helper()
	for ; made < 100_000; made++ {
		err := o.Append(ledger.Entry{Kind: ledger.Exec, At: day.Add(time.Duration(made) * time.Second), Grant: "g-a", Person: "ana", Session: session, SessionSeq: made + 1})
		var lost *LostError
		if errors.As(err, &lost) {
			dropped++
			began += len(lost.Of)
		}
		if 3*dropped > made {
			return made + 1, dropped, began
		}
	}
	t.Fatal("everything is taken")
	return 0, 0, 0
}

var day = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

// cramped is an outbox of 64 KiB: its quota, or the memory of one whose disk is
// full.
func cramped(t *testing.T, full bool) *Outbox {
	t.Helper()
	c := Config{Dir: t.TempDir(), Clock: &ready{}, Host: "db1", Quota: 64 << 10}
	if full {
		c.Memory, c.Quota = 64<<10, 1<<30
	}
	o := openBox(t, c)
	if full {
		o.create = func(*os.Root, string) (file, error) { return nil, errFull }
	}
	return o
}

// One session's programs cost no other session's, no login and no receipt,
// whether they wait on the disk or in memory, and what they cost is told as that
// session's, with its bounds.
func TestAFloodOfProgramsCostsNobodyElse(t *testing.T) {
	for name, full := range map[string]bool{"the quota is used up": false, "the disk is full": true} {
		t.Run(name, func(t *testing.T) {
			o := cramped(t, full)
			made, dropped, began := floodOf(t, o, 9)
			if began != 1 {
				t.Errorf("that its record begins to miss something is said %d times", began)
			}
			if err := o.Writing(); !full && err != nil {
				t.Error("there is room for other sessions, and it is not said:", err)
			}
			for n := range uint64(50) {
				for _, e := range []ledger.Entry{{Kind: ledger.Exec, Session: 7, SessionSeq: n + 1}, {Kind: ledger.Login, Session: 7}, {Kind: ledger.Removed, Receipt: make([]byte, 64)}} {
					if err := o.Append(e); errors.Is(err, ErrLost) {
						t.Fatal("what is not of the flood is not taken:", e.Kind)
					}
				}
			}
			o.create, o.quota = createFile, 1<<20
			if err := errors.Join(o.Kept(0, true), o.commit()); err != nil {
				t.Fatal(err)
			}
			kinds, lost := tally(t, o)
			if kinds[ledger.Exec] != made-dropped+50 || kinds[ledger.Login] != 50 || kinds[ledger.Removed] != 50 || lost != dropped {
				t.Errorf("%v, %d told as missing; %d were made, %d not taken", kinds, lost, made, dropped)
			}
			for _, e := range all(t, o, 0) {
				if e.Kind == ledger.Gap && (e.Session != 9 || e.Grant != "g-a" || e.Person != "ana" || e.SessionSeq == 0 || !e.Since.Equal(day.Add(time.Duration(e.SessionSeq-1)*time.Second)) || e.At.Before(e.Since)) {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

// Who is refused at the door again and again costs no session anything, and is
// no gap in a session's record.
func TestAFloodOfRefusalsIsNoSessions(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Clock: &ready{}, Host: "db1", Quota: 64 << 10})
	for range 3000 {
		var lost *LostError
		if errors.As(o.Append(ledger.Entry{Kind: ledger.Refused, Text: "no grant"}), &lost) && len(lost.Of) > 0 {
			t.Fatal("a session's record is said to miss something")
		}
	}
	for n := range uint64(50) {
		if err := o.Append(ledger.Entry{Kind: ledger.Exec, Session: 7, SessionSeq: n + 1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, lost := tally(t, o); lost < missedAtOnce {
		t.Errorf("%d are told as missing", lost)
	}
}

// A record that has no room for a session's events does not work: who demands
// one is not let in.
func TestAFullOutboxSaysSo(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Clock: &ready{}, Host: "db1", Quota: 64 << 10})
	for n := uint64(1); o.Writing() == nil; n++ {
		if n > 100_000 {
			t.Fatal("it never says so")
		}
		_ = o.Append(ledger.Entry{Kind: ledger.Open, Object: "/etc/shadow", Session: n})
	}
	if err := o.Writing(); !errors.Is(err, errQuota) {
		t.Error(err)
	}
}
