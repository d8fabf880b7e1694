package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"curfew.internal/controlplane/roster"
)

// A fleet says at once what became of its sets: each is kept, with what the
// record is to say of it, and whoever is not of the fleet fails alone.
func TestWhatComesTogetherIsKeptForEach(t *testing.T) {
	s := fresh(t)
	ctx := t.Context()
	const hosts = 3 * mostTogether
	name := func(i int) string { return fmt.Sprintf("h%04d", i) }
	must(t, s.write(ctx, func(t *tx) error {
		for i := range hosts {
			if err := putHost(ctx, t, roster.Host{Name: name(i), Identity: name(i), ReceiptKey: make([]byte, 32), EnrolledAt: noon}, false); err != nil {
				return err
			}
		}
		return nil
	}))
	var all sync.WaitGroup
	errs := make([]error, hosts+1)
	for i := range errs {
		all.Go(func() {
			errs[i] = errors.Join(
				s.Seen(ctx, name(i), noon, roster.Host{AgentVersion: name(i)}),
				s.Applied(ctx, name(i), roster.Report{Access: "enforce", Revision: 5}, noon.Add(time.Duration(i)*time.Second)))
		})
	}
	begun := make([]error, hosts)
	for i := range begun {
		all.Go(func() {
			for range 5 { // so that some come between what is told of others
				_, err := s.KeepRecords(ctx, name(i), "o", nil)
				begun[i] = errors.Join(begun[i], err)
			}
		})
	}
	all.Wait()
	must(t, errors.Join(begun...))
	for i, err := range errs[:hosts] {
		must(t, err)
		h, err := s.Host(ctx, name(i))
		must(t, err)
		if h.AgentVersion != name(i) || h.Access != "enforce" || !h.Seen.Equal(noon.Add(time.Duration(i)*time.Second)) {
			t.Fatalf("%+v", h)
		}
	}
	var told int
	must(t, s.read.QueryRowContext(ctx, `SELECT count(DISTINCT words) FROM entries WHERE words LIKE '%revision 5%'`).Scan(&told))
	if told != hosts {
		t.Errorf("the record tells of %d hosts that are ahead", told)
	}
	if !errors.Is(errs[hosts], roster.ErrUnknown) {
		t.Errorf("of no host: %v", errs[hosts])
	}
}

// What many ask at once is read together, and nobody is answered by a reading
// that began before she asked.
func TestWhatIsAskedTogetherIsReadTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gathered[question[int, int]]
		var readings [][]int
		var failed atomic.Int32
		hold := make(chan struct{})
		read := func(_ context.Context, keys []int) (map[int]int, error) {
			readings = append(readings, keys)
			<-hold
			if len(readings) == 3 {
				return nil, errors.New("the database is away")
			}
			found := map[int]int{}
			for _, k := range keys {
				found[k] = 2 * k
			}
			delete(found, 7)
			return found, nil
		}
		ask := func(k int) {
			v, ok, err := readTogether(t.Context(), &g, k, read)
			if err != nil {
				failed.Add(1)
			} else if ok == (k == 7) || ok && v != 2*k {
				t.Errorf("%d: %d, %v", k, v, ok)
			}
		}
		go ask(-1)
		synctest.Wait() // it is being read
		for k := range mostTogether + 3 {
			go ask(k)
		}
		synctest.Wait()
		close(hold)
		synctest.Wait()
		if len(readings) != 3 || len(readings[0]) != 1 || len(readings[1]) != mostTogether || len(readings[2]) != 4 {
			t.Errorf("read %d times: %v", len(readings), readings)
		}
		if failed.Load() != 3 {
			t.Errorf("%d were told that their reading failed", failed.Load())
		}
	})
}

// Whoever does not wait any more keeps nobody else from an answer.
func TestWhoGoesDoesNotTakeTheOthersAnswer(t *testing.T) {
	s := fresh(t)
	addHost(t, s, "db1")
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := s.State(gone, "db1"); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	v, err := s.State(t.Context(), "db1")
	if err != nil || v.Revision == 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := s.State(t.Context(), "db2"); !errors.Is(err, roster.ErrUnknown) {
		t.Errorf("of no host: %v", err)
	}
	if _, err := s.Host(t.Context(), "db2"); !errors.Is(err, roster.ErrUnknown) {
		t.Errorf("of no host: %v", err)
	}
}
