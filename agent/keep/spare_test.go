package keep

import (
	"errors"
	"testing"

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
	o.quota = 1 << 20
	if err := o.Kept(10, true); err != nil {
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
	for range 2 * spareAtOnce {
		if err := o.Append(ledger.Entry{Kind: ledger.Exit}); errors.Is(err, ErrLost) {
			dropped++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	if _, lost := tally(t, o); lost < spareAtOnce || lost > dropped {
		t.Errorf("%d are told as missing, and %d are", lost, dropped)
	}
}
