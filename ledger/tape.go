package ledger

import (
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

// tapes lays what recordings show beside what their hosts signed of it.
func (v *verifier) tapes(broken error) {
	all := v.bundle.Tapes
	if !v.manifested.Tapes && len(all) == 0 {
		return
	}
	wanted := v.taped()
	here, last := map[uint64]bool{}, uint64(0)
	for _, t := range all {
		_, meant := wanted[t.Number]
		switch {
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
		v.tape(t, wanted)
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
	said := map[uint64]Segment{}
	if !v.manifested.Tapes {
		return said
	}
	for _, p := range v.good {
		if p.Foreign || p.entry.Kind != Terminal {
			continue
		}
		if s, err := OpenSegment(p.entry.Receipt, p.ReceiptKey); err == nil && len(s.Digest) > 0 {
			said[p.Number] = s
		}
	}
	wanted := Untold(said)
	var erased []uint64
	for _, n := range v.erased {
		if _, is := wanted[n]; is {
			erased = append(erased, n)
			delete(wanted, n)
		}
	}
	v.Erased = Ranges(erased)
	return wanted
}

// tape holds what stands in a segment's place against what its host signed.
func (v *verifier) tape(t Tape, wanted map[uint64]Segment) {
	s := wanted[t.Number]
	if s.Holds(t.Data) {
		v.Tapes++
		return
	}
	for _, n := range slices.Sorted(maps.Keys(wanted)) {
		if o := wanted[n]; o.Holds(t.Data) {
			v.find(t.Number, "in the place of segment %d of terminal %s stands segment %d of %s, of entry %d", s.Number, s.Terminal, o.Number, o.Terminal, n)
			return
		}
	}
	if uint64(len(t.Data)) != s.Size {
		v.find(t.Number, "segment %d of terminal %s was changed: it has %d bytes, and its host signed %d", s.Number, s.Terminal, len(t.Data), s.Size)
		return
	}
	v.find(t.Number, "segment %d of terminal %s was changed: it is not what its host signed", s.Number, s.Terminal)
}
