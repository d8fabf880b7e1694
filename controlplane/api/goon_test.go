package api_test

import (
	"context"
	"errors"
	"testing"
	"time"

	capi "curfew.internal/controlplane/api"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// torn is a store that cannot change one request.
type torn struct {
	capi.Store
	id string
}

func (s torn) Change(ctx context.Context, id string, at time.Time, f func(roster.Request) (roster.Change, error)) (roster.Request, error) {
	if id == s.id {
		return roster.Request{}, errors.New("its page is torn")
	}
	return s.Store.Change(ctx, id, at, f)
}

// What cannot be ended keeps nothing else from its end, wherever it stands.
func TestOneThatCannotBeEndedKeepsNoOther(t *testing.T) {
	for _, c := range []struct {
		name, state string
		end         func(w *world) error
	}{
		{"by time", "ended", func(w *world) error {
			w.clock.pass(3 * time.Hour)
			return w.server.Due(t.Context())
		}},
		{"by the policy", "revoked", func(w *world) error {
			w.rules.change(func() { w.rules.eligible = nil })
			return w.server.Recheck(t.Context())
		}},
	} {
		for broken := range 2 {
			t.Run(c.name, func(t *testing.T) {
				w := newWorld(t)
				both := []*api.Request{w.issued(t), w.issued(t)}
				w.server.Store = torn{w.store, both[broken].Id}
				if err := c.end(w); err == nil {
					t.Error("it is not told")
				}
				for i, r := range both {
					got, err := w.store.Request(t.Context(), r.Id)
					must(t, err)
					if want := map[bool]string{true: "issued", false: c.state}[i == broken]; got.State != want {
						t.Errorf("%d is %s, not %s", i, got.State, want)
					}
				}
			})
		}
	}
}
