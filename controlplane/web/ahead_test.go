package web

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/wire/api"
)

// ahead is the API of somebody who had a role, and will have it again.
type ahead struct {
	large
	from time.Time
}

func (a ahead) ListRoles(context.Context, *api.ListRolesRequest) (*api.ListRolesReply, error) {
	return &api.ListRolesReply{Roles: []*api.Role{{
		Name: "db-admin", Hosts: []string{"db1"}, MaxDuration: durationpb.New(2 * time.Hour), EligibleFrom: timestamppb.New(a.from),
	}}}, nil
}

func (a ahead) ListRequests(context.Context, *api.ListRequestsRequest) (*api.ListRequestsReply, error) {
	return &api.ListRequestsReply{Requests: []*api.Request{{
		Id: "r-1", Person: "ana", Role: "db-admin", State: "ended", Hosts: []string{"db1"}, Duration: durationpb.New(time.Hour), AskedAt: timestamppb.New(a.from.AddDate(-1, 0, 0)),
	}}}, nil
}

// What she may ask for from a day on is shown with that day, which the form
// begins with; and is not offered at once.
func TestARoleOfLaterIsAskedForLater(t *testing.T) {
	from := time.Date(2027, 2, 3, 0, 0, 0, 0, time.UTC)
	s := &Server{API: ahead{from: from}, Clock: stopped{from.Add(-time.Hour)}}
	p, err := s.home(t.Context(), httptest.NewRequest("GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	p.Me, p.Passkey = &api.Person{Name: "ana"}, true
	if text := written(t, p); !strings.Contains(text, "for you from") || !strings.Contains(text, `datetime="2027-02-03T00:00:00Z"`) || strings.Contains(text, "Ask again") {
		t.Errorf("%s", text)
	}
	r := httptest.NewRequest("GET", "/ask/db-admin", nil)
	r.SetPathValue("role", "db-admin")
	if p, err = s.askForm(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	p.Me, p.Passkey = &api.Person{Name: "ana"}, true
	if text := written(t, p); !strings.Contains(text, `name="at" value="2027-02-03T00:00"`) {
		t.Errorf("%s", text)
	}
}
