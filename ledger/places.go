package ledger

import (
	"iter"
	"maps"
	"slices"
)

// records lays the records beside the numbers that they are to have.
func (v *verifier) records(numbers []Range, broken error) {
	have := uint64(len(v.bundle.records))
	if broken != nil {
		v.broken(numbers, broken)
		numbers = firstOf(numbers, have)
	}
	if countOf(numbers) == have { // each in its place
		place := 0
		for n := range each(numbers) {
			v.laid(n, place)
			place++
		}
	} else {
		v.found(numbers, v.places(numbers))
	}
	v.Deleted = Ranges(v.gone)
}

// found looks at the records of entries by their places, and names what is missing
// between them.
func (v *verifier) found(numbers []Range, at map[uint64]int) {
	known := slices.Sorted(maps.Keys(at))
	for _, r := range numbers {
		next := r.From
		for ; len(known) > 0 && known[0] <= r.To; known = known[1:] {
			n := known[0]
			v.missing(next, n)
			v.laid(n, at[n])
			next = n + 1
		}
		v.missing(next, r.To+1)
	}
}

// missing names the entries from one to before another.
func (v *verifier) missing(from, before uint64) {
	switch {
	case from >= before:
	case from+1 == before:
		v.find(from, "it is missing")
	default:
		v.find(from, "it is missing, and so is all behind it up to entry %d", before-1)
	}
}

// laid looks at the record in a place, which is to be that of entry n.
func (v *verifier) laid(n uint64, place int) {
	if v.record(n, place) {
		v.Numbers = added(v.Numbers, n)
	}
}

// broken says where the bundle cannot be read any further.
func (v *verifier) broken(numbers []Range, err error) {
	if n := uint64(len(v.bundle.records)); n < countOf(numbers) {
		all := firstOf(numbers, n+1)
		v.find(all[len(all)-1].To, "the bundle is cut or broken here, and ends for the checker: %v", err)
		return
	}
	if v.manifested.Tapes {
		v.behind = err
		return
	}
	v.find(0, "the bundle is broken behind its last entry: %v", err)
}

// places finds the records by what they call themselves, for a bundle that has
// too many or too few.
func (v *verifier) places(numbers []Range) map[uint64]int {
	at := map[uint64]int{}
	last := uint64(0)
	gone, stop := iter.Pull(each(v.deleted))
	defer stop()
	for i := range v.bundle.records {
		r, err := v.bundle.record(i)
		n, more := uint64(0), false
		if r.deleted() {
			n, more = gone()
		}
		if more {
			// It does not say which it is: they stand in their order.
			if _, twice := at[n]; twice {
				v.find(n, "it was put in beside the digest that is left of it")
			}
			at[n] = i
			continue
		}
		var l Leaf
		if err == nil {
			l, err = ParseLeaf(r.Leaf)
		}
		if err != nil {
			v.find(0, "record %d of the bundle cannot be read: %v", i+1, err)
			continue
		}
		_, twice := at[l.Number]
		meant := within(numbers, l.Number)
		switch {
		case twice:
			v.find(l.Number, "it stands there twice")
			continue
		case !meant:
			v.find(l.Number, "it was put in: the export did not have it")
			continue
		case l.Number < last:
			v.find(l.Number, "it stands out of order, after entry %d", last)
		}
		last = max(last, l.Number)
		at[l.Number] = i
	}
	return at
}
