package watch

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"curfew.internal/bpf"
)

// Whatever comes, in whatever order, and whenever somebody looks: in the end
// each number that the kernel gave has come or is in exactly one gap.
func TestEveryNumberIsAccountedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		made := rapid.Uint64Range(0, 60).Draw(t, "made")
		from := rapid.Uint64Range(0, made).Draw(t, "from")
		var come []uint64
		for seq := from + 1; seq <= made; seq++ {
			if rapid.Bool().Draw(t, "comes") {
				come = append(come, seq)
			}
		}
		come = rapid.Permutation(come).Draw(t, "order")
		a := numbers{}.open(1, from)
		for _, seq := range come {
			if !a.see(seq, (time.Time{}).Add(time.Duration(seq))) {
				t.Fatalf("%d is taken for one that was handed on before", seq)
			}
		}
		if gaps := a.look(1, (bpf.WatchSession{Made: made}), time.Time{}); len(gaps) > 0 {
			t.Fatalf("a gap at the first look: %+v", gaps)
		}
		lost := map[uint64]bool{}
		for seq := from + 1; seq <= made; seq++ {
			lost[seq] = true
		}
		for _, seq := range come {
			delete(lost, seq)
		}
		var told uint64
		end := time.Time{}.Add(time.Hour)
		for _, g := range a.look(1, (bpf.WatchSession{Made: made}), end) {
			told += g.Lost
			for seq := g.SessionSeq; seq < g.SessionSeq+g.Lost; seq++ {
				if !lost[seq] {
					t.Fatalf("%d is in a gap and came", seq)
				}
			}
			after := g.SessionSeq + g.Lost
			if before := g.SessionSeq - 1; before > from && !g.Since.Equal((time.Time{}).Add(time.Duration(before))) {
				t.Fatalf("the gap from %d begins at %v", g.SessionSeq, g.Since)
			}
			if at := (time.Time{}).Add(time.Duration(after)); after <= made && !g.At.Equal(at) || after > made && !g.At.Equal(end) {
				t.Fatalf("the gap before %d ends at %v", after, g.At)
			}
		}
		if told != uint64(len(lost)) || !a.settled(made) {
			t.Fatalf("%d in gaps, lost are %v", told, slices.Sorted(maps.Keys(lost)))
		}
	})
}

func TestWhatWasHandedOnIsNotToldTwice(t *testing.T) {
	a := numbers{}.open(1, 5)
	for seq, fresh := range map[uint64]bool{5: false, 6: true, 1: false, 8: true} {
		if a.see(seq, (time.Time{})) != fresh {
			t.Errorf("%d: fresh %v", seq, !fresh)
		}
	}
}
