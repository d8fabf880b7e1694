package ledger

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"testing"
)

// everyKind is a bundle with each thing that a bundle can hold: all that hosts
// sign, under seals, what the control plane told and what it took for foreign, a
// gap, a deleted entry, a recording of which a segment was deleted and the other is there, a proof that the log goes on from an earlier checkpoint, and
// what two witnesses say.
func everyKind(t *testing.T) (Bundle, Trust) {
	t.Helper()
	a, b := witnessKey(t, "witness.example/a", 1), witnessKey(t, "witness.example/b", 2)
	host := key("host")
	h := &sealing{}
	session := Entry{Kind: Login, At: noon, Host: "db1", Grant: ended().Grant, Person: "ana", Session: 9}
	signed := func(k Kind, receipt []byte) Entry {
		e := session
		e.Kind, e.Receipt = k, receipt
		return e
	}
	for _, e := range []Entry{
		session, event(1), event(2),
		{Kind: Gap, At: noon, Host: "db1", Session: 9, SessionSeq: 3, Lost: 1},
		signed(Terminal, tape()[0].Seal(host)), signed(Terminal, tape()[1].Seal(host)),
		signed(Removed, ended().Seal(host)), signed(Leftovers, looked().Seal(host)), event(4),
	} {
		h.tell(e)
	}
	for i, l := range h.leaves {
		if e, err := ParseEntry(l.Entry); err == nil && len(e.Receipt) > 0 {
			h.leaves[i].ReceiptKey = host.Public().(ed25519.PublicKey)
		}
	}
	step := Entry{Kind: Decision, At: noon, Request: "r-a", Step: "asked", Digest: []byte{1}}
	l := logged(append(h.leaves, Leaf{Outbox: "control-plane", Entry: step.Bytes()}, Leaf{Host: "db1", Outbox: "o", Foreign: true, Entry: []byte("x")}))
	bundle := l.forgetful(2)
	size := uint64(len(l.leaves))
	m := Manifest{Tree: l.tree(size), Fleet: "example", Asked: "a test", Numbers: Ranges(upTo(size)), Deleted: Ranges([]uint64{2}), Tapes: true}
	for i, leaf := range l.leaves {
		switch e, err := ParseEntry(leaf.Entry); {
		case err != nil || e.Kind != Terminal:
		case bytes.Equal(e.Receipt, tape()[0].Seal(host)):
			bundle.Tapes = []Tape{{uint64(i) + 1, []byte{0}}}
		default:
			m.Erased = Ranges([]uint64{uint64(i) + 1})
		}
	}
	bundle.Manifest = m.Seal(l.private)
	c := Checkpoint{"example", l.tree(uint64(len(l.leaves)))}
	bundle.Checkpoint = slices.Concat(bundle.Checkpoint, []byte(a.Cosign(c, cosignedAt)), []byte(b.Cosign(c, cosignedAt)))
	return bundle, Trust{Key: l.key, Older: l.checkpoint(7), Witnesses: []Witness{a.Witness, b.Witness}, Quorum: 2}
}

// There is no byte of a bundle that says nothing: whichever is changed, it is
// found, and named by its entry where it is of one.
func TestEveryByteOfEveryKindCounts(t *testing.T) {
	b, trust := everyKind(t)
	r := Verify(b.Bytes(), trust)
	if len(r.Findings) > 0 || len(r.Signers) != 1 || r.Signers[0].Receipts != 4 || r.Signers[0].Seals != 3 || r.Terminals != 1 || r.Tapes != 1 || len(r.Erased) != 1 || len(r.Deleted) != 1 || len(r.Cosigned) != 2 {
		t.Fatalf("%+v", r)
	}
	everyByte(t, trust, b)
}
