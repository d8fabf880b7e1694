// Package uplink is the host's end of the stream to the control plane: it
// joins the fleet, takes what the host is to hold, and sends what is to be
// reported.
//
// It decides nothing: whether what came may be held is the acceptor's say. It
// trusts no server but the one that the join code pinned.
package uplink

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"curfew.internal/agent/doctor"
	"curfew.internal/clock"
)

// An Identity is who the host is in its fleet, and by what it knows the
// control plane.
type Identity struct {
	Fleet, Name string
	Key         crypto.Signer
	Certificate []byte // DER
	CA          []byte // DER
	Roots       []ed25519.PublicKey
	ReceiptKey  ed25519.PrivateKey
	SSHCA       string // authorized_keys format
}

// LogValue keeps the keys out of logs.
func (Identity) LogValue() slog.Value { return slog.StringValue("[secret]") }

// Facts is what a host says of itself.
type Facts struct {
	AgentVersion string
	Boot         string // the kernel's boot id
	Mode         string // what the kernel gives, proved at start
	SSHHostKeys  []string
	Addresses    []string
}

// An Acceptor holds what it was sent, if it may.
type Acceptor interface {
	Accept(ctx context.Context, keyring, set []byte) (revision uint64, err error)
	// Versions are those of the set and of the keyring that are held.
	Versions() (revision, keyring uint64)
	// Settled reports whether the host is all that the set calls for.
	Settled() bool
}

// Rosters holds the roster of people's keys.
type Rosters interface {
	// Roster is the version that is held; zero if there is none.
	Roster() uint64
	// TakeRosters takes the versions that follow it.
	TakeRosters(ctx context.Context, envelopes [][]byte) error
}

// An Outbox is what is still to be reported, numbered from one.
type Outbox interface {
	Name() string
	// Next returns entries after the number, up to about so many bytes.
	Next(after uint64, most int) (first uint64, entries [][]byte, err error)
	// Kept says that the control plane has all up to the number; first, that
	// this is where to go on from. An error ends the connection.
	Kept(upTo uint64, first bool) error
}

// Config is what a client is made of.
type Config struct {
	// Server is where the control plane is, HOST:PORT.
	Server   string
	Identity Identity
	Host     Acceptor
	Rosters  Rosters // optional: without it, none is held
	Outbox   Outbox
	// Appended delivers when there may be more in the outbox.
	Appended <-chan struct{}
	Facts    func() Facts
	// Unwired is what the host's sshd, sudo and PAM lack to ask the agent.
	// Optional.
	Unwired func() []string
	// Access is what the host does with sudo and su without a grant, and Doctor
	// what is wrong with it, as it was found last. Optional.
	Access func() string
	Doctor func() doctor.Report
	// Now is trusted time, in which leases are counted.
	Now func() time.Time
	// Told is told what the control plane's clock said, so long ago at most.
	// Optional.
	Told func(ctx context.Context, at time.Time, age time.Duration)
	// Unsure reports whether the control plane's time is to be asked for.
	// Optional.
	Unsure func() bool
	// Sessions takes which sessions somebody looks at, and which somebody
	// ended, with who did. Optional.
	Sessions func(watched []uint64, ended map[uint64]string)
	// Trust takes the CA that sshd is to trust, in authorized_keys format.
	// Optional.
	Trust func(ca string)
	// Renewed keeps a new certificate.
	Renewed func(der []byte) error
	Clock   clock.Clock
	Log     *slog.Logger

	// Dial opens connections. Optional; TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Again is how long a state that was refused waits to be offered to the
	// acceptor again, the first time: a clock may have been put right.
	// Optional; 30 s.
	Again time.Duration
}

// A Client speaks with the control plane.
type Client struct {
	Config
	report chan struct{} // holds one when Applied may say something new

	mu          sync.Mutex // guards what follows
	certificate *x509.Certificate
	heard       time.Time
	connected   bool
	refused     string           // why the control plane refuses this host
	plane       string           // version of the control plane
	conn        *grpc.ClientConn // nil: there is none
}

// New returns a client; [Client.Run] starts it.
func New(c Config) (*Client, error) {
	if c.Again <= 0 {
		c.Again = 30 * time.Second
	}
	if c.Told == nil {
		c.Told = func(context.Context, time.Time, time.Duration) {}
	}
	if c.Unsure == nil {
		c.Unsure = func() bool { return false }
	}
	if c.Access == nil {
		c.Access = func() string { return "" }
	}
	if c.Doctor == nil {
		c.Doctor = func() doctor.Report { return doctor.Report{} }
	}
	if c.Unwired == nil {
		c.Unwired = func() []string { return nil }
	}
	if c.Sessions == nil {
		c.Sessions = func([]uint64, map[uint64]string) {}
	}
	if c.Trust == nil {
		c.Trust = func(string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
		}
	}
	leaf, err := x509.ParseCertificate(c.Identity.Certificate)
	if err != nil {
		return nil, errors.New("the host's certificate cannot be read: enrol the host again")
	}
	return &Client{Config: c, report: make(chan struct{}, 1), certificate: leaf}, nil
}

// Report tells the control plane anew what became of its set, as when a pass
// has settled. It never waits.
func (c *Client) Report() { poke(c.report) }

// LastHeard is when the control plane was heard last while this host held
// what it wants it to; zero, if not since the start.
func (c *Client) LastHeard() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard
}

// Connected reports whether the control plane is being heard.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected
}

// Refused is why the control plane refused this host when it was asked last;
// empty if it did not.
func (c *Client) Refused() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// Plane is the version of the control plane; empty, if it was not heard yet.
func (c *Client) Plane() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.plane
}

func (c *Client) setPlane(version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plane = version
}

func (c *Client) setRefused(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = ""
	if status.Code(err) == codes.PermissionDenied {
		c.refused = explain(err)
	}
}

func (c *Client) hear() {
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = now
}

// Run keeps a connection, and the certificate fresh, until ctx is done.
func (c *Client) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.connect(ctx) })
	g.Go(func() error { return c.renew(ctx) })
	return g.Wait()
}

// stable is how long a connection has to have held for the next failure to
// count as the first.
const stable = time.Minute

func (c *Client) connect(ctx context.Context) error {
	var tries int
	var said string
	for {
		began := c.Clock.Now().Boot
		err := c.session(ctx, func() {
			c.Log.InfoContext(ctx, "connected to the control plane", "server", c.Server)
			said = ""
			c.setConnected(true)
		})
		c.setConnected(false)
		c.setRefused(err)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if kind := kindOf(err); kind != said {
			// Once for each change, not for each try.
			c.Log.WarnContext(ctx, "no connection to the control plane", "server", c.Server, "err", explain(err))
			said = kind
		}
		if c.Clock.Now().Boot-began >= stable {
			tries = 0
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.Clock.After(backoff(tries, rand.Float64())): //nolint:gosec // spreads load, hides nothing
		}
		tries++
	}
}

func (c *Client) setConnected(is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connected = is
}

// Bounds of the wait between two tries.
const (
	shortest = 200 * time.Millisecond
	longest  = 30 * time.Second
)

// backoff is the wait after so many failed tries: anything from nothing up to
// a bound that doubles, so that a fleet does not come back in one moment.
// Where in between is for dice, from 0 up to 1, to say.
func backoff(tries int, dice float64) time.Duration {
	bound := longest
	if tries < 8 { // 2^8 of the shortest is over the longest
		bound = min(longest, shortest<<tries)
	}
	return time.Duration(dice * float64(bound))
}

// kindOf tells errors apart for the log; texts differ by port and time.
func kindOf(err error) string {
	s, ok := status.FromError(err)
	if !ok {
		return "other"
	}
	if s.Code() == codes.PermissionDenied {
		return s.Message()
	}
	return s.Code().String()
}

func explain(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	// A handshake's error comes as text, see refused.
	if strings.Contains(text, x509.CertificateInvalidError{Reason: x509.Expired}.Error()) {
		text += ": if this host's clock is wrong, put that right first (timedatectl)"
	}
	return text
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
