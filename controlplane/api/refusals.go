package api

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/signature"
)

// errOurs is what people read of errors that are not theirs.
var errOurs = errors.New("something went wrong on the server: its log says what")

// errStopping ends streams; whoever held one comes again.
var errStopping = connect.NewError(connect.CodeUnavailable, errors.New("the server is being restarted: try again"))

// NeedsHeader says, beside an error, what the same call would pass with.
const NeedsHeader = "Curfew-Needs"

// Refusals that several calls share.
var (
	errNoRequest = roster.Refuse(roster.Missing, "there is no such request or grant, or it is not yours to see: `curfew requests` lists those that are")
	errAdmins    = roster.Refuse(roster.Denied, "this is for admins: `curfew whoami` says whether you are one")
	errStale     = roster.Refuse(roster.Stale, "a code of your second factor is needed: the last one on this session is over %v ago", provedFor)
	errVouched   = roster.Refuse(roster.Stale, "a code of your second factor is needed: on this session nobody but the provider has said who you are")
)

var codes = map[roster.Kind]connect.Code{
	roster.Invalid:  connect.CodeInvalidArgument,
	roster.Unproven: connect.CodeUnauthenticated,
	roster.Stale:    connect.CodeUnauthenticated,
	roster.Denied:   connect.CodePermissionDenied,
	roster.Missing:  connect.CodeNotFound,
	roster.Conflict: connect.CodeFailedPrecondition,
	roster.Taken:    connect.CodeAlreadyExists,
	roster.TooMuch:  connect.CodeResourceExhausted,
}

// refusal is the error as the caller sees it. What is not hers to know goes
// to the log.
func (s *Server) refusal(ctx context.Context, call string, err error) error {
	if r := (*roster.Refusal)(nil); errors.As(err, &r) {
		e := connect.NewError(codes[r.Kind], errors.New(r.Text))
		if r.Kind == roster.Stale {
			e.Meta().Set(NeedsHeader, "code")
		}
		return e
	}
	for _, e := range []error{
		signature.ErrUnsigned, signature.ErrForm, signature.ErrDigest, signature.ErrFalse, signature.ErrClock, signature.ErrReplayed,
	} {
		if errors.Is(err, e) {
			return connect.NewError(connect.CodeUnauthenticated, e)
		}
	}
	if errors.Is(err, signature.ErrTooLarge) {
		return connect.NewError(connect.CodeResourceExhausted, signature.ErrTooLarge)
	}
	if c := (*connect.Error)(nil); errors.As(err, &c) {
		return c
	}
	if ctx.Err() != nil {
		return connect.NewError(connect.CodeCanceled, ctx.Err())
	}
	s.Log.ErrorContext(ctx, "call failed", "call", call, "person", who(ctx).Name, "cause", err)
	return connect.NewError(connect.CodeInternal, errOurs)
}

// refusals is the interceptor that makes every handler's error a refusal.
type refusals struct{ *Server }

func (s refusals) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, r)
		if err != nil {
			return nil, s.refusal(ctx, r.Spec().Procedure, err)
		}
		return res, nil
	}
}

func (s refusals) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error {
		if err := next(ctx, c); err != nil {
			return s.refusal(ctx, c.Spec().Procedure, err)
		}
		return nil
	}
}

func (s refusals) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func is(err, target error) bool { return errors.Is(err, target) }

// invalid makes an error of a check a refusal.
func invalid(err error) error {
	if err == nil {
		return nil
	}
	return roster.Refuse(roster.Invalid, "%v", err)
}
