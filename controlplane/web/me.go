package web

import (
	"context"
	"net/http"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// meView is what the visitor proves herself with, and where she is signed in.
type meView struct {
	roster.Own
	Suggested string // name of a new passkey
}

func (s *Server) me(ctx context.Context, r *http.Request) (page, error) {
	own, err := s.API.Own(ctx)
	return page{Name: "me", Title: "My sign-in", Data: meView{own, browserOf(r)}}, err
}

func (s *Server) changeMe(ctx context.Context, r *http.Request) (outcome, error) {
	do := r.PathValue("do")
	if do == "end" {
		return outcome{to: "/me"}, s.API.EndOwn(ctx, r.PostFormValue("session"))
	}
	m := &api.FactorRequest{What: do, Passkey: r.PostFormValue("passkey")}
	if made := r.PostFormValue("made"); made != "" && do == "passkey" {
		return outcome{to: "/me"}, s.API.AddPasskey(ctx, []byte(made), strings.TrimSpace(r.PostFormValue("name")))
	}
	if o, asked, err := s.challenged(ctx, r, m); asked {
		return o, err
	}
	m.Code, m.Assertion = proof(r)
	switch do {
	case "passkey":
		c, err := s.API.AskAnother(ctx, m)
		return outcome{create: &c}, err
	case "remove":
		return outcome{to: "/me"}, s.API.RemovePasskey(ctx, m)
	case "device":
		c, err := s.API.DeviceCode(ctx, m)
		return outcome{page: &page{Name: "invited", Title: "A code for a command line", Data: &api.InviteReply{
			Invite: c.Text, Expires: timestamppb.New(c.Expires),
		}}}, err
	}
	return outcome{}, errNoDeed
}
