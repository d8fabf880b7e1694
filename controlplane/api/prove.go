package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// The ways in which people prove themselves, as evidence names them.
const (
	factorCode    = "totp"
	factorPasskey = "passkey"
)

// proving is a call that its caller has to prove herself for.
type proving interface {
	proto.Message
	GetCode() string
	GetAssertion() []byte
}

// factor is what the call's proof is by.
func factor(m proving) string {
	if len(m.GetAssertion()) > 0 {
		return factorPasskey
	}
	return factorCode
}

// about is what a passkey signs for a call: the whole call, without the proof
// itself and the key by which it may be made again. A proof for another
// request, another length or another reason is none.
func about(m proving) []byte {
	bare := proto.Clone(m).ProtoReflect()
	for _, name := range []protoreflect.Name{"code", "assertion", "key"} {
		if f := bare.Descriptor().Fields().ByName(name); f != nil {
			bare.Clear(f)
		}
	}
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(bare.Interface()) // a message of ours always marshals
	sum := sha256.Sum256(append([]byte(bare.Descriptor().FullName()+"\x00"), b...))
	return sum[:]
}

// spend uses up the call's proof, with which the caller proves herself on her
// session too.
func (s *Server) spend(ctx context.Context, m proving) error {
	var err error
	if factor(m) == factorPasskey {
		err = s.Desk.ProvePasskey(ctx, who(ctx).Name, m.GetAssertion(), about(m))
	} else {
		err = s.Desk.SpendCode(ctx, who(ctx).Name, m.GetCode())
	}
	if err != nil {
		s.guessed(ctx, s.act(ctx), "a proof by "+factor(m)+" was not accepted", err)
		return err
	}
	p := roster.Proof{Session: who(ctx).session.ID, Network: roster.NetworkOf(source(ctx)), Factor: factor(m), For: counting(m), At: s.now()}
	if p.For == "" {
		return s.Store.Proved(ctx, p.Session, p.At)
	}
	return s.Store.ProvedFor(ctx, p)
}

// Challenge asks a passkey of the caller's for a proof that is good for this
// one call. It is no call of the API: it is for the pages.
func (s *Server) Challenge(ctx context.Context, m proto.Message) (roster.Ceremony, error) {
	if c, signs, err := s.toBeSigned(ctx, m); signs || err != nil {
		return c, err
	}
	p, ok := m.(proving)
	if !ok {
		return roster.Ceremony{}, errors.New("a call that needs no proof: " + string(m.ProtoReflect().Descriptor().FullName()))
	}
	return s.Desk.AskPasskey(ctx, who(ctx).Name, about(p))
}

// As is a context in which calls are made by the person whose browser holds
// the secret.
func (s *Server) As(ctx context.Context, secret string) (context.Context, error) {
	v, p, err := s.Desk.Browser(ctx, secret)
	if err != nil {
		return nil, err
	}
	return context.WithValue(ctx, callerKey{}, caller{p, v}), nil
}

// Own is what the caller can prove herself with, and where she is signed in.
func (s *Server) Own(ctx context.Context) (roster.Own, error) {
	o := roster.Own{Session: who(ctx).session}
	var err error
	if o.Factors, err = s.Store.Factors(ctx, who(ctx).Name); err != nil {
		return o, err
	}
	o.Sessions, err = s.Store.Sessions(ctx, who(ctx).Name, s.now())
	return o, err
}

// EndOwn ends a session of the caller's. It only takes away: no proof is
// needed.
func (s *Server) EndOwn(ctx context.Context, id string) error {
	o, err := s.Own(ctx)
	if err != nil {
		return err
	}
	for _, v := range o.Sessions {
		if v.ID == id {
			s.Log.InfoContext(ctx, "session ended", "person", who(ctx).Name)
			return s.Store.EndSession(ctx, v, roster.CutOff, s.now())
		}
	}
	return roster.Refuse(roster.Missing, "you have no such session: it may be over already")
}

// AskAnother asks for one passkey more, once the caller proved herself with a
// factor that she has.
func (s *Server) AskAnother(ctx context.Context, m *api.FactorRequest) (roster.Ceremony, error) {
	if err := s.spend(ctx, m); err != nil {
		return roster.Ceremony{}, err
	}
	return s.Desk.AskAnother(ctx, who(ctx).Name)
}

// AddPasskey keeps the passkey that AskAnother asked for.
func (s *Server) AddPasskey(ctx context.Context, answer []byte, name string) error {
	if err := s.Desk.AddPasskey(ctx, who(ctx).Name, answer, name); err != nil {
		return err
	}
	s.Log.InfoContext(ctx, "passkey added", "person", who(ctx).Name)
	return nil
}

var errLastFactor = roster.Refuse(roster.Conflict, "this is all that you can prove yourself with: add another passkey first")

// RemovePasskey takes a passkey of the caller's away, but not her last factor.
func (s *Server) RemovePasskey(ctx context.Context, m *api.FactorRequest) error {
	id, err := hex.DecodeString(m.Passkey)
	if err != nil {
		return roster.Refuse(roster.Invalid, "no such passkey")
	}
	f, err := s.Store.Factors(ctx, who(ctx).Name)
	if err != nil {
		return err
	}
	if !f.TOTP && !slices.ContainsFunc(f.Passkeys, func(k roster.Passkey) bool { return !k.Locked && !bytes.Equal(k.ID, id) }) {
		return errLastFactor
	}
	if err := s.spend(ctx, m); err != nil {
		return err
	}
	err = s.Store.RemovePasskey(ctx, id, s.act(ctx))
	if is(err, roster.ErrUnknown) {
		return roster.Refuse(roster.Missing, "you have no such passkey: it may be removed already")
	}
	if is(err, roster.ErrLastFactor) {
		return errLastFactor // another one was removed meanwhile
	}
	return err
}

// DeviceCode makes a code by which the caller enrols one device more.
func (s *Server) DeviceCode(ctx context.Context, m *api.FactorRequest) (roster.Code, error) {
	if err := s.spend(ctx, m); err != nil {
		return roster.Code{}, err
	}
	return s.Codes.InviteBeside(ctx, who(ctx).Name)
}

// OpenPages implements the API.
func (s *Server) OpenPages(ctx context.Context, m *api.OpenPagesRequest) (*api.OpenPagesReply, error) {
	if err := s.Desk.SpendCode(ctx, who(ctx).Name, m.Code); err != nil {
		s.guessed(ctx, s.act(ctx), "a proof by "+factorCode+" was not accepted", err)
		return nil, err
	}
	l, err := s.Desk.Link(who(ctx).session)
	if err != nil {
		return nil, err
	}
	if err := s.Store.Tell(ctx, s.act(ctx), "made a link that signs a browser in"); err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "link for a browser made", "person", who(ctx).Name)
	return &api.OpenPagesReply{Link: l.URL, Expires: timestamppb.New(l.Expires)}, nil
}
