package store

import (
	"errors"
	"sync"
	"testing"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// Whoever reads on from the last entry that he saw, while several servers write, sees
// each entry once and in its order: a number is seen by nobody before all that are
// lower are there, and what was rolled back had none.
func TestWhoReadsOnMissesNothing(t *testing.T) {
	const writers, batches, each = 3, 40, 7
	place := newPlace(t)
	s, ctx := openAt(t, place), t.Context()
	hosts := []string{"db1", "db2", "web1"}
	for _, name := range hosts {
		addHost(t, s, name)
	}
	from, err := s.LastEvent(ctx)
	must(t, err)
	var work sync.WaitGroup
	no := errors.New("no")
	for n := range writers {
		own := openAt(t, place)
		work.Go(func() {
			for b := range uint64(batches) {
				var batch []roster.Record
				for i := range uint64(each) {
					seq := b*each + i + 1
					batch = append(batch, roster.Record{Seq: seq, Entry: ledger.Entry{Kind: ledger.Agent, At: noon, Host: hosts[n]}.Bytes()})
				}
				if _, err := own.KeepRecords(ctx, hosts[n], "o", batch); err != nil {
					t.Error(err)
					return
				}
				err := own.write(ctx, func(tx *tx) error {
					return errors.Join(tx.tell(ctx, roster.Act{At: noon}, "a change that fails"), tx.put(ctx), no)
				})
				if !errors.Is(err, no) {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); work.Wait() }()
	seen := map[string]uint64{}
	for last, over := from, false; ; {
		select {
		case <-done:
			over = true // what is there now is all
		default:
		}
		events, err := s.Events(ctx, roster.Search{After: last, Kind: ledger.Agent.String(), Limit: 100})
		must(t, err)
		for _, e := range events {
			if e.ID != last+1 {
				t.Fatalf("entry %d comes after entry %d", e.ID, last)
			}
			last = e.ID
			seen[e.Host]++
		}
		if over && len(events) == 0 {
			break
		}
	}
	for _, name := range hosts {
		if seen[name] != batches*each {
			t.Errorf("of %s %d of %d were seen", name, seen[name], batches*each)
		}
	}
}
