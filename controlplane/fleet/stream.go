package fleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/uplink"
)

var (
	errDropped = status.Error(codes.PermissionDenied, "the control plane ended this stream: host was decommissioned or enrolled again")
	errExpired = status.Error(codes.Unauthenticated, "the certificate of this connection has expired: connect with the renewed one")
	errHello   = status.Error(codes.InvalidArgument, "the first message, and no other, is Hello")
	errReplace = status.Error(codes.Aborted, "the host did not answer on this stream, and has a new one")
)

// helloWithin is how long a connected host may keep silent.
const helloWithin = 10 * time.Second

type duplex = grpc.BidiStreamingServer[uplink.Up, uplink.Down]

// A stream is one host's.
type stream struct {
	*Server
	host    roster.Host
	from    string // its address
	outbox  string
	version uint32 // of the protocol
	upTo    uint64 // what was kept of the outbox at the beginning
	roster  uint64 // version of the roster that the host holds, or was sent
	duplex  duplex

	wake  chan struct{} // look whether there is another state
	probe chan struct{} // say all again: the host answers it
	kept  chan uint64   // the newest of what is kept, not yet said
	asks  chan uint64   // the newest question for the time, not yet answered
	alive chan struct{} // the host said something
	told  report        // what was kept of it last; receive's alone
	ca    string        // the CA for sshd that it was told last; send's alone
	begun chan struct{} // closed once this is the host's stream
	over  chan struct{} // closed by end, after why is set

	once sync.Once
	why  error
}

// end makes the stream end with the error; the first one counts.
func (st *stream) end(why error) {
	st.once.Do(func() {
		st.why = why
		close(st.over)
	})
}

// Connect is open as long as a host is up.
func (s *Server) Connect(d duplex) error {
	ctx := d.Context()
	h, info, err := s.who(ctx)
	if err != nil {
		return err
	}
	st := &stream{
		Server: s, host: h, from: address(ctx), duplex: d,
		wake: make(chan struct{}, 1), probe: make(chan struct{}, 1), kept: make(chan uint64, 1), asks: make(chan uint64, 1), alive: make(chan struct{}, 1),
		begun: make(chan struct{}), over: make(chan struct{}),
	}
	expires := info.State.VerifiedChains[0][0].NotAfter.Sub(s.Clock.Now().Wall)
	// These outlive the handler by a moment: only its return makes them end.
	// Serve waits for them.
	hello := make(chan *uplink.Hello, 1)
	s.calls.Go(func() { st.end(st.receive(ctx, hello)) })
	select {
	case said := <-hello:
		err = st.begin(ctx, said)
	case <-st.over:
		err = st.why
	case <-s.Clock.After(helloWithin):
		err = errHello
	}
	if err != nil {
		st.end(err)
		return err
	}
	defer s.leave(st)
	close(st.begun)
	s.calls.Go(func() { st.end(st.send(ctx)) })
	select {
	case <-st.over:
	case <-s.Clock.After(expires):
		st.end(errExpired)
	}
	s.Log.InfoContext(ctx, "host disconnected", "host", h.Name, "why", st.why)
	return st.why
}

// begin makes this the host's stream.
func (st *stream) begin(ctx context.Context, said *uplink.Hello) error {
	if err := st.join(ctx); err != nil {
		return err
	}
	now := st.Clock.Now().Wall
	err := st.Store.Seen(ctx, st.host.Name, now, roster.Host{
		Name: st.host.Name, Seen: now,
		AgentVersion: printable(said.GetAgentVersion()), Mode: printable(said.GetMode()), Boot: printable(said.GetBootId()),
		Addresses: cleanAddresses(said.GetAddresses()), SSHHostKeys: cleanKeys(said.GetSshHostKeys()), Applied: said.GetRevision(),
	})
	if err == nil {
		err = st.warn(ctx, said.GetRevision())
	}
	if err == nil && st.outbox != "" {
		st.upTo, err = st.Store.KeepRecords(ctx, st.host.Name, st.outbox, nil)
	}
	if err != nil {
		st.leave(st)
		return st.internal(ctx, err)
	}
	st.Log.InfoContext(ctx, "host connected", "host", st.host.Name, "address", st.from, "revision", said.GetRevision())
	return nil
}

// warn tells the operator of a host that knows more than this server.
func (st *stream) warn(ctx context.Context, kept uint64) error {
	v, err := st.Store.State(ctx, st.host.Name)
	if err == nil && (v.Ahead || kept > v.Revision) {
		st.Log.ErrorContext(ctx, "alert: host keeps a newer grant set than the control plane has given, and is sent none: was the database set back? `curfew-server restored` goes on",
			"host", st.host.Name, "kept", kept, "known", v.Revision)
	}
	return err
}

// join enters the stream in the list. If the host has one already, that one
// is asked for a sign of life: if there is one, two agents hold one identity,
// and this one is refused.
func (st *stream) join(ctx context.Context) error {
	first := st.enter()
	if first == nil {
		return nil
	}
	select {
	case <-first.alive: // an earlier sign
	default:
	}
	poke(first.probe)
	select {
	case <-first.alive:
		st.Log.ErrorContext(ctx, "alert: a second agent came with a host's identity: was the host cloned?",
			"host", st.host.Name, "address", st.from, "first", first.from)
		return status.Errorf(codes.AlreadyExists, "host %s is connected from elsewhere: if this is a copy of it, enrol it under another name", st.host.Name)
	case <-first.over:
	case <-ctx.Done():
		return ctx.Err()
	case <-st.Clock.After(st.Proof):
		first.end(errReplace)
	}
	st.leave(first)
	if st.enter() != nil {
		return status.Error(codes.Aborted, "a third stream was faster")
	}
	return nil
}

// enter puts the stream in the list, unless there is one: that is returned.
func (st *stream) enter() *stream {
	st.mu.Lock()
	defer st.mu.Unlock()
	if first := st.streams[st.host.Name]; first != nil {
		return first
	}
	st.streams[st.host.Name] = st
	return nil
}

func (s *Server) leave(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[st.host.Name] == st {
		delete(s.streams, st.host.Name)
	}
}

// internal is what a host is told of our own troubles; the operator is told
// what they are.
func (st *stream) internal(ctx context.Context, err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	st.Log.ErrorContext(ctx, "cannot serve host", "host", st.host.Name, "err", err)
	return status.Error(codes.Unavailable, "the control plane has a problem of its own")
}

// say puts a number in the place of one that was not sent yet.
func say(to chan uint64, n uint64) {
	for {
		select {
		case to <- n:
			return
		default:
		}
		select {
		case <-to:
		default:
		}
	}
}

// receive takes what the host says until the stream ends.
func (st *stream) receive(ctx context.Context, hello chan<- *uplink.Hello) error {
	up, err := st.duplex.Recv()
	if err != nil {
		return err
	}
	if up.GetHello() == nil {
		return errHello
	}
	st.outbox, st.roster = up.GetHello().GetOutbox(), up.GetHello().GetRoster()
	if len(st.outbox) > maxText || printable(st.outbox) != st.outbox {
		return status.Error(codes.InvalidArgument, "the outbox has no proper name")
	}
	if st.version, err = uplink.Agree(up.GetHello().GetOldest(), up.GetHello().GetNewest()); err != nil {
		st.Log.ErrorContext(ctx, "alert: host speaks another protocol", "host", st.host.Name, "agent", printable(up.GetHello().GetAgentVersion()), "err", err)
		return status.Error(codes.FailedPrecondition, "the control plane and this agent do not understand each other: "+err.Error())
	}
	hello <- up.GetHello()
	select {
	case <-st.begun:
	case <-st.over:
		return st.why
	}
	for {
		up, err := st.duplex.Recv()
		if err != nil {
			return err
		}
		select {
		case <-st.over:
			return st.why // nothing counts that comes later
		default:
		}
		poke(st.alive)
		switch says := up.GetSays().(type) {
		case *uplink.Up_Applied:
			err = st.applied(ctx, says.Applied)
		case *uplink.Up_Records:
			err = st.records(ctx, says.Records)
		default:
			err = errHello
		}
		if err != nil {
			return st.internal(ctx, err)
		}
	}
}

func (st *stream) records(ctx context.Context, r *uplink.Records) error {
	if st.outbox == "" {
		return status.Error(codes.InvalidArgument, "records of an outbox without a name")
	}
	var all []roster.Record
	for _, one := range r.GetRecords() {
		all = append(all, roster.Record{Seq: one.GetSeq(), Entry: one.GetEntry()})
	}
	upTo, err := st.Store.KeepRecords(ctx, st.host.Name, st.outbox, all)
	if err != nil {
		return err
	}
	say(st.kept, upTo)
	return nil
}

// send tells the host what it is to hold, what is kept of its records, and
// that the server is there, until the stream ends.
func (st *stream) send(ctx context.Context) error {
	var sent said
	var told roster.Sessions
	upTo := st.upTo // the host goes on from the first word
	beat := st.Clock.After(0)
	for {
		look, asked := true, uint64(0)
		select {
		case <-st.over:
			return st.why
		case <-ctx.Done():
			return ctx.Err()
		case upTo = <-st.kept:
			look = false
		case asked = <-st.asks:
			look = false
		case <-st.probe:
			sent = said{}
		case <-st.wake:
		case <-beat:
			beat = st.Clock.After(st.Heartbeat)
		}
		if look {
			var err error
			if sent, err = st.state(ctx, sent); err == nil {
				told, err = st.sessions(ctx, told)
			}
			if err != nil {
				return err
			}
		}
		if err := st.duplex.Send(&uplink.Down{Says: &uplink.Down_Kept{Kept: &uplink.Kept{Seq: upTo, NowNs: st.Clock.Now().Wall.UnixNano(), Asked: asked, Version: st.version}}}); err != nil {
			return err
		}
	}
}

// said is what a state that was sent is known by: the state itself is not kept
// for each host.
type said struct {
	revision uint64
	keyring  [sha256.Size]byte
}

// state says what the host is to hold, if that is another than was sent.
func (st *stream) state(ctx context.Context, sent said) (said, error) {
	v, err := st.look(ctx)
	if err != nil {
		return sent, st.internal(ctx, err)
	}
	ca, now := st.SSHCA(), said{v.Revision, sha256.Sum256(v.Keyring)}
	if v.Ahead || now == sent && ca == st.ca && v.Roster <= st.roster {
		return sent, nil
	}
	st.ca = ca
	var rosters [][]byte
	if v.Roster > st.roster {
		if rosters, err = st.Store.Rosters(ctx, st.roster, rosterBytes); err != nil {
			return sent, st.internal(ctx, err)
		}
	}
	err = st.duplex.Send(&uplink.Down{Says: &uplink.Down_State{State: &uplink.State{Keyring: v.Keyring, Set: v.Set, Version: st.Version, SshCa: ca, Rosters: rosters}}})
	st.roster += uint64(len(rosters)) // what was not sent yet is, at the next look
	return now, err
}

// rosterBytes bounds the versions of the roster in one message: a host that has
// many to take is sent them in parts.
const rosterBytes = 1 << 20

// look reads what the host is to hold, if it still stands.
func (st *stream) look(ctx context.Context) (roster.State, error) {
	if _, err := st.standing(ctx, st.host.Name, st.host.Identity); err != nil {
		return roster.State{}, err
	}
	v, err := st.Store.State(ctx, st.host.Name)
	if errors.Is(err, roster.ErrUnknown) {
		return v, errDropped
	}
	return v, err
}
