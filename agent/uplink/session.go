package uplink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"curfew.internal/agent/doctor"
	"curfew.internal/wire/uplink"
)

// Bounds of what is on its way to the control plane.
const (
	batchBytes  = 256 << 10
	windowBytes = 1 << 20
)

// A session is one connection's life.
type session struct {
	*Client
	duplex grpc.BidiStreamingClient[uplink.Up, uplink.Down]

	unread  string           // why records could not be read last; of whoever sends
	rest    <-chan time.Time // until then none are sent; the same
	offered chan struct{}    // holds one when there is a state to offer
	wake    chan struct{}    // holds one when there may be something to send

	mu      sync.Mutex // guards what follows
	state   *uplink.State
	current bool   // the last state is accepted
	refused string // why the last state was not accepted
	answer  bool   // a state was offered, and the control plane not told yet
	started bool   // the control plane said where to go on
	kept    uint64
	way     []batch       // sent, and not known to be kept
	asked   time.Duration // since boot: when the time was asked for last; 0: it was answered
}

// A batch is records on their way.
type batch struct {
	last  uint64
	bytes int
}

// session connects, and talks.
func (c *Client) session(ctx context.Context, up func()) error {
	if leaf, now := c.leaf(), c.Clock.Now().Wall; !now.Before(leaf.NotAfter) {
		return fmt.Errorf("the host's certificate ran out at %s: if the clock is right, ask for a join code for this host and run `curfew-agent join CODE`",
			leaf.NotAfter.UTC().Format("2006-01-02 15:04 MST"))
	}
	conn, err := c.dial()
	if err != nil {
		return err
	}
	c.use(conn)
	err = c.Talk(ctx, conn, up)
	c.use(nil)
	_ = conn.Close() // what there is to say of it, err says
	return err
}

// Talk speaks over a connection until something fails. It calls up once the
// control plane has answered.
func (c *Client) Talk(ctx context.Context, conn grpc.ClientConnInterface, up func()) error {
	g, ctx := errgroup.WithContext(ctx)
	duplex, err := uplink.NewUplinkClient(conn).Connect(ctx)
	if err != nil {
		return err
	}
	s := &session{Client: c, duplex: duplex, offered: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	g.Go(func() error { return s.receive(ctx, up) })
	g.Go(func() error { return s.offer(ctx) })
	g.Go(func() error { return s.send(ctx) })
	return g.Wait()
}

// receive takes what the control plane says.
func (s *session) receive(ctx context.Context, up func()) error {
	for first := true; ; first = false {
		down, err := s.duplex.Recv()
		if err != nil {
			return err
		}
		if first {
			up()
		}
		switch says := down.GetSays().(type) {
		case *uplink.Down_State:
			s.mu.Lock()
			s.state, s.current = says.State, false // the newest counts, whatever came of the others
			s.mu.Unlock()
			s.setPlane(says.State.GetVersion())
			if ca := says.State.GetSshCa(); ca != "" {
				s.Trust(ca)
			}
			poke(s.offered)
		case *uplink.Down_Kept:
			if _, err := uplink.Agree(says.Kept.GetVersion(), says.Kept.GetVersion()); err != nil {
				return fmt.Errorf("the control plane and this agent do not understand each other: %w", err)
			}
			if err := s.keptUpTo(says.Kept.GetSeq()); err != nil {
				return err
			}
			s.time(ctx, says.Kept)
			s.hearIfCurrent()
			poke(s.wake)
		case *uplink.Down_Sessions:
			ended := map[uint64]string{}
			for _, e := range says.Sessions.GetEnded() {
				ended[e.GetSession()] = e.GetBy()
			}
			s.Sessions(says.Sessions.GetWatched(), ended)
		default:
			// Of a newer control plane; what it means for us, it says in
			// words that we know as well.
		}
	}
}

func (s *session) keptUpTo(seq uint64) error {
	s.mu.Lock()
	first, was := !s.started, s.kept
	s.mu.Unlock()
	if !first && seq <= was {
		return nil // a heartbeat, or late
	}
	if err := s.Outbox.Kept(seq, first); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started, s.kept = true, seq
	for len(s.way) > 0 && s.way[0].last <= seq {
		s.way = s.way[1:]
	}
	return nil
}

// time passes on what the control plane's clock said. How old that is at most
// is known only of an answer: it was said after the question.
func (s *session) time(ctx context.Context, k *uplink.Kept) {
	if k.GetNowNs() == 0 {
		return // of an older control plane
	}
	age := time.Duration(math.MaxInt64)
	s.mu.Lock()
	if a := k.GetAsked(); a != 0 && a == uint64(s.asked) { //nolint:gosec // not negative
		age, s.asked = s.Clock.Now().Boot-s.asked, 0
	}
	s.mu.Unlock()
	s.Told(ctx, time.Unix(0, k.GetNowNs()).UTC(), age)
}

// hearIfCurrent counts a message as a sign of life if this host holds what
// the control plane wants it to. A lease is not renewed by one whose set was
// refused, or is not accepted yet: it may be the one that revokes.
func (s *session) hearIfCurrent() {
	s.mu.Lock()
	is := s.current
	s.mu.Unlock()
	if is {
		s.hear()
	}
}

// leastOften is the longest wait before a refused state is offered again.
const leastOften = time.Hour

// offer hands states to the acceptor, and one that was refused again from
// time to time, ever less often.
func (s *session) offer(ctx context.Context) error {
	wait := s.Again
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.offered:
			wait = s.Again
		case <-again:
			wait = min(2*wait, leastOften)
		}
		s.mu.Lock()
		state := s.state
		s.mu.Unlock()
		turned := s.roster(ctx, state) // first: the set is opened under it
		_, err := s.Host.Accept(ctx, state.GetKeyring(), state.GetSet())
		again = nil
		s.mu.Lock()
		s.refused, s.answer, s.current = "", true, err == nil && s.state == state
		if err := errors.Join(turned, err); err != nil {
			s.refused = err.Error()
			again = s.Clock.After(wait)
		}
		s.mu.Unlock()
		s.hearIfCurrent()
		poke(s.wake)
	}
}

// roster takes what the state says of whose keys count. One that is refused
// keeps no set from being taken: that could be the one which revokes.
func (s *session) roster(ctx context.Context, state *uplink.State) error {
	if s.Rosters == nil {
		return nil
	}
	return s.Rosters.TakeRosters(ctx, state.GetRosters())
}

// send tells the control plane of this host: who it is, what it made of what
// it was sent, and its records in their order.
func (s *session) send(ctx context.Context) error {
	if err := s.hello(); err != nil {
		return s.lastWord(err)
	}
	var told *uplink.Applied
	var sent uint64
	ask := s.Clock.After(askAgain)
	for {
		next, must := s.applied()
		if must || told != nil && !sameApplied(told, next) {
			told = next
			if err := s.duplex.Send(&uplink.Up{Says: &uplink.Up_Applied{Applied: next}}); err != nil {
				return s.lastWord(err)
			}
		}
		more, err := s.records(ctx, &sent)
		if err != nil {
			return s.lastWord(err)
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-s.report:
		case <-s.Appended:
		case <-s.rest:
			s.rest = nil
		case <-ask: // and look again for records that could not be read
			ask = s.Clock.After(askAgain)
			s.mu.Lock()
			s.answer = s.answer || s.Unsure()
			s.mu.Unlock()
		}
	}
}

// gather is how long what is new waits for more after a batch was sent, unless
// that was a large one: the control plane makes a change of its database of each.
const gather = 200 * time.Millisecond

// askAgain is how long a host waits that is unsure of its time.
const askAgain = 10 * time.Second

func (s *session) hello() error {
	f := s.Facts()
	revision, keyring := s.Host.Versions()
	roster := uint64(0)
	if s.Rosters != nil {
		roster = s.Rosters.Roster()
	}
	return s.duplex.Send(&uplink.Up{Says: &uplink.Up_Hello{Hello: &uplink.Hello{
		AgentVersion: f.AgentVersion, BootId: f.Boot, Mode: f.Mode, SshHostKeys: f.SSHHostKeys, Addresses: f.Addresses,
		Revision: revision, KeyringVersion: keyring, Outbox: s.Outbox.Name(),
		Oldest: uplink.Oldest, Newest: uplink.Newest, Roster: roster,
	}}})
}

// applied is what to say of the set; must, that the control plane waits for
// it.
func (s *session) applied() (a *uplink.Applied, must bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	must, s.answer = s.answer, false
	if must {
		s.asked = max(1, s.Clock.Now().Boot)
	}
	revision, _ := s.Host.Versions()
	return &uplink.Applied{
		Ask:      uint64(s.asked), //nolint:gosec // not negative
		Revision: revision, Refused: s.refused, Settled: s.Host.Settled(), Unwired: s.Unwired(), Access: s.Access(), Doctor: examined(s.Doctor()),
	}, must
}

// examined is what the doctor said, or nothing if it has not looked yet.
func examined(r doctor.Report) *uplink.Examination {
	if r.At.IsZero() {
		return nil
	}
	x := &uplink.Examination{At: r.At.UnixNano()}
	for _, f := range r.Findings {
		x.Findings = append(x.Findings, &uplink.Finding{Check: f.Check, Severity: f.Severity.String(), Says: f.Says, Mend: f.Mend})
	}
	return x
}

// tellAgain is how old the time of an examination may become at the control
// plane, which writes down each.
const tellAgain = time.Hour

// sameApplied reports whether b says nothing that the control plane waits for,
// once it was told a.
func sameApplied(a, b *uplink.Applied) bool {
	x, y := a.GetDoctor(), b.GetDoctor()
	return a.GetRevision() == b.GetRevision() && a.GetRefused() == b.GetRefused() && a.GetSettled() == b.GetSettled() &&
		slices.Equal(a.GetUnwired(), b.GetUnwired()) && a.GetAccess() == b.GetAccess() && (x == nil) == (y == nil) &&
		slices.EqualFunc(x.GetFindings(), y.GetFindings(), func(f, g *uplink.Finding) bool { return proto.Equal(f, g) }) &&
		time.Duration(y.GetAt()-x.GetAt()).Abs() < tellAgain
}

// records sends what follows the number sent, as far as the window is open;
// it reports whether there may be more to send at once.
func (s *session) records(ctx context.Context, sent *uint64) (bool, error) {
	s.mu.Lock()
	size := 0
	for _, b := range s.way {
		size += b.bytes
	}
	*sent = max(*sent, s.kept)
	ready := s.started && size < windowBytes && s.rest == nil
	s.mu.Unlock()
	if !ready {
		return false, nil
	}
	first, entries, err := s.Outbox.Next(*sent, batchBytes)
	if err != nil {
		// Records wait; the set that comes this way, and may revoke, does not.
		if s.unread != err.Error() {
			s.Log.WarnContext(ctx, "records are not sent", "err", err)
		}
		s.unread = err.Error()
		return false, nil
	}
	s.unread = ""
	if len(entries) == 0 {
		return false, nil
	}
	b := batch{last: first + uint64(len(entries)) - 1}
	r := &uplink.Records{}
	for i, e := range entries {
		r.Records = append(r.Records, &uplink.Record{Seq: first + uint64(i), Entry: e})
		b.bytes += len(e)
	}
	s.mu.Lock()
	s.way = append(s.way, b)
	s.mu.Unlock()
	if err := s.duplex.Send(&uplink.Up{Says: &uplink.Up_Records{Records: r}}); err != nil {
		return false, err
	}
	*sent = b.last
	if b.bytes < batchBytes/2 {
		s.rest = s.Clock.After(gather)
	}
	return true, nil
}

// lastWord is why sending failed: gRPC says EOF here, and the cause to who
// receives.
func (s *session) lastWord(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
