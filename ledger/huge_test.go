package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// endless is a file of one thing again and again.
type endless []byte

func (e endless) ReadAt(b []byte, at int64) (int, error) {
	for i := range b {
		b[i] = e[(at+int64(i))%int64(len(e))]
	}
	return len(b), nil
}

// took is how much was asked of the memory meanwhile, in MiB.
func took(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) >> 20
}

// However much a bundle says that it holds, checking it takes no more memory than what is
// there does.
func TestWhatABundlePromisesTakesNoMemory(t *testing.T) {
	l := story()
	forever := func(promised Manifest) Bundle {
		promised.Tree, promised.Fleet = Tree{1 << 40, tlog.Hash{1}}, "example"
		b := l.export(0, 1, 2)
		signed, err := note.Sign(&note.Note{Text: Checkpoint{"example", promised.Tree}.Text()}, l)
		if err != nil {
			t.Fatal(err)
		}
		b.Checkpoint, b.Manifest = signed, promised.Seal(l.private)
		return b
	}
	var most []Range
	for n := range uint64(64) {
		most = append(most, Range{n<<28 + 1, (n+1)<<28 - 1})
	}
	everyOther := []uint64{}
	for n := range uint64(2 * maxFindings) {
		everyOther = append(everyOther, 2*n+1)
	}
	for _, c := range []struct {
		name   string
		m      Manifest
		change func(*Bundle)
		more   bool
	}{
		{"entries", Manifest{Numbers: most}, func(*Bundle) {}, false},
		{"entries, and is cut", Manifest{Numbers: most}, func(b *Bundle) { b.Records[1].Proof = make(tlog.RecordProof, maxProof+1) }, false},
		{"entries that were deleted", Manifest{Numbers: most, Deleted: most}, func(b *Bundle) { b.Records[0] = digested(b.Records[0]) }, false},
		{"segments that were", Manifest{Numbers: most, Erased: most, Tapes: true}, func(*Bundle) {}, false},
		{"more than can be told one by one", Manifest{Numbers: Ranges(everyOther)}, func(*Bundle) {}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := forever(c.m)
			c.change(&b)
			file := b.Bytes()
			var r Report
			if mb := took(func() { r = Verify(file, Trust{Key: l.key}) }); mb > 64 {
				t.Errorf("it took %d MiB", mb)
			}
			if len(r.Findings) == 0 || len(r.Findings) > maxFindings || (r.More > 0) != c.more {
				t.Errorf("%d findings, and %d more", len(r.Findings), r.More)
			}
		})
	}
}

// A head without end is refused where it goes wrong.
func TestAHeadWithoutEnd(t *testing.T) {
	for name, part := range map[string][]byte{
		"checkpoints":       Bundle{Checkpoint: bytes.Repeat([]byte{'x'}, 1000)}.Bytes(),
		"empty checkpoints": {0x0a, 0x00},
		"manifests":         Bundle{Manifest: []byte("x")}.Bytes(),
		"a proof of growth": Bundle{Growth: make(tlog.TreeProof, 1)}.Bytes(),
	} {
		t.Run(name, func(t *testing.T) {
			var r Report
			if mb := took(func() { r = VerifyFile(endless(part), 1<<30, Trust{Key: story().key}) }); mb > 64 || len(r.Findings) == 0 {
				t.Errorf("it took %d MiB: %v", mb, r.Findings)
			}
		})
	}
}

// thin is a file of what it begins with and nothing but zeros behind that.
type thin []byte

func (l thin) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < int64(len(l)) {
		copy(b, l[at:])
	}
	return len(b), nil
}

// What is longer than any record or tape is refused by its length.
func TestARecordWithoutEnd(t *testing.T) {
	for name, tag := range map[string]byte{"a record": 5<<3 | 2, "a tape": 6<<3 | 2} {
		t.Run(name, func(t *testing.T) {
			part := binary.AppendUvarint([]byte{tag}, 200<<20)
			part = append(part, 2<<3|2) // the entry, or what the tape holds
			part = binary.AppendUvarint(part, 200<<20-5)
			var r Report
			if mb := took(func() { r = VerifyFile(thin(part), 256<<20, Trust{Key: story().key}) }); mb > 64 || len(r.Findings) == 0 {
				t.Errorf("it took %d MiB: %v", mb, r.Findings)
			}
		})
	}
}

// What is missing in a row is one finding.
func TestAllThatIsMissingInARowIsNamedAtOnce(t *testing.T) {
	l := story()
	b := l.export(7, upTo(12)...)
	b.Records = slices.Concat(b.Records[:1], b.Records[2:3], b.Records[10:11])
	same(t, Verify(b.Bytes(), Trust{Key: l.key}).Findings, []string{
		"entry 2: it is missing", "entry 4: it is missing, and so is all behind it up to entry 10", "entry 12: it is missing",
	})
	b.Records = nil
	same(t, Verify(b.Bytes(), Trust{Key: l.key}).Findings, []string{"entry 1: it is missing, and so is all behind it up to entry 12"})
}

// Whoever writes the log leaves out what a host sent, where entries around it were
// deleted by its retention: no more can have gone than were.
func TestWhatWasDeletedHidesNothingElse(t *testing.T) {
	for lost := range uint64(4) {
		l := newLog()
		for seq := range uint64(10) {
			if seq < 5 || seq >= 5+lost {
				l.tell(seq+1, Entry{Kind: Agent, At: noon, Host: "db1"})
			}
			l.tell(seq+1, Entry{Kind: Agent, At: noon, Host: "db2"})
		}
		size := uint64(len(l.leaves))
		for _, deleted := range [][]uint64{{9, 10}, {10, 11}, {3}, nil} {
			b := l.export(0, upTo(size)...)
			b.Manifest = Manifest{Tree: l.tree(size), Fleet: "example", Numbers: Ranges(upTo(size)), Deleted: Ranges(deleted)}.Seal(l.private)
			own := uint64(0) // of the host's, between those that are there
			for _, n := range deleted {
				b.Records[n-1] = digested(b.Records[n-1])
				if n >= 9 {
					own++
				}
			}
			t.Run(fmt.Sprintf("%d left out, %v deleted", lost, deleted), func(t *testing.T) {
				r := Verify(b.Bytes(), Trust{Key: l.key})
				at9 := slices.Contains(deleted, 9) // the newest of the host's before
				hole := lost
				if at9 {
					hole++
				}
				if want := hole > own; (len(r.Findings) > 0) != want {
					t.Errorf("%v", r.Findings)
				}
			})
		}
	}
}
