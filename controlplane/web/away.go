package web

import (
	"context"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// awayView is who approves in whose place, and the form that lets somebody.
type awayView struct {
	All                       []*api.Delegation
	Person, From, Until, Note string // as they were typed
}

func (s *Server) awayForm(ctx context.Context, r *http.Request) (page, error) {
	all, err := s.API.ListDelegations(ctx, &api.ListDelegationsRequest{})
	if err != nil {
		return page{}, err
	}
	v := awayView{All: all.Delegations, Person: r.PostFormValue("person"), From: r.PostFormValue("from"), Until: r.PostFormValue("until"), Note: r.PostFormValue("note")}
	return page{Name: "away", Title: "While somebody is away", Data: v}, nil
}

// delegate lets somebody approve in the visitor's place, or ends that.
func (s *Server) delegate(ctx context.Context, r *http.Request) (outcome, error) {
	switch r.PathValue("do") {
	case "begin":
		return s.lend(ctx, r)
	case "end":
		_, err := s.API.EndDelegation(ctx, &api.EndDelegationRequest{Id: r.PostFormValue("id")})
		return outcome{to: "/away"}, err
	}
	return outcome{}, errNoDeed
}

func (s *Server) lend(ctx context.Context, r *http.Request) (outcome, error) {
	m := &api.DelegateRequest{StandIn: strings.TrimSpace(r.PostFormValue("person")), Note: strings.TrimSpace(r.PostFormValue("note"))}
	for name, to := range map[string]**timestamppb.Timestamp{"from": &m.From, "until": &m.Until} {
		typed := r.PostFormValue(name)
		if typed == "" {
			continue
		}
		at, err := time.Parse("2006-01-02T15:04", typed)
		if err != nil {
			return outcome{}, roster.Refuse(roster.Invalid, "%s: write it like 2027-01-31T22:30, in UTC", name)
		}
		*to = timestamppb.New(at)
	}
	if o, asked, err := s.challenged(ctx, r, m); asked {
		return o, err
	}
	m.Code, m.Assertion = proof(r)
	done, err := s.API.Delegate(ctx, m)
	if err != nil {
		return outcome{}, err
	}
	return outcome{page: &page{Name: "lent", Title: done.Delegation.StandIn + " may approve in your place", Data: done}}, nil
}
