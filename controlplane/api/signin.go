package api

import (
	"context"
	"math"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// Enroll implements the API.
func (s *Server) Enroll(ctx context.Context, r *api.EnrollRequest) (*api.EnrollReply, error) {
	person, uri, err := s.Desk.Enroll(ctx, r.Secret, r.DeviceKey)
	if err != nil {
		return nil, err
	}
	return &api.EnrollReply{Person: person, OtpauthUri: uri}, nil
}

// ConfirmEnroll implements the API.
func (s *Server) ConfirmEnroll(ctx context.Context, r *api.ConfirmEnrollRequest) (*api.SessionReply, error) {
	v, err := s.Desk.ConfirmEnroll(ctx, roster.Confirmation{Secret: r.Secret, Device: r.DeviceKey, Code: r.Code, DeviceName: r.DeviceName})
	return s.session(ctx, "person enrolled", v, err)
}

// Login implements the API.
func (s *Server) Login(ctx context.Context, r *api.LoginRequest) (*api.SessionReply, error) {
	v, err := s.Desk.Login(ctx, roster.Login{Person: r.Person, Device: r.DeviceKey, At: r.At, Signature: r.Signature, Code: r.Code})
	if err != nil {
		s.TurnAway(ctx, r.Person, err)
	}
	return s.session(ctx, "person signed in", v, err)
}

// BeginSignIn implements the API.
func (s *Server) BeginSignIn(_ context.Context, r *api.BeginSignInRequest) (*api.BeginSignInReply, error) {
	if r.Port > math.MaxUint16 {
		return nil, roster.Refuse(roster.Invalid, "%d is no port", r.Port)
	}
	at, shown, err := s.Desk.BeginLine(roster.Line{Device: r.DeviceKey, Name: r.DeviceName, Port: uint16(r.Port), State: r.State})
	if err != nil {
		return nil, err
	}
	return &api.BeginSignInReply{Url: at, Check: shown}, nil
}

// FinishSignIn implements the API.
func (s *Server) FinishSignIn(ctx context.Context, r *api.FinishSignInRequest) (*api.SessionReply, error) {
	v, err := s.Desk.FinishLine(ctx, roster.LineLogin{Pass: r.Pass, Device: r.DeviceKey, At: r.At, Signature: r.Signature})
	return s.session(ctx, "person signed in at the provider", v, err)
}

func (s *Server) session(ctx context.Context, what string, v roster.Session, err error) (*api.SessionReply, error) {
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, what, "person", v.Person) //nolint:sloglint // one of three constants
	return &api.SessionReply{Session: v.ID, Person: v.Person, Fleet: s.Fleet, Expires: timestamppb.New(v.Expires)}, nil
}

// Logout implements the API.
func (s *Server) Logout(ctx context.Context, _ *api.LogoutRequest) (*api.LogoutReply, error) {
	return &api.LogoutReply{}, s.Store.EndSession(ctx, who(ctx).session, roster.SignedOut, s.now())
}

// Whoami implements the API.
func (s *Server) Whoami(ctx context.Context, _ *api.WhoamiRequest) (*api.WhoamiReply, error) {
	c := who(ctx)
	p, err := s.lastProof(ctx)
	return &api.WhoamiReply{Person: personMessage(c.Person), Fleet: s.Fleet, SessionExpires: timestamppb.New(c.session.Expires), Proof: proofMessage(p)}, err
}

func personMessage(p roster.Person) *api.Person {
	return &api.Person{Name: p.Name, FullName: p.FullName, Uid: p.UID, Admin: p.Admin, Disabled: p.Disabled, Enrolled: p.Enrolled, Email: p.Email}
}
