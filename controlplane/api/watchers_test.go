package api_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	"curfew.internal/wire/api"
)

// A person looks at so much at once, and takes nothing of it from others.
func TestAPersonWatchesSoMuch(t *testing.T) {
	w := newWorld(t)
	r := w.ask(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	watch := func(p *person) *connect.ServerStreamForClient[api.Request] {
		s, err := p.WatchRequest(ctx, &api.GetRequestRequest{Id: r.Id})
		must(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	var all []*connect.ServerStreamForClient[api.Request]
	for range 32 {
		s := watch(w.ana)
		if !s.Receive() {
			t.Fatal(s.Err())
		}
		all = append(all, s)
	}
	s := watch(w.ana)
	if s.Receive() {
		t.Error("one more is let in")
	}
	refused(t, s.Err(), connect.CodeResourceExhausted, "close pages")
	if s = watch(w.ben); !s.Receive() {
		t.Errorf("somebody else: %v", s.Err())
	}
	must(t, all[0].Close())
	for s = watch(w.ana); !s.Receive(); s = watch(w.ana) { // until the server has seen that she left
		refused(t, s.Err(), connect.CodeResourceExhausted, "close pages")
		if t.Failed() {
			return
		}
	}
}
