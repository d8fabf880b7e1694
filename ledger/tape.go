package ledger

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"curfew.internal/canon"
)

// A Tape is what one segment of a recording shows. The entry that has the host's
// word on it stands in the same bundle.
type Tape struct {
	Number uint64 // of that entry
	Data   []byte
}

// Bytes is the tape as it stands in a bundle, which it may be added to.
func (t Tape) Bytes() []byte {
	var in, w canon.Writer
	in.Uint(1, t.Number)
	in.Blob(2, t.Data)
	w.Item(6, in.Bytes())
	return w.Bytes()
}

func parseTape(b []byte) (Tape, error) {
	var t Tape
	err := canon.Read(b, func(f canon.Field) error { return f.Message(t.field) })
	return t, err
}

func (t *Tape) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Uint(&t.Number)
	case 2:
		return f.Blob(&t.Data)
	}
	return f.Unknown()
}

// Untold keeps, of statements by the entries that have them, those that are not
// told a second time: an agent that was killed in between tells one again.
func Untold(said map[uint64]Segment) map[uint64]Segment {
	first, seen := map[uint64]Segment{}, map[string]bool{}
	for _, n := range slices.Sorted(maps.Keys(said)) {
		if s := said[n]; !seen[string(s.Bytes())] {
			seen[string(s.Bytes())] = true
			first[n] = s
		}
	}
	return first
}

// A Take is a segment of a recording as a bundle has it, or the recording's end.
type Take struct {
	Segment
	from, size int64 // where it lies in the file
}

// Shown is what the segment shows, read from the file that was verified. What
// is not there any more as the host signed it is an error.
func (t Take) Shown(file File) ([]byte, error) {
	if len(t.Digest) == 0 {
		return nil, nil
	}
	var v Tape
	b, err := (&laid{file: file}).at(t.from, t.size)
	if err == nil {
		v, err = parseTape(b)
	}
	if err == nil && !t.Holds(v.Data) {
		err = fmt.Errorf("segment %d of terminal %s was changed since the bundle was verified", t.Number, t.Terminal)
	}
	return v.Data, err
}

// tapes lays what recordings show beside what their hosts signed of it.
func (v *verifier) tapes(broken error) {
	all := v.bundle.tapes
	if !v.manifested.Tapes && len(all) == 0 {
		return
	}
	wanted := v.taped()
	here, last := map[uint64]bool{}, uint64(0)
	for i := range all {
		t, err := v.bundle.tape(i)
		_, meant := wanted[t.Number]
		switch {
		case err != nil:
			v.find(0, "recording %d of the bundle cannot be read: %v", i+1, err)
			continue
		case !meant:
			v.find(t.Number, "what a terminal showed was put in: the export had none for it")
			continue
		case here[t.Number]:
			v.find(t.Number, "what its terminal showed stands there twice")
			continue
		case t.Number < last:
			v.find(t.Number, "what its terminal showed stands out of order, after that of entry %d", last)
		}
		here[t.Number], last = true, max(last, t.Number)
		if s := wanted[t.Number]; v.tape(t, s, wanted) {
			from, size := v.bundle.taped(i)
			v.Takes = append(v.Takes, Take{s, from, size})
		}
	}
	for _, n := range slices.Sorted(maps.Keys(wanted)) {
		switch s := wanted[n]; {
		case here[n]:
			continue
		case broken != nil:
			v.find(n, "the bundle is cut or broken here, and ends for the checker: %v", broken)
			broken = nil
		default:
			v.find(n, "segment %d of terminal %s is missing", s.Number, s.Terminal)
		}
	}
	if broken != nil {
		v.find(0, "the bundle is broken behind its last recording: %v", broken)
	}
}

// taped are the statements on segments whose data has to be in the bundle, by
// their entries.
func (v *verifier) taped() map[uint64]Segment {
	wanted := Untold(v.said)
	var erased []uint64
	for _, n := range slices.Sorted(maps.Keys(wanted)) {
		if within(v.erased, n) {
			erased = append(erased, n)
			delete(wanted, n)
		}
	}
	v.Erased = Ranges(erased)
	return wanted
}

// tape holds what stands in a segment's place against what its host signed.
func (v *verifier) tape(t Tape, s Segment, wanted map[uint64]Segment) bool {
	if s.Holds(t.Data) {
		v.Tapes++
		return true
	}
	digest := sha256.Sum256(t.Data)
	for _, n := range slices.Sorted(maps.Keys(wanted)) {
		if o := wanted[n]; bytes.Equal(o.Digest, digest[:]) {
			v.find(t.Number, "in the place of segment %d of terminal %s stands segment %d of %s, of entry %d", s.Number, s.Terminal, o.Number, o.Terminal, n)
			return false
		}
	}
	if uint64(len(t.Data)) != s.Size {
		v.find(t.Number, "segment %d of terminal %s was changed: it has %d bytes, and its host signed %d", s.Number, s.Terminal, len(t.Data), s.Size)
		return false
	}
	v.find(t.Number, "segment %d of terminal %s was changed: it is not what its host signed", s.Number, s.Terminal)
	return false
}
