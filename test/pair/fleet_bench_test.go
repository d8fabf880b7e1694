package pair

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/agent/uplink"
	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
	"curfew.internal/wire/invite"
	wire "curfew.internal/wire/uplink"
)

// Bounds for ten thousand agents on a busy machine: how long they may take, and
// how many join within the time for which a code counts.
const (
	patience = 30 * time.Minute
	codeFor  = 1000
)

var hosts = flag.Int("hosts", 1000, "how many agents BenchmarkFleet connects")

// BenchmarkFleet has many agents hold a stream with one server, over mutual
// TLS with an identity each, and the agent's own client. It tells what they
// cost the server, how long a grant on all of them takes to be on each, how
// long its revocation does, and how long all are away if the server is killed.
func BenchmarkFleet(b *testing.B) {
	w := newWorld(b, []string{"ana"}, []string{"ben"})
	ana, ben := w.add(b, w.a, "ana"), w.add(b, w.a, "ben")
	before := w.a.memory(b)
	began := time.Now()
	f := w.crowd(b, *hosts)
	fmt.Printf("%d agents joined in %v\n", *hosts, time.Since(began).Round(time.Second))
	began = time.Now()
	f.run(b)
	within(b, patience, "all are connected", f.connected)
	fmt.Printf("%d agents connected in %v, one server on PostgreSQL\n", *hosts, time.Since(began).Round(time.Millisecond))
	after := w.a.memory(b)
	fmt.Printf("server's memory: %.1f MiB, %.1f kB for each agent\n", float64(after)/(1<<20), float64(after-before)/1000/float64(*hosts))

	began = time.Now()
	r, err := ana.a.CreateRequest(b.Context(), &api.CreateRequestRequest{
		Role: "db", Labels: map[string]string{"tier": "db"}, Duration: durationpb.New(time.Hour), Reason: "bench", Code: ana.code(b), Key: rand.Text(),
	})
	must(b, err)
	asked := time.Since(began)
	code := ben.code(b)
	began = time.Now()
	r, err = ben.a.Approve(b.Context(), &api.ApproveRequest{Id: r.Id, Code: code, Digest: r.Digest})
	must(b, err)
	f.tell(b, "approval begins -> on each host", r.Grant, began, true)
	began = time.Now()
	_, err = ana.a.Revoke(b.Context(), &api.RevokeRequest{Grant: r.Grant, Note: "bench"})
	must(b, err)
	f.tell(b, "revocation begins -> on each host", r.Grant, began, false)
	fmt.Printf("one request for all of them: %v\n", asked.Round(time.Millisecond))

	w.a.kill()
	within(b, patience, "nobody is connected", f.gone)
	w.start(b, w.a)
	began = time.Now()
	within(b, patience, "all are connected", f.connected)
	fmt.Printf("server killed and ready again -> all %d connected: %v\n", *hosts, time.Since(began).Round(time.Millisecond))
}

// memory is the server's resident memory, in bytes.
func (p *plane) memory(b *testing.B) int {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	must(b, err)
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	must(b, err)
	return kb << 10
}

// fleet is many agents without a machine.
type fleet []*member

// crowd has them join. The server bounds how fast one address may: each few
// come from another.
func (w *world) crowd(b *testing.B, n int) fleet {
	b.Helper()
	all := make(fleet, n)
	var g errgroup.Group
	g.SetLimit(16)
	for i := range n {
		sent := ""
		if i%codeFor == 0 {
			sent = w.ada.code(b) // it counts for 15 minutes
		}
		token, err := w.ada.a.CreateJoinToken(b.Context(), &api.CreateJoinTokenRequest{Labels: map[string]string{"tier": "db"}, Code: sent})
		must(b, err)
		g.Go(func() (err error) {
			all[i], err = w.member(b.Context(), fmt.Sprintf("h%05d", i), net.IPv4(127, 1, byte(i>>8), byte(i>>3)|1), token.Token)
			return err
		})
	}
	must(b, g.Wait())
	return all
}

// run has all of them connect, until the benchmark ends.
func (f fleet) run(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var all sync.WaitGroup
	for _, m := range f {
		all.Go(func() { _ = m.client.Run(ctx) })
	}
	b.Cleanup(func() { cancel(); all.Wait() })
}

// connected and gone look no further than at the first who is otherwise: they
// are asked again and again, on the processors that are being measured.
func (f fleet) connected() bool {
	return !slices.ContainsFunc(f, func(m *member) bool { return !m.client.Connected() })
}

func (f fleet) gone() bool {
	return !slices.ContainsFunc(f, func(m *member) bool { return m.client.Connected() })
}

// tell waits until each has the grant, or has it no more, and tells how long
// that took.
func (f fleet) tell(b *testing.B, what, grant string, since time.Time, there bool) {
	b.Helper()
	var all []time.Duration
	for _, m := range f {
		within(b, patience, what, func() bool {
			at, ok := m.has(grant)
			if ok == there {
				all = append(all, at.Sub(since))
			}
			return ok == there
		})
	}
	slices.Sort(all)
	at := func(share float64) time.Duration { return all[int(share*float64(len(all)-1))].Round(time.Millisecond) }
	fmt.Printf("%-36s median %v  p99 %v  last %v\n", what, at(0.5), at(0.99), at(1))
}

// member is one agent: its own client, which opens what comes as a host does.
type member struct {
	client *uplink.Client
	roots  []ed25519.PublicKey
	name   string

	mu       sync.Mutex // guards what follows
	revision uint64
	ring     grant.Keyring
	grants   []string
	since    time.Time // when they came to be these
}

func (w *world) member(ctx context.Context, name string, from net.IP, token string) (*member, error) {
	code, err := invite.Parse(invite.Join, token)
	if err != nil {
		return nil, err
	}
	id, err := w.enrolFrom(ctx, from, name, code)
	if err != nil {
		return nil, err
	}
	m := &member{roots: id.Roots, name: name}
	m.client, err = uplink.New(uplink.Config{
		Server: w.a.agents, Identity: id, Host: m, Outbox: nothing{}, Appended: make(chan struct{}),
		Facts: func() uplink.Facts { return uplink.Facts{AgentVersion: "v1", Boot: "boot", Mode: "label"} },
		Now:   time.Now, Clock: clock.System{}, Renewed: func([]byte) error { return nil },
	})
	return m, err
}

// enrolFrom does what [uplink.Join] does, from an address of the caller's.
func (w *world) enrolFrom(ctx context.Context, from net.IP, name string, code invite.Code) (uplink.Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return uplink.Identity{}, err
	}
	public, receipt, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return uplink.Identity{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return uplink.Identity{}, err
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	conn, err := grpc.NewClient("passthrough:///"+w.a.agents, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})), // one server, on loopback
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", to) }))
	if err != nil {
		return uplink.Identity{}, err
	}
	r, err := wire.NewUplinkClient(conn).Enrol(ctx, &wire.EnrolRequest{Secret: code.Secret, Name: name, Csr: csr, ReceiptKey: public})
	if err := errors.Join(err, conn.Close()); err != nil {
		return uplink.Identity{}, err
	}
	return uplink.Identity{Fleet: code.Fleet, Name: name, Key: key, Certificate: r.GetCertificate(), CA: r.GetCa(), Roots: code.Roots, ReceiptKey: receipt}, nil
}

// Accept implements [uplink.Acceptor].
func (m *member) Accept(_ context.Context, keyring, set []byte) (uint64, error) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(keyring) > 0 {
		ring, err := grant.OpenKeyring(keyring, "lab", m.roots)
		if err != nil {
			return m.revision, err
		}
		m.ring = ring
	}
	o, err := grant.Reader{Fleet: "lab", Host: m.name, Ring: m.ring}.Open(set, now)
	if err = errors.Join(append(o.Refused, err)...); err != nil {
		return m.revision, err
	}
	m.revision, m.grants, m.since = o.Revision, nil, now
	for _, g := range o.Grants {
		m.grants = append(m.grants, g.ID)
	}
	return m.revision, nil
}

// Versions implements [uplink.Acceptor].
func (m *member) Versions() (revision, keyring uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision, m.ring.Version
}

// Settled implements [uplink.Acceptor].
func (m *member) Settled() bool { return true }

func (m *member) has(id string) (since time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.since, slices.Contains(m.grants, id)
}

// nothing is an outbox of a host where nothing happens.
type nothing struct{}

// Name implements [uplink.Outbox].
func (nothing) Name() string { return "empty" }

// Next implements [uplink.Outbox].
func (nothing) Next(uint64, int) (uint64, [][]byte, error) { return 0, nil, nil }

// Kept implements [uplink.Outbox].
func (nothing) Kept(uint64, bool) error { return nil }
