// Package fleet speaks with the hosts: it enrols them, tells each what it is
// to hold, and takes what they report.
//
// It states what is so, again and again, and commands nothing. It knows a
// host by its certificate alone: no message can speak for another host.
package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/uplink"
)

// A Store keeps what is known of hosts.
type Store interface {
	// UseJoinToken uses a token up, and takes the host into the fleet.
	UseJoinToken(ctx context.Context, hash [32]byte, h roster.Host, at time.Time) (roster.Host, error)
	Host(ctx context.Context, name string) (roster.Host, error)
	// State returns what a host is to hold; the same revision is always the
	// same bytes.
	State(ctx context.Context, host string) (roster.State, error)
	// Rosters returns versions of the roster of people's keys after the one, in
	// order, up to about so many bytes.
	Rosters(ctx context.Context, after uint64, most int) ([][]byte, error)
	// KeepRecords keeps what it has not yet, and returns up to where it has
	// everything: with no records, that alone.
	KeepRecords(ctx context.Context, host, outbox string, records []roster.Record) (upTo uint64, err error)
	Seen(ctx context.Context, host string, at time.Time, said roster.Host) error
	Applied(ctx context.Context, host string, r roster.Report, at time.Time) error
}

// Config is what the fleet's server is made of.
type Config struct {
	CA    *CA
	Store Store
	// Terminals keeps recordings. Optional; none are taken.
	Terminals Terminals
	// Names are those under which hosts reach the server: host names and IP
	// addresses.
	Names []string
	// SSHCA returns the public key of the SSH CA, in authorized_keys format.
	// Optional.
	SSHCA func() string
	// Version is this server's, which hosts compare with their own. Optional.
	Version string
	// Shell answers people who typed sudo on a host.
	Shell Shell
	Clock clock.Clock
	Log   *slog.Logger

	// Heartbeat is the longest silence on a stream: hosts tell by it that
	// they are not cut off, and each beat looks for what a lost wake-up
	// would have said. Optional; 20 s.
	Heartbeat time.Duration
	// Proof is how long a stream has to show that its host is alive when a
	// second one comes with the same identity. Optional; 5 s.
	Proof time.Duration
}

// MaxMessage bounds a message from a host, in bytes.
const MaxMessage = 4 << 20

// Bounds of what one connection can hold of the server's memory.
const (
	streamWindow     = 256 << 10
	connectionWindow = 512 << 10
	headerBytes      = 16 << 10
	callsAtOnce      = 8
)

// Server speaks with the hosts of a fleet.
type Server struct {
	uplink.UnimplementedUplinkServer
	Config

	enrolments *limiter
	offers     *limiter       // by host
	asks       *limiter       // by host
	waits      waits          // for what was asked
	calls      sync.WaitGroup // what streams have started

	mu      sync.Mutex         // guards what follows
	streams map[string]*stream // by host
}

// New returns a server; [Server.Serve] starts it.
func New(c Config) *Server {
	if c.Heartbeat <= 0 {
		c.Heartbeat = 20 * time.Second
	}
	if c.Proof <= 0 {
		c.Proof = 5 * time.Second
	}
	if c.SSHCA == nil {
		c.SSHCA = func() string { return "" }
	}
	if c.Terminals == nil {
		c.Terminals = noTerminals{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{Config: c, streams: map[string]*stream{}, enrolments: newLimiter(rate.Every(time.Second/5), 30)}
	s.offers, s.asks = shares()
	return s
}

// TLS is the server's side of the hosts' connections: a client certificate is
// asked for, and checked if there is one. Enrolment has none.
func (s *Server) TLS() (*tls.Config, error) {
	t, err := s.CA.Server(s.Names...)
	if err != nil {
		return nil, err
	}
	t.ClientAuth = tls.VerifyClientCertIfGiven
	t.ClientCAs = x509.NewCertPool()
	t.ClientCAs.AddCert(s.CA.Certificate)
	t.NextProtos = []string{"h2"}
	return t, nil
}

// Serve takes connections until ctx is done, and returns once every stream
// has ended. It closes l, which is to bound how many there are, and how many are
// worked for at once: it is told which of them are hosts', if it can be
// ([Arriving]).
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	t, err := s.TLS()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	g := grpc.NewServer(
		grpc.Creds(arrivals{credentials.NewTLS(t), s.CA, func() time.Time { return s.Clock.Now().Wall }}),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxConcurrentStreams(callsAtOnce),
		grpc.MaxHeaderListSize(headerBytes),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		// Small buffers, for many idle streams: 45 kB each in place of 58. The
		// write buffer is shared by default.
		grpc.ReadBufferSize(0), grpc.WriteBufferSize(4096),
		grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(arriveWithin),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second,
			// Who asks for nothing, a stranger for one, does not stay.
			MaxConnectionIdle: time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	uplink.RegisterUplinkServer(g, s)
	serving, done := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-serving.Done()
		g.Stop()
	}()
	err = g.Serve(l)
	done()
	<-stopped
	s.calls.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Changed says that what the hosts are to hold may be another now. It carries
// nothing: the streams look for themselves.
func (s *Server) Changed(hosts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range hosts {
		if st := s.streams[h]; st != nil {
			poke(st.wake)
		}
	}
}

// Drop ends the host's stream, as when it was decommissioned.
func (s *Server) Drop(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[host]; st != nil {
		st.end(errDropped)
	}
}

// Connected reports whether the host has a stream.
func (s *Server) Connected(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[host] != nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// limiter bounds how often each address may try to enrol.
type limiter struct {
	every rate.Limit
	burst int

	mu sync.Mutex // guards what follows
	by map[string]*rate.Limiter
}

// addresses is how many are remembered; then all are forgotten.
const addresses = 4096

func newLimiter(every rate.Limit, burst int) *limiter {
	return &limiter{every: every, burst: burst, by: map[string]*rate.Limiter{}}
}

func (l *limiter) allow(address string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.by[address]
	if one == nil {
		if len(l.by) >= addresses {
			clear(l.by)
		}
		one = rate.NewLimiter(l.every, l.burst)
		l.by[address] = one
	}
	return one.AllowN(now, 1)
}
