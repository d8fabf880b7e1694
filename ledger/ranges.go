package ledger

import (
	"iter"
	"slices"
)

// A bundle of some hundred bytes can promise more numbers than memory has room for: what
// it is to hold stays in ranges.

// each are the numbers of ranges, in their order.
func each(all []Range) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, r := range all {
			for i := range r.To - r.From + 1 {
				if !yield(r.From + i) {
					return
				}
			}
		}
	}
}

// countOf is how many numbers ranges have.
func countOf(all []Range) uint64 {
	n := uint64(0)
	for _, r := range all {
		n += r.To - r.From + 1
	}
	return n
}

// firstOf are the first so many numbers of ranges.
func firstOf(all []Range, n uint64) []Range {
	var some []Range
	for _, r := range all {
		if n == 0 {
			break
		}
		r.To = min(r.To, r.From+n-1)
		n -= r.To - r.From + 1
		some = append(some, r)
	}
	return some
}

// within reports whether a number is among those of ascending ranges.
func within(all []Range, n uint64) bool {
	_, found := slices.BinarySearchFunc(all, n, func(r Range, n uint64) int {
		switch {
		case n < r.From:
			return 1
		case n > r.To:
			return -1
		}
		return 0
	})
	return found
}
