package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"curfew.internal/clock"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

// restarting tells one event at its second stream; its first one breaks off
// before anything came.
type restarting struct {
	apiconnect.UnimplementedCurfewHandler

	mu    sync.Mutex // guards what follows
	asked []uint64
	end   func()
}

func (r *restarting) TailEvents(_ context.Context, m *api.SearchEventsRequest, s *connect.ServerStream[api.Event]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, m.After)
	switch len(r.asked) {
	case 1:
		s.ResponseHeader().Set(api.After, "7")
		return errors.Join(s.Send(nil), connect.NewError(connect.CodeUnavailable, errors.New("it is started anew")))
	case 2:
		return s.Send(&api.Event{Id: 9, Kind: "admin", Text: "came meanwhile"})
	}
	r.end()
	return nil
}

// away is a server that nobody reaches, when it is asked for the second time.
type away struct {
	http.RoundTripper
	asked atomic.Int64
}

func (a *away) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.asked.Add(1) == 2 {
		return nil, errors.New("connection refused")
	}
	return a.RoundTripper.RoundTrip(r)
}

// eager is a clock that waits for nothing.
type eager struct{ clock.System }

func (eager) After(time.Duration) <-chan time.Time { return time.After(0) }

// What came while the server was away, and before anything was shown, is not
// missed.
func TestATailGoesOnWhereItBegan(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &restarting{end: cancel}
	mux := http.NewServeMux()
	mux.Handle(apiconnect.NewCurfewHandler(r))
	server := httptest.NewServer(mux)
	defer server.Close()
	var out strings.Builder
	client := server.Client()
	client.Transport = &away{RoundTripper: client.Transport}
	p := &program{globals: globals{Output: "text"}, out: &out, err: &out, clock: eager{}}
	if err := p.tail(ctx, apiconnect.NewCurfewClient(client, server.URL), &api.SearchEventsRequest{}); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.asked, []uint64{0, 7, 9}) || !strings.Contains(out.String(), "came meanwhile") {
		t.Errorf("asked from %v; %s", r.asked, out.String())
	}
}
