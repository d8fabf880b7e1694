package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"curfew.internal/wire/uplink"
)

// How long an end of a connection hears nothing before it gives it up, as
// gRPC's keepalive has it.
const (
	hostPatience  = 30 * time.Second
	planePatience = 40 * time.Second
)

var (
	errQuiet  = status.Error(codes.Unavailable, "keepalive ping failed to receive ACK within timeout")
	errClosed = status.Error(codes.Unavailable, "error reading from server: EOF")
)

// A parcel is a message on its way. The last one is the end of the stream.
type parcel struct {
	at   time.Duration
	body []byte
	end  error
}

// A cable is a connection. What is said at one end comes out at the other in
// its order, each message once and whole, or not at all.
type cable struct {
	*world
	id          int
	host, plane *side
	quiet       time.Duration // for how long nothing went through
	dead        bool          // the host's machine went away without a word
}

// A side is an end of a cable.
type side struct {
	*cable
	who    string
	ctx    context.Context
	cancel context.CancelFunc
	far    *side
	in     []parcel
	lost   error // why nothing comes any more
	gone   bool  // nobody is here any more
}

// lay lays a cable from the agent to the control plane, and has the control
// plane's goroutine answer it.
func (w *world) lay(ctx context.Context) *cable {
	w.laid++
	c := &cable{world: w, id: w.laid}
	c.host = &side{cable: c, who: fmt.Sprintf("host %d", c.id)}
	c.plane = &side{cable: c, who: fmt.Sprintf("plane %d", c.id), far: c.host}
	c.host.far = c.plane
	c.host.ctx, c.host.cancel = context.WithCancel(ctx)
	c.plane.ctx, c.plane.cancel = context.WithCancel(peer.NewContext(w.ctx, badge()))
	w.cables = append(w.cables, c)
	w.session = c
	served := w.fleet
	go func() {
		err := served.Connect(&grpc.GenericServerStream[uplink.Up, uplink.Down]{ServerStream: planeEnd{c.plane}})
		_ = w.take(c.plane.ctx, &turn{who: c.plane.who + " hangs up", first: true, do: func() { c.plane.leave(status.Convert(err).Err(), len(c.host.in)) }})
	}()
	w.tell("the agent connects")
	return c
}

// badge is what TLS says of a host.
func badge() *peer.Peer {
	return &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, AuthInfo: credentials.TLSInfo{
		State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{hostLeaf}}},
	}}
}

// latency is how long a message takes; few take long.
func (w *world) latency() time.Duration {
	switch {
	case w.calm:
		return 0
	case w.chance.IntN(12) == 0:
		return time.Duration(w.chance.IntN(20_000)) * time.Millisecond
	}
	return time.Duration(w.chance.IntN(300)) * time.Millisecond
}

// arrive puts a parcel on the way to this side.
func (s *side) arrive(p parcel) {
	p.at = s.now + s.latency()
	if n := len(s.in); n > 0 {
		p.at = max(p.at, s.in[n-1].at)
	}
	s.in = append(s.in, p)
}

// leave ends this side: so many of the messages that it said still arrive, and
// then, if there is an end to tell, that.
func (s *side) leave(end error, arrive int) {
	if s.gone {
		return
	}
	s.gone = true
	s.cancel()
	s.far.in = s.far.in[:arrive]
	if end == nil {
		end = errClosed
	}
	if !s.dead {
		s.far.arrive(parcel{end: end})
	}
}

// some is any number of what is on the way to the other side.
func (s *side) some() int { return s.chance.IntN(len(s.far.in) + 1) }

// hears reports whether there is something to hear.
func (s *side) hears() bool {
	return s.lost != nil || !s.cut && len(s.in) > 0 && s.in[0].at <= s.now
}

func (s *side) take(t *turn) error { return s.world.take(s.ctx, t) }

// SendMsg puts a message on the way; nobody knows whether it arrives.
func (s *side) SendMsg(m any) error {
	b, err := proto.Marshal(m.(proto.Message))
	if err != nil {
		return err
	}
	return s.take(&turn{who: s.who + " speaks", first: true, do: func() { s.far.arrive(parcel{body: b}) }})
}

// receive waits for the next message; got is told of it.
func (s *side) receive(m proto.Message, got func()) error {
	var end error
	err := s.take(&turn{who: s.who + " listens", ready: s.hears, do: func() {
		if end = s.lost; end != nil {
			return
		}
		p := s.in[0]
		s.in = s.in[1:]
		if end = p.end; end == nil {
			end = proto.Unmarshal(p.body, m)
			got()
		}
	}})
	if err != nil {
		return err
	}
	return end
}

func (s *side) Context() context.Context { return s.ctx }

// planeEnd is a stream as the control plane holds it.
type planeEnd struct{ *side }

func (e planeEnd) RecvMsg(m any) error       { return e.receive(m.(proto.Message), func() {}) }
func (planeEnd) SetHeader(metadata.MD) error { return nil }
func (planeEnd) SendHeader(metadata.MD) error {
	return nil
}
func (planeEnd) SetTrailer(metadata.MD) {}

// hostEnd is a stream as the agent holds it.
type hostEnd struct{ *side }

func (e hostEnd) RecvMsg(m any) error {
	return e.receive(m.(proto.Message), func() { e.heardOf(m.(*uplink.Down)) })
}
func (hostEnd) Header() (metadata.MD, error) { return nil, nil }
func (hostEnd) Trailer() metadata.MD         { return nil }
func (hostEnd) CloseSend() error             { return nil }

// network is what the agent dials.
type network struct{ *world }

func (n network) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	var c *cable
	if err := n.take(ctx, &turn{who: "the agent dials", first: true, do: func() { c = n.lay(ctx) }}); err != nil {
		return nil, err
	}
	return hostEnd{c.host}, nil
}

func (network) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return status.Error(codes.Unimplemented, "only streams are simulated")
}

// age lets time go by on the cables: an end that hears nothing for long gives
// up.
func (w *world) age(by time.Duration) {
	for _, c := range w.cables {
		if c.quiet += by; !w.cut && !c.dead {
			c.quiet = 0
		}
		if c.quiet >= hostPatience {
			c.host.lost = errQuiet
		}
		if c.quiet >= planePatience {
			c.plane.lost = errQuiet
		}
	}
	w.cables = slices.DeleteFunc(w.cables, func(c *cable) bool { return c.host.gone && c.plane.gone })
}

// snap breaks the cable in the middle of whatever it carries.
func (w *world) snap() {
	if c := w.session; c != nil {
		w.tell("the connection breaks")
		for _, s := range []*side{c.host, c.plane} {
			s.in = append(s.in[:s.far.some()], parcel{at: w.now, end: errClosed})
		}
	}
}

// pull takes the host's end away as a power cut does: nobody says so.
func (w *world) pull() {
	if c := w.session; c != nil {
		c.dead, w.session = true, nil
		c.host.leave(nil, c.host.some())
	}
}

// unplug ends the agent's session, with a word from its kernel.
func (w *world) unplug() {
	if c := w.session; c != nil {
		w.session = nil
		c.host.leave(nil, c.host.some())
	}
}
