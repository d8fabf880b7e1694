package uplink

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"curfew.internal/wire/uplink"
)

// A Typed is what a person typed behind sudo, in a shell on this host.
type Typed struct {
	Person    string
	Session   uint64
	RunAs     string
	Paths     []string // of the program, in each spelling
	Args      []string
	Shell     bool // no program, but a shell: Args is what was typed
	Directory string
}

// An Offer is a role that would let it be run.
type Offer struct {
	Role, Description string
	Most              time.Duration
	Reason, Ticket    bool // required
	Approvers         []string
	Needed            int
}

// A Wish is what she asks for.
type Wish struct {
	Typed
	Role, Reason, Ticket, Code string
	For                        time.Duration
	Key                        string // the same again goes on with the same request
}

// A Told is how a request stands.
type Told struct {
	ID, State, WaitsFor string
	Lapses              time.Time
	Approved            []string
	By, Note, Grant     string
}

// ErrAway means that the control plane did not answer.
var ErrAway = errors.New("the control plane does not answer")

// A Refusal is its no, in words for the person.
type Refusal struct{ Text string }

// Error is the text.
func (r *Refusal) Error() string { return r.Text }

// patience is how long the control plane has to answer.
const patience = 8 * time.Second

// said tells a no from no answer.
func said(err error) error {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.NotFound, codes.FailedPrecondition, codes.AlreadyExists, codes.ResourceExhausted:
		return &Refusal{explain(err)}
	case codes.OK, codes.Canceled, codes.Unknown, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unimplemented, codes.Internal,
		codes.Unavailable, codes.DataLoss, codes.Unauthenticated:
	}
	return errors.Join(ErrAway, err)
}

func (t Typed) message() *uplink.Typed {
	return &uplink.Typed{
		Person: t.Person, Session: t.Session, RunAs: t.RunAs, Paths: t.Paths, Args: t.Args, Shell: t.Shell, Directory: t.Directory,
	}
}

// call speaks with the control plane over a connection of its own: the stream
// is for what the host is to hold, and nobody's wait may hold it up.
func (c *Client) call(f func(uplink.UplinkClient) error) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	err = f(uplink.NewUplinkClient(conn))
	_ = conn.Close() // what there is to say of it, err says
	if err != nil {
		return said(err)
	}
	return nil
}

// Offer asks which roles would let the person run what she typed.
func (c *Client) Offer(ctx context.Context, t Typed) ([]Offer, error) {
	ctx, done := context.WithTimeout(ctx, patience)
	defer done()
	var all []Offer
	err := c.call(func(u uplink.UplinkClient) error {
		r, err := u.Offer(ctx, t.message())
		for _, o := range r.GetRoles() {
			all = append(all, Offer{
				Role: o.GetName(), Description: o.GetDescription(), Most: time.Duration(min(o.GetMaxSeconds(), 1<<30)) * time.Second,
				Reason: o.GetReasonRequired(), Ticket: o.GetTicketRequired(), Approvers: o.GetApprovers(), Needed: int(o.GetNeeded()),
			})
		}
		return err
	})
	return all, err
}

// Ask makes the request and tells how it stands until it is decided. An error
// that is [ErrAway] leaves it as it is: the same key goes on with it.
func (c *Client) Ask(ctx context.Context, w Wish, tell func(Told)) error {
	ctx, done := context.WithCancel(ctx)
	defer done()
	// A stream may be quiet for as long as people take; not before its first word.
	first := time.AfterFunc(patience, done)
	defer first.Stop()
	return c.call(func(u uplink.UplinkClient) error {
		s, err := u.Ask(ctx, &uplink.AskRequest{
			Typed: w.message(), Role: w.Role, Seconds: uint64(w.For / time.Second), Reason: w.Reason, Ticket: w.Ticket, Code: w.Code, Key: w.Key, //nolint:gosec // not negative
		})
		for err == nil {
			var m *uplink.Asked
			if m, err = s.Recv(); err == nil {
				first.Stop()
				tell(told(m))
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
}

// TakeBack withdraws the request with the key, and says how it stands then.
func (c *Client) TakeBack(ctx context.Context, person, key string) (Told, error) {
	ctx, done := context.WithTimeout(ctx, patience)
	defer done()
	var now Told
	err := c.call(func(u uplink.UplinkClient) error {
		m, err := u.TakeBack(ctx, &uplink.TakeBackRequest{Person: person, Key: key})
		now = told(m)
		return err
	})
	return now, err
}

func told(m *uplink.Asked) Told {
	return Told{
		ID: m.GetId(), State: m.GetState(), WaitsFor: m.GetWaitsFor(), Lapses: time.Unix(int64(min(m.GetLapses(), 1<<40)), 0),
		Approved: m.GetApproved(), By: m.GetDecidedBy(), Note: m.GetNote(), Grant: m.GetGrant(),
	}
}
