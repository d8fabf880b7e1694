package api

import (
	"context"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/request"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
)

// maxRemarks bounds what is said on one request.
const maxRemarks = 100

// Comment implements the API. It changes nothing of the request: what is
// approved is what was asked for.
func (s *Server) Comment(ctx context.Context, m *api.CommentRequest) (*api.Request, error) {
	if err := grant.CheckText("comment", m.Text, maxNote); err != nil {
		return nil, invalid(err)
	}
	if strings.TrimSpace(m.Text) == "" {
		return nil, roster.Refuse(roster.Invalid, "say something")
	}
	r, err := s.find(ctx, m.Id)
	if err != nil {
		return nil, err
	}
	said, err := s.remarks(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(said) >= maxRemarks {
		return nil, roster.Refuse(roster.TooMuch, "enough was said on this request: speak with each other")
	}
	now, by := s.now(), who(ctx).Name
	r, err = s.Store.Change(ctx, r.ID, now, func(r roster.Request) (roster.Change, error) {
		if request.Over(request.State(r.State)) {
			return roster.Change{}, roster.Refuse(roster.Conflict, "this request is over: nobody waits for a word on it")
		}
		return roster.Change{Steps: []roster.Decision{{At: now, What: roster.RemarkStep, Person: by, Text: m.Text}}}, nil
	})
	if err != nil {
		return nil, err
	}
	return s.withRemarks(ctx, r)
}

func (s *Server) remarks(ctx context.Context, r roster.Request) ([]*api.Remark, error) {
	steps, err := s.Store.Decisions(ctx, r.ID)
	var all []*api.Remark
	for _, d := range steps {
		if d.What == roster.RemarkStep {
			all = append(all, &api.Remark{Person: d.Person, At: timestamppb.New(d.At), Text: d.Text})
		}
	}
	return all, err
}

// withRemarks is the request with what was said on it.
func (s *Server) withRemarks(ctx context.Context, r roster.Request) (*api.Request, error) {
	m, err := s.message(ctx, r, nil)
	if err == nil {
		m.Remarks, err = s.remarks(ctx, r)
	}
	return m, err
}
