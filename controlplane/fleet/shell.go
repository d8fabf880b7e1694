package fleet

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/uplink"
)

// A Shell answers people who typed sudo in a shell on a host. Its refusals are
// texts for them.
type Shell interface {
	Offer(ctx context.Context, t roster.Typed) ([]roster.Offer, error)
	// Ask tells how the request stands until it is decided.
	Ask(ctx context.Context, w roster.Wish, tell func(roster.Told) error) error
	TakeBack(ctx context.Context, host, person, key string) (roster.Told, error)
}

// Bounds of what one host asks in the names of its people.
const (
	offerEvery, offerBurst = 200 * time.Millisecond, 50
	askEvery, askBurst     = 5 * time.Second, 20
	waitsOfOne             = 64 // requests that are waited for at once
)

var errTooMany = status.Error(codes.ResourceExhausted, "too many on this host wait for their requests: wait a minute, or ask with `curfew request`")

var errTooOften = status.Error(codes.ResourceExhausted, "this host asks too often: wait a minute, or ask with `curfew request`")

// typed is what was typed on the host that calls, whatever it says of hosts.
func (s *Server) typed(ctx context.Context, m *uplink.Typed, share *limiter) (roster.Typed, error) {
	h, _, err := s.who(ctx)
	if err == nil && h.Decommissioned {
		err = decommissioned(h.Name)
	}
	if err != nil {
		return roster.Typed{}, err
	}
	if !share.allow(h.Name, s.Clock.Now().Wall) {
		return roster.Typed{}, errTooOften
	}
	return roster.Typed{
		Host: h.Name, Person: m.GetPerson(), Session: m.GetSession(), RunAs: m.GetRunAs(), Paths: m.GetPaths(), Args: m.GetArgs(),
		Shell: m.GetShell(), Directory: m.GetDirectory(),
	}, nil
}

// Offer lists the roles that would let a person of the host run what she
// typed.
func (s *Server) Offer(ctx context.Context, m *uplink.Typed) (*uplink.OfferReply, error) {
	t, err := s.typed(ctx, m, s.offers)
	if err != nil {
		return nil, err
	}
	offers, err := s.Shell.Offer(ctx, t)
	if err != nil {
		return nil, s.refused(ctx, t.Host, err)
	}
	reply := &uplink.OfferReply{}
	for _, o := range offers {
		reply.Roles = append(reply.Roles, offered(o))
	}
	return reply, nil
}

// offered is a role as it is shown in a shell: with those whose word it always
// takes, or, if it always takes nobody's, with all whose word it may; of many with
// some, in one text, since what is said to a shell has a bound.
func offered(o roster.Offer) *uplink.Offered {
	m := &uplink.Offered{
		Name: o.Role.Name, Description: o.Description, MaxSeconds: uint64(o.MaxDuration / time.Second), //nolint:gosec // not negative
		ReasonRequired: o.ReasonRequired, TicketRequired: o.TicketRequired, Approvers: few(o.Approvers),
		Needed: uint32(o.Needed), //nolint:gosec // a handful
	}
	if len(o.Doubtful) == 0 {
		return m
	}
	m.Description = strings.TrimPrefix(o.Description+"; also asked: "+strings.Join(o.Doubtful, "; "), "; ")
	if o.Needed == 0 {
		m.Approvers, m.Needed = few(o.Anybody), uint32(o.Most) //nolint:gosec // a handful
	}
	return m
}

func few(names []string) []string {
	if text := roster.Some(names, ", "); text != "" {
		return []string{text}
	}
	return nil
}

// Ask makes a request for a person of the host, and tells how it stands until
// it is decided.
func (s *Server) Ask(m *uplink.AskRequest, out grpc.ServerStreamingServer[uplink.Asked]) error {
	ctx := out.Context()
	t, err := s.typed(ctx, m.GetTyped(), s.asks)
	if err != nil {
		return err
	}
	seconds := m.GetSeconds()
	if most := uint64(grant.MaxDuration / time.Second); seconds == 0 || seconds > most {
		return status.Errorf(codes.InvalidArgument, "for how long: 1 to %d seconds", most)
	}
	w := roster.Wish{
		Typed: t, Role: m.GetRole(), Duration: time.Duration(seconds) * time.Second, Reason: m.GetReason(),
		Ticket: m.GetTicket(), Code: m.GetCode(), Key: m.GetKey(),
	}
	leave, ok := s.waits.enter(t.Host)
	if !ok {
		return errTooMany
	}
	defer leave()
	err = s.Shell.Ask(ctx, w, func(now roster.Told) error { return out.Send(asked(now)) })
	if err != nil {
		return s.refused(ctx, t.Host, err)
	}
	return nil
}

// TakeBack withdraws a request that was made from the host.
func (s *Server) TakeBack(ctx context.Context, m *uplink.TakeBackRequest) (*uplink.Asked, error) {
	h, _, err := s.who(ctx)
	if err != nil {
		return nil, err
	}
	now, err := s.Shell.TakeBack(ctx, h.Name, m.GetPerson(), m.GetKey())
	if err != nil {
		return nil, s.refused(ctx, h.Name, err)
	}
	return asked(now), nil
}

func asked(t roster.Told) *uplink.Asked {
	return &uplink.Asked{
		Id: t.ID, State: t.State, WaitsFor: t.WaitsFor, Lapses: uint64(max(0, t.Lapses.Unix())), Approved: t.Approved,
		DecidedBy: t.By, Note: t.Note, Grant: t.Grant,
	}
}

var kinds = map[roster.Kind]codes.Code{
	roster.Invalid: codes.InvalidArgument, roster.Unproven: codes.PermissionDenied, roster.Stale: codes.PermissionDenied,
	roster.Denied: codes.PermissionDenied, roster.Missing: codes.NotFound, roster.Conflict: codes.FailedPrecondition,
	roster.Taken: codes.AlreadyExists, roster.TooMuch: codes.ResourceExhausted,
}

// refused is the error as the person in the shell reads it. What is not hers
// to know goes to the log.
func (s *Server) refused(ctx context.Context, host string, err error) error {
	if r := (*roster.Refusal)(nil); errors.As(err, &r) {
		return status.Error(kinds[r.Kind], r.Text)
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	s.Log.WarnContext(ctx, "cannot answer a shell on a host", "host", host, "err", err)
	return status.Error(codes.Unavailable, "the control plane cannot take requests now: try again in a while")
}

// shares are how often hosts may ask.
func shares() (offers, asks *limiter) {
	return newLimiter(rate.Every(offerEvery), offerBurst), newLimiter(rate.Every(askEvery), askBurst)
}

// waits counts who waits on each host.
type waits struct {
	mu sync.Mutex // guards what follows
	by map[string]int
}

// enter counts one more, if there may be one.
func (w *waits) enter(host string) (leave func(), ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by[host] >= waitsOfOne {
		return nil, false
	}
	if w.by == nil {
		w.by = map[string]int{}
	}
	w.by[host]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.by[host]--; w.by[host] == 0 {
			delete(w.by, host)
		}
	}, true
}
