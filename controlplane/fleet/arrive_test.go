package fleet

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"curfew.internal/clock"
	"curfew.internal/controlplane/gate"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/uplink"
)

// from dials as an address.
func from(ip string) func(context.Context, string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	return func(ctx context.Context, to string) (net.Conn, error) { return d.DialContext(ctx, "tcp", to) }
}

// strangers take all the places they get, again and again, and do with them
// what keeps a server waiting, until ctx is done.
func (r *rig) strangers(ctx context.Context, n int, do func(context.Context, net.Conn) error) *sync.WaitGroup {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				c, err := from("127.0.0.2")(ctx, r.addr)
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				_ = do(ctx, c) // the server hung up
				stop()
				_ = c.Close()
			}
		})
	}
	return &all
}

// silent says nothing.
func silent(_ context.Context, c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	return err
}

// drips begins a handshake that takes a minute.
func drips(ctx context.Context, c net.Conn) error {
	for _, b := range append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, make([]byte, 100)...) {
		if _, err := c.Write([]byte{b}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
	return silent(ctx, c)
}

// enrols calls what needs no certificate, and never says with what.
func enrols(ctx context.Context, raw net.Conn) error {
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return err
	}
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		return err
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: heads()}); err != nil {
		return err
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		if p, ok := frame.(*http2.PingFrame); ok && !p.IsAck() {
			if err := f.WritePing(true, p.Data); err != nil {
				return err
			}
		}
	}
}

func heads() []byte {
	var b writer
	e := hpack.NewEncoder(&b)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", uplink.Uplink_Enrol_FullMethodName}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}) // writes to memory
	}
	return b
}

type writer []byte

func (w *writer) Write(b []byte) (int, error) {
	*w = append(*w, b...)
	return len(b), nil
}

// A fleet comes at once, from one address and with fewer places, or fewer
// turns, than hosts, while strangers take everything that they can get. All of it
// comes through, and its streams last longer than strangers do.
func TestFleetArrivesAmongStrangers(t *testing.T) {
	t.Run("few places", func(t *testing.T) { arriveAmongStrangers(t, &gate.Listener{Strangers: 16, Stay: 3 * time.Second}, 200) })
	t.Run("few turns", func(t *testing.T) {
		arriveAmongStrangers(t, &gate.Listener{Strangers: 400, Stay: 5 * time.Second, Turns: gate.Turns{Most: 8}}, 60)
	})
}

func arriveAmongStrangers(t *testing.T, g *gate.Listener, hosts int) {
	t.Helper()
	g.Clock = clock.System{}
	r := newRigAt(t, func(l net.Listener) net.Listener {
		g.Listener = l
		return g
	})
	for i := range hosts {
		name := fmt.Sprintf("h%d", i)
		r.store.hosts[name] = roster.Host{Name: name, Identity: "id"}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, do := range []func(context.Context, net.Conn) error{silent, drips, enrols} {
		all := r.strangers(ctx, 16, do)
		t.Cleanup(func() { cancel(); all.Wait() })
	}
	streams := make([]up, hosts)
	var all sync.WaitGroup
	for i := range hosts {
		c := r.patient(r.certificate(r.ca, fmt.Sprintf("h%d", i), "id"))
		all.Go(func() {
			var err error
			if streams[i], err = arrive(t.Context(), c); err != nil {
				t.Errorf("host %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	// Until a stranger who came after the last of them had to go.
	late, err := from("127.0.0.3")(t.Context(), r.addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = silent(t.Context(), late)
	_ = late.Close()
	r.store.put(2, 20)
	for i, s := range streams {
		r.server.Changed(fmt.Sprintf("h%d", i))
		for len(r.next(s).GetState().GetSet()) != 20 {
		}
	}
}

// arriving counts the turns that a connection asked for.
type arriving struct {
	net.Conn
	turns chan struct{}
}

func (a arriving) Turn(time.Duration) (func(), bool) {
	a.turns <- struct{}{}
	return func() {}, false
}

func (arriving) Known(string) bool { return true }

// Whoever says nothing has no turn: what others wait for is not hers.
func TestNoTurnForWhoIsSilent(t *testing.T) {
	for said, want := range map[string]int{"": 0, "\x16": 1} {
		theirs, ours := net.Pipe()
		k := arriving{ours, make(chan struct{}, 9)}
		go func() {
			_, _ = theirs.Write([]byte(said))
			_ = theirs.Close()
		}()
		_, _, err := arrivals{now: time.Now}.ServerHandshake(k)
		if err == nil || len(k.turns) != want {
			t.Errorf("who says %q has %d turns, and not %d: %v", said, len(k.turns), want, err)
		}
		_ = ours.Close()
	}
}

// patient is a host's client, which comes again at once.
func (r *rig) patient(cert tls.Certificate) uplink.UplinkClient {
	r.Helper()
	conn, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}})),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.2, Jitter: 0.5, MaxDelay: time.Second}, MinConnectTimeout: 30 * time.Second}),
		grpc.WithContextDialer(from("127.0.0.1")))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = conn.Close() })
	return uplink.NewUplinkClient(conn)
}

// arrive tries until the host has a stream.
func arrive(ctx context.Context, c uplink.UplinkClient) (up, error) {
	for {
		s, err := c.Connect(ctx, grpc.WaitForReady(true))
		if err == nil {
			err = s.Send(hello)
		}
		if err == nil {
			_, err = s.Recv()
		}
		if err == nil || ctx.Err() != nil {
			return s, err
		}
	}
}
