package ledger

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func aSeal() Seal {
	return Seal{Fleet: "example", Host: "db1", Number: 2, Before: EntryDigest([]byte("1")), Digests: [][]byte{EntryDigest([]byte("a")), nil}}
}

func TestSeal(t *testing.T) {
	host := key("host")
	public := host.Public().(ed25519.PublicKey)
	signed := aSeal().Sign(host)
	got, err := OpenSeal(signed, public)
	if diff := cmp.Diff(aSeal(), got, cmpopts.EquateEmpty()); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := OpenSeal(ended().Seal(host), public); err == nil {
		t.Error("a receipt passed for a seal")
	}
	if _, err := OpenSeal(signed, key("other").Public().(ed25519.PublicKey)); err == nil {
		t.Error("another host's key vouched for it")
	}
	for i := range signed {
		bad := bytes.Clone(signed)
		bad[i] ^= 1
		if _, err := OpenSeal(bad, public); err == nil {
			t.Fatalf("byte %d changed, and it was taken", i)
		}
	}
}

// said is what a host said: a leaf as the control plane got it.
func said(e Entry) Leaf {
	l := Leaf{Host: "db1", Outbox: "o", Entry: e.Bytes()}
	if e.Kind == Sealed {
		l.ReceiptKey = key("host").Public().(ed25519.PublicKey)
	}
	return l
}

// sealing is the host's side: what it tells, three entries to a seal.
type sealing struct {
	leaves []Leaf
	open   [][]byte
	number uint64
	before []byte
}

func (h *sealing) tell(e Entry) {
	l := said(e)
	h.leaves = append(h.leaves, l)
	if h.open = append(h.open, EntryDigest(l.Entry)); len(h.open) < 3 {
		return
	}
	h.number++
	s := Seal{Fleet: "example", Host: "db1", Number: h.number, Before: h.before, Digests: h.open}
	h.leaves = append(h.leaves, said(Entry{Kind: Sealed, At: noon, Host: "db1", Receipt: s.Sign(key("host"))}))
	h.open, h.before = nil, s.Digest()
}

// told10 is ten events of a session: entries 4, 8 and 12 of what the host sent are
// seals, and the last event has none yet.
func told10() []Leaf {
	h := &sealing{}
	for seq := range uint64(10) {
		h.tell(event(seq + 1))
	}
	return h.leaves
}

// logged is the log of a control plane that numbers what it likes.
func logged(leaves []Leaf) *aLog {
	l := newLog()
	seqs := map[string]uint64{}
	for _, leaf := range leaves {
		seqs[leaf.Outbox]++
		leaf.Seq = seqs[leaf.Outbox]
		l.add(leaf)
	}
	return l
}

// Whoever has the log's key and the database writes a history of his own, and
// cannot seal it.
func TestSealsHoldWhoeverHasTheLog(t *testing.T) {
	other := func(l Leaf) Leaf {
		l.Entry = Entry{Kind: Exec, At: noon, Host: "db1", Session: 9, SessionSeq: 2, Text: "something else"}.Bytes()
		return l
	}
	gap := said(Entry{Kind: Gap, At: noon, Host: "db1", Session: 9, SessionSeq: 2, Lost: 1})
	for _, c := range []struct {
		name string
		do   func(l []Leaf) []Leaf
		want []string
	}{
		{"nothing is done", func(l []Leaf) []Leaf { return l }, nil},
		{"an entry is written anew", func(l []Leaf) []Leaf { l[1] = other(l[1]); return l }, []string{"entry 2: it is not what db1 sealed there, in its seal 1"}},
		{"a gap stands in place of one", func(l []Leaf) []Leaf { l[1] = gap; return l }, []string{"entry 2: it is not what db1 sealed there, in its seal 1"}},
		{
			"two change places", func(l []Leaf) []Leaf { l[4], l[5] = l[5], l[4]; return l },
			[]string{"entry 5: it is not what db1 sealed there, in its seal 2", "entry 6: it is not what db1 sealed there, in its seal 2"},
		},
		{"one is put in", func(l []Leaf) []Leaf { return slices.Insert(l, 4, gap) }, []string{"entry 5: no seal of db1 covers it: it was put in"}},
		{"one is taken out", func(l []Leaf) []Leaf { return slices.Delete(l, 5, 6) }, []string{"entry 5: it is not what db1 sealed there, in its seal 2"}},
		{
			"a batch is taken out with its seal", func(l []Leaf) []Leaf { return slices.Delete(l, 4, 8) },
			[]string{"entry 5: before it, numbers 4 to 6", "entry 8: seals 2 to 2 of db1 are missing before it"},
		},
		{"a seal alone is taken out", func(l []Leaf) []Leaf { return slices.Delete(l, 7, 8) }, []string{
			"entry 5: no seal of db1 covers it", "entry 6: no seal of db1 covers it", "entry 7: no seal of db1 covers it", "entry 11: seals 2 to 2 of db1 are missing before it",
		}},
		{"two batches change places", func(l []Leaf) []Leaf {
			return slices.Concat(l[:4], l[8:12], l[4:8], l[12:])
		}, []string{"entry 8: seals 2 to 2 of db1 are missing before it", "entry 12: it is seal 2 of db1, and stands behind seal 3"}},
		{"a seal is another host's", func(l []Leaf) []Leaf {
			s := Seal{Fleet: "example", Host: "db2", Number: 1}
			l[3] = said(Entry{Kind: Sealed, At: noon, Host: "db1", Receipt: s.Sign(key("host"))})
			return l
		}, []string{
			"entry 1: no seal of db1 covers it", "entry 2: no seal of db1 covers it", "entry 3: no seal of db1 covers it",
			"entry 4: its seal is that of db2 in example, not of db1",
		}},
		{"a seal is signed by another", func(l []Leaf) []Leaf {
			s := Seal{Fleet: "example", Host: "db1", Number: 1, Digests: [][]byte{EntryDigest(l[0].Entry), EntryDigest(l[1].Entry), EntryDigest(l[2].Entry)}}
			l[3] = said(Entry{Kind: Sealed, At: noon, Host: "db1", Receipt: s.Sign(key("other"))})
			return l
		}, []string{
			"entry 1: no seal of db1 covers it", "entry 2: no seal of db1 covers it", "entry 3: no seal of db1 covers it",
			"entry 4: its seal is not signed by the host's key",
		}},
		{"the host tells it again, in an outbox under another name", func(l []Leaf) []Leaf {
			for _, again := range slices.Clone(l[2:]) {
				again.Outbox = "p"
				l = append(l, again)
			}
			return l
		}, nil},
		{"the host lost its disk, and seals from one again", func(l []Leaf) []Leaf {
			for _, again := range told10() {
				again.Outbox = "p"
				l = append(l, again)
			}
			return l
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := logged(c.do(told10()))
			same(t, Verify(l.export(0, upTo(uint64(len(l.leaves)))...).Bytes(), Trust{Key: l.key}).Findings, c.want)
		})
	}
}

// What a seal is for is known of each entry alone: an export of some is held
// against the seals as well.
func TestSealsOfAPart(t *testing.T) {
	l := logged(told10())
	r := Verify(l.export(0, upTo(13)...).Bytes(), Trust{Key: l.key})
	if len(r.Findings) > 0 || r.Unsealed != 1 || len(r.Signers) != 1 || r.Signers[0].Seals != 3 {
		t.Errorf("%+v", r)
	}
	r = Verify(l.export(0, 5, 6, 8).Bytes(), Trust{Key: l.key})
	if len(r.Findings) > 0 || r.Unsealed != 0 {
		t.Errorf("%+v", r)
	}
	// What a host told before it set its first seal counts as told by it only.
	before := append([]Leaf{said(event(1))}, told10()...)
	l = logged(before)
	if r := Verify(l.export(0, upTo(14)...).Bytes(), Trust{Key: l.key}); len(r.Findings) > 0 || r.Unsealed != 2 {
		t.Errorf("%+v", r)
	}
	everyByte(t, Trust{Key: l.key}, l.export(0, upTo(5)...), 0xff)
	everyCut(t, Trust{Key: l.key}, l.export(0, upTo(5)...))
}

func TestAnEntryThatTheHostLostIsAGap(t *testing.T) {
	for _, c := range []struct {
		name string
		is   Entry
		want []string
	}{
		{"a gap", Entry{Kind: Gap, At: noon, Host: "db1", Lost: 1}, nil},
		{"something else", event(1), []string{"entry 1: it is not what db1 sealed there, in its seal 1"}},
	} {
		s := Seal{Fleet: "example", Host: "db1", Number: 1, Digests: [][]byte{nil}}
		l := logged([]Leaf{said(c.is), said(Entry{Kind: Sealed, At: noon, Host: "db1", Receipt: s.Sign(key("host"))})})
		t.Run(c.name, func(t *testing.T) { same(t, Verify(l.export(0, 1, 2).Bytes(), Trust{Key: l.key}).Findings, c.want) })
	}
}
