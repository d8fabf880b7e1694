package ledger

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
)

// shown is what segment n of the longer tape shows.
func shown(n uint64) []byte { return bytes.Repeat([]byte{'a' + byte(n)}, 40) }

// recorded is an export of a log with a recording of three segments, whose entries are
// 2, 3 and 5; 4 tells that of 3 again, and 6 is its end.
func recorded(erased ...uint64) (Bundle, Trust) {
	l := newLog()
	l.tell(1, Entry{Kind: Login, At: noon, Host: "db1", Grant: ended().Grant, Session: 9})
	var before []byte
	for i, s := range tape() {
		if s.End == "" {
			sum := sha256.Sum256(shown(s.Number))
			s.Digest, s.Size = sum[:], 40
		}
		s.Before = before
		before = s.Hash()
		l.tell(uint64(len(l.leaves))+1, word(s))
		if i == 1 {
			l.tell(uint64(len(l.leaves))+1, word(s))
		}
	}
	b := l.export(0, upTo(6)...)
	m := Manifest{Tree: l.tree(6), Fleet: "example", Asked: "a test", Numbers: Ranges(upTo(6)), Tapes: true, Erased: Ranges(erased)}
	b.Manifest = m.Seal(l.private)
	for i, n := range []uint64{2, 3, 5} {
		if !slices.Contains(erased, n) {
			b.Tapes = append(b.Tapes, Tape{n, shown(uint64(i) + 1)})
		}
	}
	return b, Trust{Key: l.key}
}

func TestVerifyLooksAtWhatTerminalsShow(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b *Bundle)
		want   []string
		checks int
	}{
		{"all is as its host signed it", func(*Bundle) {}, nil, 3},
		{"one is missing", func(b *Bundle) { b.Tapes = slices.Delete(b.Tapes, 1, 2) }, []string{"entry 3: segment 2 of terminal t-1 is missing"}, 2},
		{"all are missing", func(b *Bundle) { b.Tapes = nil }, []string{
			"entry 2: segment 1 of terminal t-1 is missing", "entry 3: segment 2 of terminal t-1 is missing", "entry 5: segment 3 of terminal t-1 is missing",
		}, 0},
		{"one is cut", func(b *Bundle) { b.Tapes[2].Data = b.Tapes[2].Data[:39] }, []string{"entry 5: segment 3 of terminal t-1 was changed: it has 39 bytes, and its host signed 40"}, 2},
		{"one is empty", func(b *Bundle) { b.Tapes[0].Data = nil }, []string{"entry 2: segment 1 of terminal t-1 was changed: it has 0 bytes, and its host signed 40"}, 2},
		{"one goes on", func(b *Bundle) { b.Tapes[0].Data = append(b.Tapes[0].Data, 'x') }, []string{"entry 2: segment 1 of terminal t-1 was changed: it has 41 bytes, and its host signed 40"}, 2},
		{"one is altered", func(b *Bundle) { b.Tapes[1].Data[7] = 'x' }, []string{"entry 3: segment 2 of terminal t-1 was changed: it is not what its host signed"}, 2},
		{"two are swapped", func(b *Bundle) { b.Tapes[0].Data, b.Tapes[1].Data = b.Tapes[1].Data, b.Tapes[0].Data }, []string{
			"entry 2: in the place of segment 1 of terminal t-1 stands segment 2 of t-1, of entry 3",
			"entry 3: in the place of segment 2 of terminal t-1 stands segment 1 of t-1, of entry 2",
		}, 1},
		{"two change their order", func(b *Bundle) { b.Tapes[0], b.Tapes[1] = b.Tapes[1], b.Tapes[0] }, []string{
			"entry 2: what its terminal showed stands out of order, after that of entry 3",
		}, 3},
		{"one stands there twice", func(b *Bundle) { b.Tapes = slices.Insert(b.Tapes, 1, b.Tapes[0]) }, []string{"entry 2: what its terminal showed stands there twice"}, 3},
		{"it is told again, and not shown again", func(b *Bundle) { b.Tapes = slices.Insert(b.Tapes, 2, Tape{4, shown(2)}) }, []string{
			"entry 4: what a terminal showed was put in: the export had none for it",
		}, 3},
		{"one is put in where none was", func(b *Bundle) { b.Tapes = append(b.Tapes, Tape{6, shown(4)}) }, []string{
			"entry 6: what a terminal showed was put in: the export had none for it",
		}, 3},
	} {
		b, trust := recorded()
		c.change(&b)
		r := Verify(b.Bytes(), trust)
		if r.Tapes != c.checks {
			t.Errorf("%s: %d are what was signed, want %d", c.name, r.Tapes, c.checks)
		}
		same(t, r.Findings, c.want)
	}
}

// What a recording showed is gone by the log's word, or not at all.
func TestVerifyOfErasedTapes(t *testing.T) {
	b, trust := recorded(3)
	if r := Verify(b.Bytes(), trust); len(r.Findings) > 0 || r.Tapes != 2 || !slices.Equal(r.Erased, []Range{{3, 3}}) {
		t.Errorf("%+v", r)
	}
	b.Tapes = slices.Insert(b.Tapes, 1, Tape{3, shown(2)})
	same(t, Verify(b.Bytes(), trust).Findings, []string{"entry 3: what a terminal showed was put in: the export had none for it"})

	l := newLog()
	l.tell(1, word(tape()[0]))
	plain := l.export(0, 1)
	plain.Tapes = []Tape{{1, []byte{0}}}
	same(t, Verify(plain.Bytes(), Trust{Key: l.key}).Findings, []string{"entry 1: what a terminal showed was put in: the export had none for it"})
}

// Wherever it is cut, the first segment that is missing is named; whichever byte of
// one is changed, it is that one.
func TestEveryByteOfTapesCounts(t *testing.T) {
	b, trust := recorded()
	file, begin := b.Bytes(), len(b.Bytes())
	for _, v := range b.Tapes {
		begin -= len(v.Bytes())
	}
	for _, v := range b.Tapes {
		for i := range len(v.Bytes()) {
			r := Verify(file[:begin+i], trust)
			if len(r.Findings) == 0 || r.Findings[0].Number != v.Number {
				t.Fatalf("cut at byte %d of entry %d's: %v", i, v.Number, r.Findings)
			}
			for bit := range 8 {
				bad := bytes.Clone(file)
				bad[begin+i] ^= 1 << bit
				r := Verify(bad, trust)
				if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Number == v.Number }) {
					t.Fatalf("bit %d of byte %d of entry %d's: %v", bit, i, v.Number, r.Findings)
				}
			}
		}
		begin += len(v.Bytes())
	}
	r := Verify(append(file, 'x'), trust)
	if len(r.Findings) != 1 || r.Tapes != 3 || !strings.Contains(r.Findings[0].Text, "broken behind its last recording") {
		t.Errorf("behind the last: %v", r.Findings)
	}
}
