package ledger

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// aLog is a log in memory, and the key of its fleet.
type aLog struct {
	private ed25519.PrivateKey
	key     Key
	leaves  []Leaf
	hashes  []tlog.Hash
}

func newLog() *aLog {
	l := &aLog{private: key("log")}
	var err error
	if l.key, err = NewKey("example", l.private.Public().(ed25519.PublicKey)); err != nil {
		panic(err)
	}
	return l
}

func (l *aLog) ReadHashes(places []int64) ([]tlog.Hash, error) {
	all := make([]tlog.Hash, len(places))
	for i, p := range places {
		all[i] = l.hashes[p]
	}
	return all, nil
}

func (l *aLog) add(leaf Leaf) {
	leaf.Number = uint64(len(l.leaves)) + 1
	more, err := tlog.StoredHashes(int64(len(l.leaves)), leaf.Bytes(), l)
	if err != nil {
		panic(err)
	}
	l.leaves, l.hashes = append(l.leaves, leaf), append(l.hashes, more...)
}

// tell adds what a host says.
func (l *aLog) tell(seq uint64, e Entry) {
	leaf := Leaf{Host: e.Host, Outbox: "o", Seq: seq, Entry: e.Bytes()}
	if e.Receipt != nil {
		leaf.ReceiptKey = key("host").Public().(ed25519.PublicKey)
	}
	l.add(leaf)
}

func (l *aLog) tree(size uint64) Tree {
	root, err := tlog.TreeHash(int64(size), l)
	if err != nil {
		panic(err)
	}
	return Tree{size, root}
}

func (l *aLog) Name() string                     { return Origin("example") }
func (l *aLog) KeyHash() uint32                  { return l.key.KeyHash() }
func (l *aLog) Sign(text []byte) ([]byte, error) { return ed25519.Sign(l.private, text), nil }

func (l *aLog) checkpoint(size uint64) []byte {
	b, err := note.Sign(&note.Note{Text: Checkpoint{"example", l.tree(size)}.Text()}, l)
	if err != nil {
		panic(err)
	}
	return b
}

// export is what the control plane hands out.
func (l *aLog) export(older uint64, numbers ...uint64) Bundle {
	size := uint64(len(l.leaves))
	m := Manifest{Tree: l.tree(size), Fleet: "example", Asked: "a test", Numbers: Ranges(numbers)}
	b := Bundle{Checkpoint: l.checkpoint(size), Manifest: m.Seal(l.private)}
	if older > 0 {
		b.Older = l.checkpoint(older)
		if older < size {
			b.Growth, _ = tlog.ProveTree(int64(size), int64(older), l)
		}
	}
	for _, n := range numbers {
		p, err := tlog.ProveRecord(int64(size), int64(n)-1, l)
		if err != nil {
			panic(err)
		}
		b.Records = append(b.Records, Record{Leaf: l.leaves[n-1].Bytes(), Proof: p})
	}
	return b
}

// forgetful is a bundle of everything of a log that has no more than digests of
// some entries.
func (l *aLog) forgetful(deleted ...uint64) Bundle {
	size := uint64(len(l.leaves))
	b := l.export(7, upTo(size)...)
	b.Manifest = Manifest{Tree: l.tree(size), Fleet: "example", Asked: "a test", Numbers: Ranges(upTo(size)), Deleted: Ranges(deleted)}.Seal(l.private)
	for _, n := range deleted {
		b.Records[n-1] = digested(b.Records[n-1])
	}
	return b
}

// digested is a record with nothing left of its entry.
func digested(r Record) Record {
	h := tlog.RecordHash(r.Leaf)
	return Record{Proof: r.Proof, Digest: h[:]}
}

func upTo(n uint64) []uint64 {
	var all []uint64
	for i := range n {
		all = append(all, i+1)
	}
	return all
}

// story is a grant's life: 12 entries with a session of five events and both
// receipts.
func story() *aLog {
	l := newLog()
	own := func(seq uint64, step string) {
		l.add(Leaf{Outbox: "control-plane", Seq: seq, Entry: Entry{Kind: Decision, At: noon, Request: "r-a", Step: step, Digest: []byte{1}}.Bytes()})
	}
	own(1, "asked")
	own(2, "approved")
	own(3, "signed")
	l.tell(1, Entry{Kind: Installed, At: noon, Host: "db1", Grant: ended().Grant})
	l.tell(2, Entry{Kind: Login, At: noon, Host: "db1", Grant: ended().Grant, Session: 9})
	for seq := range uint64(5) {
		l.tell(3+seq, event(seq+1))
	}
	l.tell(8, Entry{Kind: Removed, At: noon, Host: "db1", Grant: ended().Grant, Person: "ana", Receipt: ended().Seal(key("host"))})
	l.tell(9, Entry{Kind: Leftovers, At: noon, Host: "db1", Grant: ended().Grant, Person: "ana", Receipt: looked().Seal(key("host"))})
	return l
}

func event(seq uint64) Entry {
	return Entry{Kind: Exec, At: noon, Host: "db1", Grant: ended().Grant, Person: "ana", Session: 9, SessionSeq: seq, Text: strings.Repeat("x", 40)}
}

func TestVerifyWhatIsWhole(t *testing.T) {
	l := story()
	for older := range uint64(13) {
		r := Verify(l.export(older, upTo(12)...).Bytes(), Trust{Key: l.key})
		if len(r.Findings) > 0 || r.Checkpoint.Size != 12 || r.Sessions != 1 || len(r.Signers) != 1 || r.Signers[0].Receipts != 2 || r.Asked != "a test" {
			t.Fatalf("from %d: %+v", older, r)
		}
		if !slices.Equal(r.Numbers, []Range{{1, 12}}) || (older > 0) != (len(r.Since) == 1) {
			t.Fatalf("from %d: %+v", older, r)
		}
	}
	if r := Verify(l.export(0, 1, 4, 11).Bytes(), Trust{Key: l.key}); len(r.Findings) > 0 || len(r.Numbers) != 3 {
		t.Errorf("a part: %+v", r)
	}
}

// A change of any byte of a bundle is found, and that of a record is named by
// its number.
func TestEveryByteCounts(t *testing.T) {
	l := story()
	everyByte(t, Trust{Key: l.key}, l.export(7, upTo(12)...), 0xff)
	everyByte(t, Trust{Key: l.key}, l.forgetful(6, 7, 10), 0xff)
}

// everyByte changes a bit of each byte, and then those that are named.
func everyByte(t *testing.T, trust Trust, b Bundle, more ...byte) {
	t.Helper()
	file := b.Bytes()
	for i := range file {
		for _, change := range append([]byte{1 << (i % 8)}, more...) {
			bad := bytes.Clone(file)
			bad[i] ^= change
			r := Verify(bad, trust)
			if len(r.Findings) == 0 {
				t.Fatalf("byte %d changed by %x: not found", i, change)
			}
			if n := numberAt(b, i); n > 0 && !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Number == n }) {
				t.Fatalf("byte %d, changed by %x, is of entry %d: %v", i, change, n, r.Findings)
			}
		}
	}
}

// numberAt is the entry that byte i of the bundle belongs to; 0: none.
func numberAt(b Bundle, i int) uint64 {
	end := len(b.head())
	if i < end {
		return 0
	}
	for n, r := range b.Records {
		if end += len(r.Bytes()); i < end {
			return uint64(n) + 1
		}
	}
	for _, v := range b.Tapes {
		if end += len(v.Bytes()); i < end {
			return v.Number
		}
	}
	return 0
}

// Wherever a bundle is cut, the first entry that is missing is named.
func TestEveryCutIsFound(t *testing.T) {
	l := story()
	everyCut(t, Trust{Key: l.key}, l.export(7, upTo(12)...))
	everyCut(t, Trust{Key: l.key}, l.forgetful(6, 7, 10))
}

func everyCut(t *testing.T, trust Trust, b Bundle) {
	t.Helper()
	file := b.Bytes()
	for i := range file {
		r := Verify(file[:i], trust)
		if len(r.Findings) == 0 {
			t.Fatalf("cut at %d: not found", i)
		}
		if n := numberAt(b, i); n > 0 && r.Findings[0].Number != n {
			t.Fatalf("cut at %d, in entry %d: %v", i, n, r.Findings)
		}
	}
}

// What was deleted leaves its digest, and says so with the log's word.
func TestDeletedEntries(t *testing.T) {
	l := story()
	r := Verify(l.forgetful(6, 7, 10).Bytes(), Trust{Key: l.key})
	if len(r.Findings) > 0 || !slices.Equal(r.Deleted, []Range{{6, 7}, {10, 10}}) || !slices.Equal(r.Numbers, []Range{{1, 5}, {8, 9}, {11, 12}}) {
		t.Errorf("%+v", r)
	}
	for _, c := range []struct {
		name   string
		change func(b *Bundle)
		number uint64
		text   string
	}{
		{"somebody takes out more on the way", func(b *Bundle) { b.Records[8] = digested(b.Records[8]) }, 9, "taken out"},
		{"a digest of something else", func(b *Bundle) { b.Records[6].Digest = bytes.Repeat([]byte{7}, 32) }, 7, "digest was changed"},
		{"the digests of two change places", func(b *Bundle) { b.Records[5], b.Records[6] = b.Records[6], b.Records[5] }, 6, "digest was changed"},
		{"a digest beside an entry", func(b *Bundle) { b.Records[0].Digest = bytes.Repeat([]byte{7}, 32) }, 1, "put in beside"},
		{"one is put in where another was deleted", func(b *Bundle) {
			forged := Record{Leaf: Leaf{Number: 6, Host: "db1", Outbox: "o", Seq: 3, Entry: event(9).Bytes()}.Bytes()}
			b.Records = slices.Insert(b.Records, 5, forged)
		}, 6, "put in beside"},
		{"a deleted one is put back", func(b *Bundle) { b.Records[9] = l.export(0, upTo(12)...).Records[9] }, 10, "put back"},
		{"a deleted one is left out", func(b *Bundle) { b.Records = slices.Delete(b.Records, 9, 10) }, 10, "missing"},
		{"one that is not deleted is left out", func(b *Bundle) { b.Records = slices.Delete(b.Records, 4, 5) }, 5, "missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := l.forgetful(6, 7, 10)
			c.change(&b)
			r := Verify(b.Bytes(), Trust{Key: l.key})
			if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Number == c.number && strings.Contains(f.Text, c.text) }) {
				t.Errorf("%v", r.Findings)
			}
		})
	}
}

func TestVerifyNamesThePlace(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(l *aLog, b *Bundle)
		want []string // all findings
	}{
		{
			"a record is left out", func(_ *aLog, b *Bundle) { b.Records = slices.Delete(b.Records, 6, 7) },
			[]string{"entry 7: it is missing", "entry 8: before it, numbers 2 to 2 of session 9 on db1 are missing, and no gap says so"},
		},
		{
			"two change places", func(_ *aLog, b *Bundle) { b.Records[6], b.Records[7] = b.Records[7], b.Records[6] },
			[]string{
				"entry 7: in its place stands what calls itself entry 8", "entry 8: in its place stands what calls itself entry 7",
				"entry 9: before it, numbers 2 to 3 of session 9 on db1 are missing, and no gap says so",
			},
		},
		{
			"one stands in place of another", func(_ *aLog, b *Bundle) { b.Records[0] = b.Records[1] },
			[]string{"entry 1: in its place stands what calls itself entry 2"},
		},
		{
			"one stands twice", func(_ *aLog, b *Bundle) { b.Records = append(b.Records, b.Records[11]) },
			[]string{"entry 12: it stands there twice"},
		},
		{
			"one too many is out of order", func(_ *aLog, b *Bundle) { b.Records = append(b.Records[1:], b.Records[0], b.Records[0]) },
			[]string{"entry 1: it stands out of order, after entry 12", "entry 1: it stands there twice"},
		},
		{"one is put in", func(_ *aLog, b *Bundle) {
			b.Records = append(b.Records, Record{Leaf: Leaf{Number: 13, Entry: event(9).Bytes()}.Bytes()})
		}, []string{"entry 13: it was put in: the export did not have it"}},
		{"one is replaced by another of its number", func(_ *aLog, b *Bundle) {
			b.Records[11].Leaf = Leaf{Number: 12, Host: "db1", Outbox: "o", Seq: 9, Entry: Entry{Kind: Agent, At: noon, Host: "db1"}.Bytes()}.Bytes()
		}, []string{"entry 12: it was changed, or its proof was: the checkpoint does not vouch for it"}},
		{
			"a proof is another's", func(_ *aLog, b *Bundle) { b.Records[0].Proof = b.Records[1].Proof },
			[]string{"entry 1: it was changed, or its proof was: the checkpoint does not vouch for it"},
		},
		{
			"the manifest is of another export", func(l *aLog, b *Bundle) { b.Manifest = l.export(0, 1, 2).Manifest },
			[]string{"entry 3: it was put in: the export did not have it", "entry 4: it was put in: the export did not have it"},
		},
		{"the manifest is signed by another", func(l *aLog, b *Bundle) {
			b.Manifest = Manifest{Tree: l.tree(12), Fleet: "example", Numbers: []Range{{1, 12}}}.Seal(key("other"))
		}, []string{"what the bundle is to hold is not known: manifest: 0 of 1: not enough valid signatures"}},
		{"the manifest is of an earlier log", func(l *aLog, b *Bundle) {
			b.Manifest = Manifest{Tree: l.tree(11), Fleet: "example", Numbers: []Range{{1, 11}}}.Seal(l.private)
		}, []string{"what the bundle is to hold is not known: manifest: it is about another state of the log than the checkpoint"}},
		{"the manifest promises what cannot be", func(l *aLog, b *Bundle) {
			b.Manifest = Manifest{Tree: l.tree(12), Fleet: "example", Numbers: []Range{{1, 1 << 40}}}.Seal(l.private)
		}, []string{"what the bundle is to hold is not known: manifest: it promises more than a bundle can hold"}},
		{"the manifest is out of order", func(l *aLog, b *Bundle) {
			b.Manifest = Manifest{Tree: l.tree(12), Fleet: "example", Numbers: []Range{{5, 12}, {1, 4}}}.Seal(l.private)
		}, []string{"what the bundle is to hold is not known: manifest: its numbers are out of order"}},
		{
			"the checkpoint is signed by another", func(_ *aLog, b *Bundle) {
				b.Checkpoint = bytes.Replace(b.Checkpoint, []byte("12\n"), []byte("11\n"), 1)
			},
			[]string{"the bundle's checkpoint: no checkpoint that the key signed: invalid signature for key curfew/example+"},
		},
		{"the earlier checkpoint is of another log", func(_ *aLog, b *Bundle) {
			fork := newLog()
			for range 7 {
				fork.tell(1, event(1))
			}
			b.Older = fork.checkpoint(7)
		}, []string{"the bundle's earlier checkpoint: the log does not hold what it held: what its first 7 entries were is not what they are among 12"}},
		{
			"the proof of growth has no beginning", func(_ *aLog, b *Bundle) { b.Older = nil },
			[]string{"the bundle has a proof of growth, and not from where"},
		},
		{
			"something stands behind it", func(_ *aLog, b *Bundle) { b.Records[11].Proof = append(b.Records[11].Proof, tlog.Hash{}) },
			[]string{"entry 12: it was changed, or its proof was: the checkpoint does not vouch for it"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := story()
			b := l.export(7, upTo(12)...)
			c.do(l, &b)
			same(t, Verify(b.Bytes(), Trust{Key: l.key}).Findings, c.want)
		})
	}
}

// same compares findings, each up to the end of what is wanted. Those of more
// entries than are wanted may follow.
func same(t *testing.T, got []Finding, want []string) {
	t.Helper()
	for i, w := range want {
		if i >= len(got) || !strings.HasPrefix(got[i].String(), w) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
	}
	if len(want) == 0 && len(got) > 0 {
		t.Fatalf("found %v", got)
	}
}

func TestKeptCheckpoints(t *testing.T) {
	l := story()
	fork := story()
	fork.leaves, fork.hashes = nil, nil
	for seq := range uint64(20) {
		fork.tell(seq, event(seq))
	}
	for _, c := range []struct {
		name string
		kept []byte
		want string
	}{
		{"the same", l.checkpoint(12), ""},
		{"the one that the export goes on from", l.checkpoint(7), ""},
		{"another of that size", fork.checkpoint(7), "two logs of 7 entries differ"},
		{"another of this size", fork.checkpoint(12), "two logs of 12 entries differ"},
		{"a later one: the log was set back", fork.checkpoint(20), "is of 20 entries, the bundle's of 12"},
		{"one in between, without a proof", l.checkpoint(9), "export it again with --from"},
		{"none at all", []byte("x"), "no checkpoint that the key signed"},
	} {
		r := Verify(l.export(7, 1).Bytes(), Trust{Key: l.key, Older: c.kept})
		if c.want == "" && len(r.Findings) == 0 {
			continue
		}
		if c.want == "" || len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Text, c.want) {
			t.Errorf("%s: %v", c.name, r.Findings)
		}
	}
}

func TestReceiptsInTheLog(t *testing.T) {
	forged := ended()
	forged.Host = "db2"
	for _, c := range []struct {
		name    string
		receipt []byte
		want    []string
	}{
		{"signed by the host", ended().Seal(key("host")), nil},
		{"signed by another", ended().Seal(key("other")), []string{"entry 1: its receipt is not signed by the host's key"}},
		{"about another host", forged.Seal(key("host")), []string{"entry 1: its receipt is about g-abcdefghijklmnop on db2, not about g-abcdefghijklmnop on db1"}},
		{"of another kind", looked().Seal(key("host")), []string{"entry 1: its receipt is not signed by the host's key"}},
	} {
		l := newLog()
		l.tell(1, Entry{Kind: Removed, At: noon, Host: "db1", Grant: ended().Grant, Person: "ana", Receipt: c.receipt})
		t.Run(c.name, func(t *testing.T) { same(t, Verify(l.export(0, 1).Bytes(), Trust{Key: l.key}).Findings, c.want) })
	}
}

func TestHolesInSessions(t *testing.T) {
	login := Entry{Kind: Login, At: noon, Host: "db1", Session: 9}
	gap := func(session, seq, lost uint64) Entry {
		return Entry{Kind: Gap, At: noon, Host: "db1", Session: session, SessionSeq: seq, Lost: lost}
	}
	for _, c := range []struct {
		name    string
		entries []Entry
		want    []string
	}{
		{"whole, in any order", []Entry{login, event(2), event(1), event(3)}, nil},
		{"a number given twice", []Entry{login, event(1), event(1), event(2)}, nil},
		{"a hole", []Entry{login, event(1), event(4)}, []string{"entry 3: before it, numbers 2 to 3 of session 9 on db1 are missing"}},
		{"two holes", []Entry{login, event(2), event(4)}, []string{"entry 2: before it, numbers 1 to 1", "entry 3: before it, numbers 3 to 3"}},
		{"the beginning is missing", []Entry{login, event(2)}, []string{"entry 2: before it, numbers 1 to 1 of session 9"}},
		{"it began before what is here", []Entry{event(7), event(8)}, nil},
		{"a gap that names it", []Entry{login, event(1), gap(9, 2, 2), event(4)}, nil},
		{"a gap beside it", []Entry{login, event(1), gap(9, 3, 1), event(4)}, []string{"entry 3: before it, numbers 2 to 2"}},
		{"a gap of another session", []Entry{login, event(1), gap(8, 2, 2), event(4)}, []string{"entry 4: before it, numbers 2 to 3"}},
		{"a gap that only counts", []Entry{login, event(1), gap(9, 0, 2), event(4)}, nil},
		{"a gap that counts too few", []Entry{login, event(1), gap(9, 0, 1), event(4)}, []string{"entry 4: before it, numbers 2 to 3"}},
		{"a gap of the host", []Entry{login, event(1), gap(0, 0, 2), event(4)}, nil},
		{"a gap counts once", []Entry{login, event(1), gap(9, 0, 2), event(4), event(7)}, []string{"entry 5: before it, numbers 5 to 6"}},
		{"a gap of all numbers there are", []Entry{login, gap(9, 1, 1<<64-1), event(4)}, nil},
	} {
		l := newLog()
		for i, e := range c.entries {
			l.tell(uint64(i)+1, e)
		}
		t.Run(c.name, func(t *testing.T) {
			same(t, Verify(l.export(0, upTo(uint64(len(c.entries)))...).Bytes(), Trust{Key: l.key}).Findings, c.want)
		})
	}
}

// Where every entry of a stretch is there, so is all that a host numbered.
func TestHolesInOutboxes(t *testing.T) {
	l := newLog()
	for i, seq := range []uint64{3, 0, 4, 6} {
		l.tell(seq, Entry{Kind: Agent, At: noon, Host: "db1", Text: fmt.Sprint(i)})
	}
	same(t, Verify(l.export(0, 1, 2, 3, 4).Bytes(), Trust{Key: l.key}).Findings, []string{"entry 4: it is number 6 of what db1 sent, and entry 3, before it, was number 4"})
	same(t, Verify(l.export(0, 1, 4).Bytes(), Trust{Key: l.key}).Findings, nil)
}

func TestLogsGrow(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := newLog()
		n := rapid.Uint64Range(1, 70).Draw(r, "entries")
		for i := range n {
			l.tell(i+1, event(i+1))
		}
		numbers := rapid.SliceOfNDistinct(rapid.Uint64Range(1, n), 1, int(n), rapid.ID).Draw(r, "numbers")
		slices.Sort(numbers)
		older := rapid.Uint64Range(0, n).Draw(r, "older")
		file := l.export(older, numbers...).Bytes()
		for _, f := range Verify(file, Trust{Key: l.key}).Findings {
			if !strings.Contains(f.Text, "no gap says so") { // the numbers between are not there
				r.Fatal(f)
			}
		}
		i := rapid.IntRange(0, len(file)-1).Draw(r, "byte")
		file[i] ^= byte(rapid.IntRange(1, 255).Draw(r, "change"))
		if len(Verify(file, Trust{Key: l.key}).Findings) == 0 {
			r.Fatalf("a change of byte %d was not found", i)
		}
	})
}
