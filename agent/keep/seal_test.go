package keep

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"curfew.internal/clock"
	"curfew.internal/ledger"
)

// chained checks that every entry is under a seal that follows on the one
// before, and returns what is no seal.
func chained(t rapid.TB, sent [][]byte) []ledger.Entry {
	t.Helper()
	var before []byte
	var open [][]byte
	var number uint64
	var told []ledger.Entry
	for i, b := range sent {
		e, err := ledger.ParseEntry(b)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != ledger.Sealed {
			told, open = append(told, e), append(open, ledger.EntryDigest(b))
			continue
		}
		s, err := ledger.OpenSeal(e.Receipt, public(key(1)))
		if err != nil {
			t.Fatal(err)
		}
		if s.Number != number+1 || !bytes.Equal(s.Before, before) || s.Fleet != "f" || s.Host != "db1" {
			t.Fatalf("entry %d: seal %d after %d", i, s.Number, number)
		}
		if !bytes.Equal(bytes.Join(s.Digests, nil), bytes.Join(open, nil)) {
			t.Fatalf("entry %d: seal %d is not of the %d entries before it", i, s.Number, len(open))
		}
		number, before, open = s.Number, s.Digest(), nil
	}
	if len(open) > 0 {
		t.Fatalf("%d entries were sent, and no seal is for them", len(open))
	}
	return told
}

// everything is what was sent, and what may be sent by now.
func everything(t rapid.TB, o *Outbox, sent [][]byte) [][]byte {
	t.Helper()
	for {
		first, some, err := o.Next(uint64(len(sent)), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(some) == 0 {
			return sent
		}
		if first != uint64(len(sent))+1 {
			t.Fatalf("entry %d after %d", first, len(sent))
		}
		sent = append(sent, some...)
	}
}

// Whenever the agent dies, and whatever the control plane has acknowledged and
// the host forgotten: what is sent is under one chain of seals.
func TestEverythingSentIsSealed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := Config{Dir: t.TempDir(), Fleet: "f", Host: "db1", Clock: &fixed{}, Key: key(1)}
		o := openBox(rt, c)
		var sent [][]byte
		var n uint64
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				var some []ledger.Entry
				for range rapid.SampledFrom([]int{1, 3, 300}).Draw(rt, "entries") {
					n++
					some = append(some, entry(n))
				}
				if err := o.Append(some...); err != nil {
					rt.Fatal(err)
				}
			},
			"append much": func(rt *rapid.T) {
				n++
				if err := o.Append(ledger.Entry{Kind: ledger.Exec, Session: n, Text: strings.Repeat("x", 600_000)}); err != nil {
					rt.Fatal(err)
				}
			},
			"seal": func(*rapid.T) { o.sealNow() },
			"send": func(rt *rapid.T) { sent = everything(rt, o, sent) },
			"acknowledge": func(rt *rapid.T) {
				if err := o.Kept(uint64(len(sent)), false); err != nil {
					rt.Fatal(err)
				}
			},
			"die": func(rt *rapid.T) { o = openBox(rt, c) },
		})
		if err := o.close(); err != nil {
			rt.Fatal(err)
		}
		o = openBox(rt, c)
		told := chained(rt, everything(rt, o, sent))
		if uint64(len(told)) != n {
			rt.Fatalf("%d entries were appended, %d sent", n, len(told))
		}
		for i, e := range told {
			if e.Session != uint64(i)+1 {
				rt.Fatalf("entry %d is %d", i+1, e.Session)
			}
		}
	})
}

// What an agent left that set no seals is under the first.
func TestAnOutboxWithoutSealsGoesOn(t *testing.T) {
	c := Config{Dir: t.TempDir(), Fleet: "f", Host: "db1", Clock: &fixed{}}
	old := openBox(t, c)
	for n := range uint64(3) {
		if err := old.Append(entry(n + 1)); err != nil {
			t.Fatal(err)
		}
	}
	c.Key = key(1)
	o := openBox(t, c)
	if got := all(t, o, 0); len(got) != 0 {
		t.Errorf("%v is sent without a seal", got)
	}
	o.sealNow()
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	if told := chained(t, everything(t, o, nil)); len(told) != 3 {
		t.Errorf("%d entries", len(told))
	}
}

// What is appended once no seal was set just now goes to the disk with its seal,
// in one write: whoever appended can have it sent at once.
func TestABatchIsSealedAsItIsWritten(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Fleet: "f", Host: "db1", Clock: clock.System{}, Key: key(1)})
	run(t, o)
	var some []ledger.Entry
	for n := range uint64(sealMost + 2) {
		some = append(some, entry(n+1))
	}
	if err := o.Append(some...); err != nil {
		t.Fatal(err)
	}
	if got := all(t, o, 0); len(got) != len(some)+2 {
		t.Errorf("%d of %d entries and two seals can be sent", len(got), len(some))
	}
}

// The outbox seals by itself, soon after something was appended, and tells
// whoever sends.
func TestSealsComeByThemselves(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Fleet: "f", Host: "db1", Clock: clock.System{}, Key: key(1)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.run(ctx) }()
	if err := o.Append(entry(1), entry(2)); err != nil {
		t.Fatal(err)
	}
	for len(all(t, o, 0)) < 3 {
		<-o.Appended()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if told := chained(t, everything(t, o, nil)); len(told) != 2 {
		t.Errorf("%d entries", len(told))
	}
}
