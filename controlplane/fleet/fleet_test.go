package fleet

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/uplink"
)

var start = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// A fixed clock is set by the test.
type fixed struct{ now time.Time }

func (f *fixed) Now() clock.Reading                   { return clock.Reading{Wall: f.now} }
func (*fixed) After(d time.Duration) <-chan time.Time { return time.After(d) }

func newCA(t *testing.T, c clock.Clock) *CA {
	t.Helper()
	ca, err := OpenCA(t.TempDir(), "acme", c)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestCAIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	c := &fixed{start}
	first, err := OpenCA(dir, "acme", c)
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenCA(dir, "acme", c)
	if err != nil || !bytes.Equal(first.Hash(), second.Hash()) {
		t.Fatalf("another CA: %v", err)
	}
	if _, err := OpenCA(dir, "other", c); err == nil {
		t.Error("another fleet takes it")
	}
	info, err := os.Stat(filepath.Join(dir, caKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", info.Mode(), err)
	}
	if err := os.Remove(filepath.Join(dir, caFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(dir, "acme", c); err == nil || !strings.Contains(err.Error(), "restore it") {
		t.Errorf("without its certificate: %v", err)
	}
}

func TestServerCertificateIsRenewed(t *testing.T) {
	c := &fixed{start}
	conf, err := newCA(t, c).Server("curfew.example", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	get := func() *x509.Certificate {
		got, err := conf.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Leaf
	}
	first := get()
	if first.VerifyHostname("curfew.example") != nil || first.VerifyHostname("127.0.0.1") != nil || first.VerifyHostname("x") == nil {
		t.Error("other names")
	}
	c.now = start.Add(19 * 24 * time.Hour)
	if get() != first {
		t.Error("renewed too early")
	}
	c.now = start.Add(21 * 24 * time.Hour)
	if again := get(); again == first || !again.NotAfter.After(first.NotAfter) {
		t.Error("not renewed")
	}
}

func TestNamed(t *testing.T) {
	ca := newCA(t, &fixed{start})
	uri := func(all ...string) *x509.Certificate {
		c := &x509.Certificate{}
		c.Subject.SerialNumber = "id"
		for _, s := range all {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = append(c.URIs, u)
		}
		return c
	}
	if name, id, err := ca.named(uri("spiffe://acme/host/db1")); name != "db1" || id != "id" || err != nil {
		t.Errorf("%q %q %v", name, id, err)
	}
	for _, s := range []string{
		"spiffe://other/host/db1", "spiffe://acme/host/", "spiffe://acme/host/db1/x", "spiffe://acme/person/db1", "https://acme/host/db1",
		"spiffe://acme/host/db1?x=1", "spiffe://acme/host/db1#x", "spiffe://u@acme/host/db1", "spiffe://acme:1/host/db1", "spiffe://acme/host/%64b1",
		"spiffe://acme/host/DB1", "spiffe://acme/host/../db1",
	} {
		if name, _, err := ca.named(uri(s)); err == nil {
			t.Errorf("%s names %s", s, name)
		}
	}
	two := uri("spiffe://acme/host/db1", "spiffe://acme/host/db2")
	dns := uri("spiffe://acme/host/db1")
	dns.DNSNames = []string{"db1"}
	nobody := uri("spiffe://acme/host/db1")
	nobody.Subject.SerialNumber = ""
	for what, c := range map[string]*x509.Certificate{"two names": two, "a DNS name": dns, "no enrolment": nobody, "none": {}} {
		if _, _, err := ca.named(c); err == nil {
			t.Errorf("certificate with %s counts", what)
		}
	}
}

// A request's own names do not count, and neither do weak keys.
func TestRequestNamesDoNotCount(t *testing.T) {
	ca := newCA(t, &fixed{start})
	evil, _ := url.Parse("spiffe://acme/host/web1")
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"curfew.example"}, URIs: []*url.URL{evil}}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	key, err := readCSR(csr)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.hostCertificate(key, "db1", "id")
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if name, _, err := ca.named(c); name != "db1" || err != nil || len(c.DNSNames) != 0 {
		t.Errorf("%q %v %v", name, c.DNSNames, err)
	}
	if got := c.NotAfter.Sub(start); got != hostLife {
		t.Errorf("lives for %v", got)
	}
	csr[len(csr)-1] ^= 1
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, csr, other} {
		if _, err := readCSR(bad); err == nil {
			t.Error("a bad request counts")
		}
	}
}

func TestWhatHostsSayIsCleaned(t *testing.T) {
	const k = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1Z5b5vD3yqXlxh4bZ0sY8uZqFv2m0c9QJw1d9bq3xk"
	if got, want := cleanKeys([]string{k + " root@db1\n" + k, "junk", "", "@cert-authority * " + k}), []string{k}; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(got, want))
	}
	got := cleanAddresses([]string{"10.0.0.1", "10.0.0.1:22", "[::1]:22", "db1.example:2222", "-oProxyCommand=x", "a b", "x\ny", "fe80::1%eth0", ""})
	if want := []string{"10.0.0.1", "10.0.0.1:22", "[::1]:22", "db1.example:2222"}; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(got, want))
	}
	if got := printable("a\x1b[31m\u202e\n" + strings.Repeat("x", 1000)); strings.ContainsAny(got, "\x1b\u202e\n") || len(got) != maxText {
		t.Errorf("%q", got)
	}
	for _, bad := range []map[string]string{{"a b": "c"}, {"a": ""}, {"": "a"}, {"a": "b\n"}, {"a": strings.Repeat("b", 64)}} {
		if checkLabels(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if err := checkLabels(map[string]string{"tier": "db", "k8s.io/role": "a_b"}); err != nil {
		t.Error(err)
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter(rate.Every(time.Second), 2)
	now := start
	for i, tt := range []struct {
		from  string
		after time.Duration
		want  bool
	}{{"a", 0, true}, {"a", 0, true}, {"a", 0, false}, {"b", 0, true}, {"a", time.Second, true}, {"a", time.Second, false}} {
		if got := l.allow(tt.from, now.Add(tt.after)); got != tt.want {
			t.Errorf("try %d: %v", i, got)
		}
	}
}

// A fake store knows its hosts, and counts.
type fake struct {
	Store
	mu    sync.Mutex
	hosts map[string]roster.Host
	state roster.State
	kept  int
}

func (f *fake) Host(_ context.Context, name string) (roster.Host, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.hosts[name]
	if !ok {
		return h, roster.ErrUnknown
	}
	return h, nil
}

func (f *fake) State(context.Context, string) (roster.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, nil
}

func (f *fake) KeepRecords(_ context.Context, _, _ string, r []roster.Record) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept += len(r)
	return uint64(f.kept), nil
}

func (*fake) Seen(context.Context, string, time.Time, roster.Host) error      { return nil }
func (*fake) Applied(context.Context, string, roster.Report, time.Time) error { return nil }

func (f *fake) put(revision uint64, size int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = roster.State{Revision: revision, Set: make([]byte, size)}
}

// A rig is a server, and raw clients of it.
type rig struct {
	*testing.T
	ca     *CA
	store  *fake
	server *Server
	addr   string
	hasty  atomic.Bool
	stop   func()
}

// A hasty clock does not wait at all while it is told so.
type hasty struct {
	clock.System
	now *atomic.Bool
}

func (h hasty) After(d time.Duration) <-chan time.Time {
	if h.now.Load() {
		d = 0
	}
	return time.After(d)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigAt(t, func(l net.Listener) net.Listener { return l })
}

// newRigAt has the server listen through what a listener is made into.
func newRigAt(t *testing.T, through func(net.Listener) net.Listener) *rig {
	t.Helper()
	r := &rig{T: t, ca: newCA(t, clock.System{})}
	r.store = &fake{hosts: map[string]roster.Host{"db1": {Name: "db1", Identity: "id"}, "web1": {Name: "web1", Identity: "id"}}}
	r.store.put(1, 10)
	r.server = New(Config{CA: r.ca, Store: r.store, Names: []string{"127.0.0.1"}, Clock: hasty{now: &r.hasty}})
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.server.Serve(ctx, through(l)); !errors.Is(err, context.Canceled) {
			t.Errorf("serve: %v", err)
		}
	}()
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(r.stop)
	return r
}

// client connects with a certificate, or without one.
func (r *rig) client(certs ...tls.Certificate) uplink.UplinkClient {
	r.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(r.ca.Certificate)
	conn, err := grpc.NewClient(r.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: certs})))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = conn.Close() })
	return uplink.NewUplinkClient(conn)
}

func (r *rig) certificate(ca *CA, name, identity string) tls.Certificate {
	r.Helper()
	key := newKey(r.T)
	der, err := ca.hostCertificate(key.Public(), name, identity)
	if err != nil {
		r.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

type up = grpc.BidiStreamingClient[uplink.Up, uplink.Down]

// connect opens a stream as the host, and says these things.
func (r *rig) connect(c uplink.UplinkClient, says ...*uplink.Up) up {
	r.Helper()
	s, err := c.Connect(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	for _, m := range says {
		if err := s.Send(m); err != nil {
			r.Fatal(err)
		}
	}
	return s
}

var (
	hello   = &uplink.Up{Says: &uplink.Up_Hello{Hello: &uplink.Hello{Outbox: "box"}}}
	records = &uplink.Up{Says: &uplink.Up_Records{Records: &uplink.Records{Records: []*uplink.Record{{Seq: 1, Entry: []byte("x")}}}}}
)

// last reads a stream to its end.
func last(s up) error {
	for {
		if _, err := s.Recv(); err != nil {
			return err
		}
	}
}

func (r *rig) wantCode(what string, err error, want codes.Code) {
	r.Helper()
	if got := status.Code(err); got != want {
		r.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestWhoMayConnect(t *testing.T) {
	r := newRig(t)
	r.wantCode("no certificate", last(r.connect(r.client())), codes.Unauthenticated)
	_, err := r.client().Renew(t.Context(), &uplink.RenewRequest{})
	r.wantCode("renewal without a certificate", err, codes.Unauthenticated)
	r.wantCode("an unknown host", last(r.connect(r.client(r.certificate(r.ca, "db9", "id")))), codes.PermissionDenied)
	r.wantCode("a former self", last(r.connect(r.client(r.certificate(r.ca, "db1", "old")))), codes.PermissionDenied)
	r.store.hosts["web1"] = roster.Host{Name: "web1", Identity: "id", Decommissioned: true}
	r.wantCode("a decommissioned host", last(r.connect(r.client(r.certificate(r.ca, "web1", "id")))), codes.PermissionDenied)
	r.store.hosts["web1"] = roster.Host{Name: "web1", Identity: "id", Decommissioned: true, LeftAt: time.Now().Add(-lastWord)}
	r.wantCode("one that had its last word", last(r.connect(r.client(r.certificate(r.ca, "web1", "id")))), codes.PermissionDenied)
	r.store.hosts["web1"] = roster.Host{Name: "web1", Identity: "id", Decommissioned: true, LeftAt: time.Now()}
	_, err = r.client(r.certificate(r.ca, "web1", "id")).Renew(t.Context(), &uplink.RenewRequest{})
	r.wantCode("a new certificate for one that has left", err, codes.PermissionDenied)
	if _, err := r.server.standing(t.Context(), "web1", "id"); err != nil {
		t.Error("its last word is not heard:", err)
	}

	ours, err := r.ca.serverCertificate([]string{"x"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]tls.Certificate{
		"a stranger's certificate": r.certificate(newCA(t, clock.System{}), "db1", "id"),
		"a server's certificate":   *ours,
	} {
		_, err := r.client(c).Renew(t.Context(), &uplink.RenewRequest{})
		r.wantCode(what, err, codes.Unavailable) // the handshake fails
	}
}

func TestStreamManners(t *testing.T) {
	r := newRig(t)
	c := r.client(r.certificate(r.ca, "db1", "id"))
	r.wantCode("records before Hello", last(r.connect(c, records)), codes.InvalidArgument)
	r.wantCode("Hello twice", last(r.connect(c, hello, hello)), codes.InvalidArgument)
	r.wantCode("an empty message", last(r.connect(c, hello, &uplink.Up{})), codes.InvalidArgument)
	r.hasty.Store(true)
	r.wantCode("silence", last(r.connect(c)), codes.InvalidArgument)
	r.hasty.Store(false)
	strange := &uplink.Up{Says: &uplink.Up_Hello{Hello: &uplink.Hello{Outbox: "a\nb"}}}
	r.wantCode("a strange outbox", last(r.connect(c, strange)), codes.InvalidArgument)
	later := &uplink.Up{Says: &uplink.Up_Hello{Hello: &uplink.Hello{Outbox: "o", Oldest: uplink.Newest + 1, Newest: uplink.Newest + 2}}}
	r.wantCode("a protocol of later", last(r.connect(c, later)), codes.FailedPrecondition)
	both := &uplink.Up{Says: &uplink.Up_Hello{Hello: &uplink.Hello{Outbox: "o", Oldest: uplink.Oldest, Newest: uplink.Newest + 2}}}
	for s := r.connect(c, both); r.next(s).GetKept().GetVersion() != uplink.Newest; {
	}

	s := r.connect(c, hello)
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	big := &uplink.Up{Says: &uplink.Up_Records{Records: &uplink.Records{Records: []*uplink.Record{{Seq: 1, Entry: make([]byte, 10<<20)}}}}}
	_ = s.Send(big) // the server's word comes on the other side
	r.wantCode("10 MB", last(s), codes.ResourceExhausted)
	if r.store.kept != 0 {
		t.Errorf("%d records are kept", r.store.kept)
	}
	s = r.connect(c, hello, records)
	for r.next(s).GetKept().GetSeq() != 1 {
	}
}

func (r *rig) next(s up) *uplink.Down {
	r.Helper()
	m, err := s.Recv()
	if err != nil {
		r.Fatal(err)
	}
	return m
}
