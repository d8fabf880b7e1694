package store

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// teller is a host that seals what it tells.
type teller struct {
	seq, number uint64
	before      []byte
	key         ed25519.PrivateKey
	sent        []roster.Record
}

func (h *teller) entry(e ledger.Entry) {
	h.seq++
	e.At, e.Host = noon, "db1"
	h.sent = append(h.sent, roster.Record{Seq: h.seq, Entry: e.Bytes()})
}

// tell is some entries, and a seal on them that is as alter makes it.
func (h *teller) tell(n int, alter func(*ledger.Seal)) {
	s := ledger.Seal{Fleet: "lab", Host: "db1", Number: h.number + 1, Before: h.before}
	for range n {
		h.entry(ledger.Entry{Kind: ledger.Agent, Text: fmt.Sprint(h.seq)})
		s.Digests = append(s.Digests, ledger.EntryDigest(h.sent[len(h.sent)-1].Entry))
	}
	h.number, h.before = s.Number, s.Digest()
	alter(&s)
	h.entry(ledger.Entry{Kind: ledger.Sealed, Receipt: s.Sign(h.key)})
}

func asItIsTold(*ledger.Seal) {}

func TestASealThatDoesNotHoldIsTold(t *testing.T) {
	stranger := ed25519.NewKeyFromSeed(make([]byte, 32))
	for _, c := range []struct {
		name string
		tell func(h *teller)
		want string // empty: it holds
	}{
		{"as hosts do", func(h *teller) { h.tell(3, asItIsTold) }, ""},
		{"another key", func(h *teller) {
			h.key = stranger
			h.tell(3, asItIsTold)
		}, "it is not signed by the host's key"},
		{"of another host", func(h *teller) { h.tell(3, func(s *ledger.Seal) { s.Host = "db2" }) }, "it is that of db2 in lab"},
		{"an entry was changed", func(h *teller) {
			h.tell(3, asItIsTold)
			h.sent[len(h.sent)-3].Entry = ledger.Entry{Kind: ledger.Agent, At: noon, Host: "db1", Text: "nothing"}.Bytes()
		}, "entry 5 of the outbox is not what was sealed, in seal 2"},
		{"two were swapped", func(h *teller) {
			h.tell(3, asItIsTold)
			a, b := &h.sent[len(h.sent)-3], &h.sent[len(h.sent)-2]
			a.Entry, b.Entry = b.Entry, a.Entry
		}, "entry 5 of the outbox is not"},
		{"one was put in", func(h *teller) {
			h.entry(ledger.Entry{Kind: ledger.Agent, Text: "put in"})
			h.tell(3, asItIsTold)
		}, "it is for 3 entries, and 4 stand before it"},
		{"one is left out", func(h *teller) { h.tell(3, func(s *ledger.Seal) { s.Digests = append(s.Digests, s.Digests[0]) }) }, "it is for 4 entries, and 3 stand"},
		{"a seal is left out", func(h *teller) { h.tell(3, func(s *ledger.Seal) { s.Number++ }) }, "it is seal 3, and stands behind seal 1"},
		{"a seal is another", func(h *teller) { h.tell(3, func(s *ledger.Seal) { s.Before = make([]byte, 32) }) }, "it is seal 2, and seal 1 is not the one"},
		{"what was lost before it was sealed is a gap", func(h *teller) {
			h.entry(ledger.Entry{Kind: ledger.Gap, Lost: 1})
			s := ledger.Seal{Fleet: "lab", Host: "db1", Number: 2, Before: h.before, Digests: [][]byte{nil}}
			h.entry(ledger.Entry{Kind: ledger.Sealed, Receipt: s.Sign(h.key)})
		}, ""},
		{"what was lost is something else", func(h *teller) {
			h.entry(ledger.Entry{Kind: ledger.Agent, Text: "x"})
			s := ledger.Seal{Fleet: "lab", Host: "db1", Number: 2, Before: h.before, Digests: [][]byte{nil}}
			h.entry(ledger.Entry{Kind: ledger.Sealed, Receipt: s.Sign(h.key)})
		}, "entry 4 of the outbox is not"},
	} {
		for _, atOnce := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, at once %v", c.name, atOnce), func(t *testing.T) {
				s, ctx := fresh(t), t.Context()
				addHost(t, s, "db1")
				h := &teller{key: hostKey}
				h.tell(2, asItIsTold)
				c.tell(h)
				for i := range h.sent {
					some := h.sent[i : i+1]
					if atOnce {
						some = h.sent
					}
					_, err := s.KeepRecords(ctx, "db1", "o", some)
					must(t, err)
				}
				seals, err := s.Events(ctx, roster.Search{Kind: "sealed", Limit: 10})
				if err != nil || len(seals) != 2 || !seals[0].ReceiptOK || seals[1].ReceiptOK != (c.want == "") {
					t.Errorf("%+v, %v", seals, err)
				}
				told, err := s.Events(ctx, roster.Search{Kind: "gap", Words: []string{"seal", "db1"}})
				must(t, err)
				if c.want == "" && len(told) > 0 || c.want != "" && (len(told) != 1 || !strings.HasPrefix(told[0].Entry.Text, roster.BadSeal) ||
					!strings.Contains(told[0].Entry.Text, c.want) || told[0].Host != "") {
					t.Errorf("told: %+v", told)
				}
				logged(t, s)
			})
		}
	}
}

// An outbox that began anew under another name tells again, and a host that
// enrolled again begins from one.
func TestSealsThatBeginAnew(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	h := &teller{key: hostKey}
	for range 3 {
		h.tell(2, asItIsTold)
	}
	for _, c := range []struct {
		outbox string
		sent   []roster.Record
	}{{"first", h.sent}, {"second", h.sent}, {"third", h.sent[:3]}} {
		_, err := s.KeepRecords(ctx, "db1", c.outbox, c.sent)
		must(t, err)
	}
	told, err := s.Events(ctx, roster.Search{Kind: "gap"})
	if err != nil || len(told) > 0 {
		t.Errorf("%+v, %v", told, err)
	}
}
