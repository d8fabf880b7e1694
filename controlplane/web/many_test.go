package web

import (
	"context"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/clock"
	"curfew.internal/wire/api"
)

// large is the API of a fleet where so much was asked since that none of what
// stands is among the newest requests.
type large struct {
	API
	open []*api.Request
}

func (large) Whoami(context.Context, *api.WhoamiRequest) (*api.WhoamiReply, error) {
	return &api.WhoamiReply{Person: &api.Person{Name: "ana"}}, nil
}

func (large) ListRoles(context.Context, *api.ListRolesRequest) (*api.ListRolesReply, error) {
	return &api.ListRolesReply{}, nil
}

func (l large) ListRequests(_ context.Context, m *api.ListRequestsRequest) (*api.ListRequestsReply, error) {
	if m.All || m.ForApproval {
		return &api.ListRequestsReply{}, nil
	}
	return &api.ListRequestsReply{Requests: slices.Clone(l.open)}, nil
}

func (l large) Timeline(context.Context, *api.TimelineRequest) (*api.TimelineReply, error) {
	return &api.TimelineReply{Request: l.open[0]}, nil
}

func TestWhatStandsIsShownHoweverOldItIs(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	granted := func(id, person, state string) *api.Request {
		return &api.Request{
			Id: id, Person: person, Role: "db-admin", State: state, Duration: durationpb.New(time.Hour),
			AskedAt: timestamppb.New(now.Add(-time.Hour)), NotBefore: timestamppb.New(now.Add(-time.Hour)), NotAfter: timestamppb.New(now.Add(time.Hour)),
		}
	}
	s := &Server{API: large{open: []*api.Request{granted("r-1", "ana", "issued"), granted("r-2", "ana", "asked"), granted("r-3", "ben", "issued")}}, Clock: stopped{now}}
	p, err := s.home(t.Context(), httptest.NewRequest("GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	if v := p.Data.(homeView); len(v.Live) != 1 || v.Live[0].Id != "r-1" || len(v.Asked) != 1 || v.Asked[0].Id != "r-2" {
		t.Errorf("she has %v, and waits for %v", v.Live, v.Asked)
	}
	p, err = s.request(t.Context(), httptest.NewRequest("GET", "/requests/r-1", nil))
	if err != nil {
		t.Fatal(err)
	}
	if v := p.Data.(requestView); len(v.Others) != 1 || v.Others[0].Id != "r-3" {
		t.Errorf("besides her, %v have it", v.Others)
	}
}

// stopped is a clock that stands still.
type stopped struct{ now time.Time }

func (c stopped) Now() clock.Reading { return clock.Reading{Wall: c.now} }

func (stopped) After(time.Duration) <-chan time.Time { return nil }
