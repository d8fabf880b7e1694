package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
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
