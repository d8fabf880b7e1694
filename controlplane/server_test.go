package controlplane

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/pquerna/otp/totp"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/test/port"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
	"curfew.internal/wire/invite"
	"curfew.internal/wire/signature"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for what another goroutine is to bring about.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for !so() {
		select {
		case <-limit:
			t.Fatalf("in 2 min: not %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// logBook is a log that can be read while it is written.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// town is a fleet that was made just now, and its server, once it runs.
type town struct {
	plan   Plan
	code   string // of ada, the first admin
	also   func(*Config)
	log    logBook
	server *Server
	reload chan struct{}
	done   chan error
	cancel context.CancelFunc
}

func freePort(t testing.TB) string {
	t.Helper()
	address, err := port.Free(t.Context())
	must(t, err)
	return address
}

func newTown(t testing.TB) *town {
	t.Helper()
	dir := t.TempDir()
	people := freePort(t)
	w := &town{plan: Plan{
		Config: Config{
			Fleet: "lab", URL: "https://" + people, Listen: people, Agents: "127.0.0.1:0", AgentsURL: "https://127.0.0.1:7444", Ops: "127.0.0.1:0",
			DataDir: filepath.Join(dir, "data"), PolicyDir: filepath.Join(dir, "policy"),
		},
		ConfigFile: filepath.Join(dir, "server.yaml"), RootKey: filepath.Join(dir, "root.key"), Admin: "ada",
	}}
	made, err := Init(t.Context(), w.plan, clock.System{})
	must(t, err)
	w.code = made.Code.Text
	return w
}

func (w *town) start(t testing.TB) {
	t.Helper()
	c, err := ReadConfig(w.plan.ConfigFile)
	must(t, err)
	if w.also != nil {
		w.also(&c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.server, err = Open(ctx, c, Options{Clock: clock.System{}, Log: slog.New(slog.NewTextHandler(&w.log, nil)), Version: "test"})
	must(t, err)
	done := make(chan error, 1)
	w.reload, w.done, w.cancel = make(chan struct{}), done, cancel
	go func() {
		defer close(done)
		done <- w.server.Run(ctx, w.reload)
	}()
	t.Cleanup(func() { // what it writes at its end is in the test's folder
		cancel()
		for range done {
		}
	})
}

func (w *town) stop(t *testing.T) {
	t.Helper()
	w.cancel()
	select {
	case err := <-w.done:
		must(t, err)
	case <-time.After(2 * time.Minute):
		t.Fatal("the server does not stop")
	}
}

// client trusts the CA that the code pins, as the command line does.
func (w *town) client(t *testing.T, code invite.Code, session string, key ed25519.PrivateKey) apiconnect.CurfewClient {
	t.Helper()
	base := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // verified below, by the pin
		VerifyConnection: func(s tls.ConnectionState) error {
			for _, ca := range s.PeerCertificates {
				if sum := sha256.Sum256(ca.Raw); !bytes.Equal(sum[:], code.CA) {
					continue
				}
				pool := x509.NewCertPool()
				pool.AddCert(ca)
				_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: s.ServerName})
				return err
			}
			return errors.New("not the CA of the code")
		},
	}}
	t.Cleanup(base.CloseIdleConnections)
	var rt http.RoundTripper = base
	if session != "" {
		rt = signature.Transport{Base: base, Session: session, Key: key, Now: time.Now}
	}
	return apiconnect.NewCurfewClient(&http.Client{Transport: rt}, code.URL)
}

// enrol signs ada in.
func (w *town) enrol(t *testing.T) apiconnect.CurfewClient {
	t.Helper()
	code, err := invite.Parse(invite.Person, w.code)
	must(t, err)
	public, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	c := w.client(t, code, "", nil)
	e, err := c.Enroll(t.Context(), &api.EnrollRequest{Secret: code.Secret, DeviceKey: public})
	must(t, err)
	u, err := url.Parse(e.OtpauthUri)
	must(t, err)
	otp, err := totp.GenerateCode(u.Query().Get("secret"), time.Now())
	must(t, err)
	s, err := c.ConfirmEnroll(t.Context(), &api.ConfirmEnrollRequest{Secret: code.Secret, DeviceKey: public, Code: otp})
	must(t, err)
	return w.client(t, code, s.Session, key)
}

func (w *town) get(t *testing.T, path string) (int, string) {
	t.Helper()
	_, _, ops := w.server.Addresses()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ops+path, nil)
	must(t, err)
	res, err := http.DefaultClient.Do(r)
	must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, string(b)
}

func TestServer(t *testing.T) {
	w := newTown(t)
	w.start(t)
	ada := w.enrol(t)
	who, err := ada.Whoami(t.Context(), &api.WhoamiRequest{})
	if err != nil || !who.Person.Admin || who.Fleet != "lab" {
		t.Fatalf("%v, %v", who, err)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := w.get(t, path); status != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if _, body := w.get(t, "/metrics"); !strings.Contains(body, "curfew_scrape_ok 1\n") || !strings.Contains(body, `curfew_hosts{connected="no"} 0`) {
		t.Error(body)
	}
	join, err := ada.CreateJoinToken(t.Context(), &api.CreateJoinTokenRequest{Labels: map[string]string{"tier": "db"}})
	must(t, err)
	code, err := invite.Parse(invite.Join, join.Token)
	if err != nil || code.URL != "https://127.0.0.1:7444" || len(code.Roots) != 1 || !bytes.Equal(code.CA, w.server.ca.Hash()) {
		t.Errorf("%+v, %v", code, err)
	}

	// A stream does not hold the server up.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tail, err := ada.TailEvents(ctx, &api.SearchEventsRequest{})
	must(t, err)
	defer tail.Close()
	_ = tail.ResponseHeader()
	w.stop(t)
	if tail.Receive() || connect.CodeOf(tail.Err()) != connect.CodeUnavailable {
		t.Errorf("the stream ended with %v", tail.Err())
	}
	for _, secret := range []string{w.code, code.Secret} {
		if strings.Contains(w.log.String(), secret) {
			t.Error("the log holds a secret")
		}
	}

	// What was made is there after a start.
	w.start(t)
	if who, err := ada.Whoami(t.Context(), &api.WhoamiRequest{}); err != nil || who.Person.Name != "ada" {
		t.Errorf("after a start: %v, %v", who, err)
	}
	w.stop(t)
}

func TestPolicyFolder(t *testing.T) {
	w := newTown(t)
	w.start(t)
	first := w.server.rules.State()
	if first.Version == "" || len(first.Problems) != 0 {
		t.Fatalf("%+v", first)
	}
	if !slices.ContainsFunc(first.Warnings, func(s string) bool {
		return strings.Contains(s, "groups.sre: not known to the fleet, or disabled: ana, ben")
	}) {
		t.Errorf("nobody but ada is known: %v", first.Warnings)
	}
	write := func(name, text string) {
		must(t, os.WriteFile(filepath.Join(w.plan.Config.PolicyDir, name), []byte(text), 0o600))
	}
	write("more.yaml", "labels: {env: [prod, test]}\nnonsense: 1\n")
	until(t, "the mistake is seen", func() bool { return len(w.server.rules.State().Problems) == 1 })
	s := w.server.rules.State()
	if s.Version != first.Version || !strings.Contains(s.Problems[0], "more.yaml:2:1: nonsense") {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(w.log.String(), "policy folder not taken") {
		t.Error("the log does not say so")
	}
	if _, body := w.get(t, "/metrics"); !strings.Contains(body, "curfew_policy_problems 1\n") {
		t.Error("the figures do not say so")
	}
	if status, _ := w.get(t, "/readyz"); status != http.StatusOK {
		t.Error("a server whose earlier policy stands is ready")
	}
	write("more.yaml", "labels: {env: [prod, test]}\n")
	until(t, "it is put right", func() bool { s := w.server.rules.State(); return len(s.Problems) == 0 && s.Version != first.Version })
	must(t, os.RemoveAll(w.plan.Config.PolicyDir))
	w.reload <- struct{}{}
	until(t, "the folder is missed", func() bool { return len(w.server.rules.State().Problems) == 1 })
	if w.server.rules.State().Version == "" {
		t.Error("no policy is in force any more")
	}
	w.stop(t)
	w.start(t)
	if status, body := w.get(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "no policy") {
		t.Errorf("started without a policy: %d %s", status, body)
	}
	_, err := w.server.rules.Judge(roster.Question{Person: "ada", Role: "db-restart"}, nil, time.Now())
	if !errors.Is(err, errNoPolicy) {
		t.Errorf("judged without a policy: %v", err)
	}
	w.stop(t)
}

func TestRotationWhileTheServerRuns(t *testing.T) {
	w := newTown(t)
	w.start(t)
	ctx := t.Context()
	k := roster.JoinToken{Hash: [32]byte{1}, Expires: time.Now().Add(time.Hour)}
	must(t, w.server.store.PutJoinToken(ctx, k, time.Now()))
	_, err := w.server.store.UseJoinToken(ctx, k.Hash, roster.Host{Name: "db1", ReceiptKey: make([]byte, 32), Identity: "i"}, time.Now())
	must(t, err)
	before, err := w.server.store.State(ctx, "db1")
	must(t, err)
	v, err := RotateKey(ctx, w.plan.Config, clock.System{}, w.plan.RootKey)
	if err != nil || v != 2 {
		t.Fatal(v, err)
	}
	until(t, "the new key is in use", func() bool { return w.server.keys.Load().Keyring().Version == 2 })
	after, err := w.server.store.State(ctx, "db1")
	must(t, err)
	if after.Revision != before.Revision+1 || bytes.Equal(after.Keyring, before.Keyring) {
		t.Errorf("revision %d after %d", after.Revision, before.Revision)
	}
	w.stop(t)
}

func TestInitWritesOverNothing(t *testing.T) {
	w := newTown(t)
	root, err := os.ReadFile(w.plan.RootKey)
	must(t, err)
	if _, err := Init(t.Context(), w.plan, clock.System{}); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("second init: %v", err)
	}
	if again, err := os.ReadFile(w.plan.RootKey); err != nil || !bytes.Equal(root, again) {
		t.Error("the root key is another")
	}
	for _, f := range []string{w.plan.RootKey, w.plan.Config.secrets(), filepath.Join(w.plan.Config.keys(), "ssh_ca.key")} {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
	if info, err := os.Stat(w.plan.Config.DataDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data folder: %v, %v", info, err)
	}
	_, err = Invite(t.Context(), w.plan.Config, clock.System{}, "nobody")
	if !errors.Is(err, roster.ErrUnknown) {
		t.Errorf("invite nobody: %v", err)
	}
	empty := w.plan.Config
	empty.DataDir = t.TempDir()
	if _, err := Open(t.Context(), empty, Options{Clock: clock.System{}, Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrNotInit) {
		t.Errorf("no fleet: %v", err)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // empty: it is right
	}{
		{"least", "fleet: lab\nurl: https://cp:7443\ndata_dir: /a\npolicy_dir: /b\n", nil},
		{"unknown key", "fleet: lab\nurl: https://cp:7443\ndata_dir: /a\npolicy_dir: /b\nlisten_on: x\n", []string{"listen_on", "[5:1]"}},
		{"all mistakes at once", "fleet: Lab\nurl: http://cp\ndata_dir: a\npolicy_dir: /b\nops: x\ntls_cert: /c\n", []string{"fleet", "url:", "data_dir", "ops:", "tls_cert"}},
		{"no YAML", "fleet: [", []string{"[1:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "server.yaml")
			must(t, os.WriteFile(file, []byte(c.text), 0o600))
			got, err := ReadConfig(file)
			if len(c.want) == 0 {
				must(t, err)
				if got.Listen != ":7443" || got.AgentsURL != "https://cp:7444" {
					t.Errorf("%+v", got)
				}
				return
			}
			for _, w := range c.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%v does not say %q", err, w)
				}
			}
		})
	}
}

func TestSharesOfAnAddress(t *testing.T) {
	s := newShares(clock.System{})
	for range shareBurst {
		if !s.take("192.0.2.1:1000") {
			t.Fatal("refused too soon")
		}
	}
	if s.take("192.0.2.1:2000") || !s.take("192.0.2.2:1000") {
		t.Error("the bound is not of the address")
	}
}
