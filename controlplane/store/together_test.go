package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
)

// A fleet says at once what became of its sets: each is kept, and whoever is
// not of the fleet fails alone.
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
				s.Applied(ctx, name(i), roster.Report{Access: "enforce"}, noon.Add(time.Duration(i)*time.Second)))
		})
	}
	all.Wait()
	for i, err := range errs[:hosts] {
		must(t, err)
		h, err := s.Host(ctx, name(i))
		must(t, err)
		if h.AgentVersion != name(i) || h.Access != "enforce" || !h.Seen.Equal(noon.Add(time.Duration(i)*time.Second)) {
			t.Fatalf("%+v", h)
		}
	}
	if !errors.Is(errs[hosts], roster.ErrUnknown) {
		t.Errorf("of no host: %v", errs[hosts])
	}
}
