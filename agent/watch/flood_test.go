package watch

import (
	"fmt"
	"slices"
	"testing"

	"curfew.internal/ledger"
	"curfew.internal/test/need"
)

// One session floods while nobody reads, and another works: the flood costs
// the other nothing, and what was made is what is recorded and what is told as
// lost, by each program's own count.
func TestAFloodCostsOthersNothing(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	const flood, second, work = 0x5001, 0x5003, 0x5005
	const programs, few = 4000, 300
	storm := func(n int) string {
		return fmt.Sprintf(`
import os
input()
for i in range(%d):
    os.waitpid(os.posix_spawn("/bin/true", ["/bin/true", str(i), "x" * 3000], {}), 0)
`, n)
	}
	trees := map[uint64]*tree{flood: python(t, storm(programs)), second: python(t, storm(programs)), work: python(t, storm(few))}
	for session, s := range trees {
		if session != work {
			s.grow(t, w, session)
		}
	}
	for session, s := range trees {
		if session == work {
			continue
		}
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	trees[work].grow(t, w, work)
	if err := trees[work].Wait(); err != nil {
		t.Fatal(err)
	}
	b := &book{}
	defer run(t, w, b)()
	// Each program is an exec and an exit, and the tree one exit more.
	made := map[uint64]uint64{flood: 2*programs + 1, second: 2*programs + 1, work: 2*few + 1}
	count := func() (told, lost map[uint64]uint64) {
		told, lost = map[uint64]uint64{}, map[uint64]uint64{}
		for _, e := range b.all() {
			if e.Kind == ledger.Gap {
				lost[e.Session] += e.Lost
			} else {
				told[e.Session]++
			}
		}
		return told, lost
	}
	until(t, "account of all", func() bool {
		told, lost := count()
		for session, n := range made {
			if told[session]+lost[session] < n {
				return false
			}
		}
		return true
	})
	told, lost := count()
	for session, n := range made {
		if told[session]+lost[session] != n {
			t.Errorf("%x: %d made, %d told, %d lost", session, n, told[session], lost[session])
		}
	}
	if lost[work] != 0 || lost[flood] == 0 || lost[second] == 0 {
		t.Errorf("lost: %v", lost)
	}
	gaps := b.where(ledger.Gap, func(e ledger.Entry) bool { return e.Session == flood })
	first := gaps[0]
	before := slices.IndexFunc(b.all(), func(e ledger.Entry) bool { return e.Session == flood && e.SessionSeq == first.SessionSeq-1 })
	if before < 0 || !b.all()[before].At.Equal(first.Since) || first.At.Before(first.Since) || first.SessionSeq == 0 {
		t.Errorf("bounds of the gap: %+v", first)
	}
}
