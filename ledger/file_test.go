package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
)

// aFile is a bundle on a disk: it tells the longest stretch that was read of it at
// once, and can end before its end.
type aFile struct {
	b       []byte
	longest int
	ends    int64 // 0: where it should
}

var errDisk = errors.New("input/output error")

func (f *aFile) ReadAt(b []byte, at int64) (int, error) {
	f.longest = max(f.longest, len(b))
	if f.ends > 0 && at+int64(len(b)) > f.ends {
		return 0, errDisk
	}
	return copy(b, f.b[at:]), nil
}

// long is an export of a log with many entries and a recording of segments, each of
// so many bytes.
func long(entries, segments, size int) (Bundle, Trust) {
	l := newLog()
	l.tell(1, Entry{Kind: Login, At: noon, Host: "db1", Grant: ended().Grant, Session: 9})
	var before []byte
	var tapes []Tape
	for n := range uint64(segments) {
		s := tape()[0]
		data := bytes.Repeat([]byte{byte(n)}, size)
		sum := sha256.Sum256(data)
		s.Number, s.Digest, s.Size, s.Before = n+1, sum[:], uint64(size), before
		before = s.Hash()
		l.tell(n+2, word(s))
		tapes = append(tapes, Tape{n + 2, data})
	}
	for n := range uint64(entries) {
		l.tell(uint64(segments)+2+n, event(n+1))
	}
	all := upTo(uint64(len(l.leaves)))
	b := l.export(0, all...)
	b.Manifest = Manifest{Tree: l.tree(uint64(len(all))), Fleet: "example", Asked: "a test", Numbers: Ranges(all), Tapes: true}.Seal(l.private)
	b.Tapes = tapes
	return b, Trust{Key: l.key}
}

// However long a bundle is, no more of it is in memory than one segment, or so many
// entries as a window has.
func TestABundleIsReadPartByPart(t *testing.T) {
	const size = 200_000
	b, trust := long(2000, 40, size)
	f := &aFile{b: b.Bytes()}
	r := VerifyFile(f, int64(len(f.b)), trust)
	if len(r.Findings) > 0 || r.Tapes != 40 || len(r.Takes) != 40 || !slices.Equal(r.Numbers, []Range{{1, 2041}}) {
		t.Fatalf("%+v", r.Findings)
	}
	if whole := len(b.Tapes[1].Bytes()); f.longest != whole || len(f.b) < 40*size {
		t.Errorf("of %d bytes it read %d at once; one segment has %d", len(f.b), f.longest, whole)
	}
	for i, take := range r.Takes {
		if shown, err := take.Shown(f); err != nil || !bytes.Equal(shown, b.Tapes[i].Data) {
			t.Errorf("segment %d: %v", i+1, err)
		}
	}
	f.b[len(f.b)-1] ^= 1
	if _, err := r.Takes[39].Shown(f); err == nil {
		t.Error("what was changed after it was verified is shown")
	}
}

// A disk that does not give all of it back leaves nothing verified.
func TestABundleThatCannotBeReadToItsEnd(t *testing.T) {
	b, trust := long(3, 2, 10)
	file := b.Bytes()
	for ends := range len(file) {
		r := VerifyFile(&aFile{b: file, ends: int64(ends) + 1}, int64(len(file)), trust)
		if ends+1 < len(file) && len(r.Findings) == 0 {
			t.Fatalf("with %d of %d bytes: nothing found", ends+1, len(file))
		}
	}
}

// A session's numbers are put together as they come, and no hole goes with that.
func TestALongSessionOutOfOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		hole uint64
		want []string
	}{
		{"backwards, and whole", 0, nil},
		{"backwards, with a hole", 500, []string{"entry 1501: before it, numbers 500 to 500 of session 9 on db1 are missing"}},
	} {
		l := newLog()
		l.tell(1, Entry{Kind: Login, At: noon, Host: "db1", Session: 9})
		for n := uint64(2000); n > 0; n-- {
			e := event(n)
			if n == c.hole {
				e = Entry{Kind: Agent, At: noon, Host: "db1"}
			}
			l.tell(uint64(len(l.leaves))+1, e)
		}
		t.Run(c.name, func(t *testing.T) {
			same(t, Verify(l.export(0, upTo(2001)...).Bytes(), Trust{Key: l.key}).Findings, c.want)
		})
	}
}
