// Package pair tries two control planes on one PostgreSQL database: real
// servers, killed without a word, and the agent's own end of the uplink.
package pair

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"curfew.internal/dsse"
	"curfew.internal/test/port"
	"curfew.internal/test/postgres"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
	"curfew.internal/wire/invite"
	"curfew.internal/wire/signature"
)

const policy = `labels:
  tier: [db]
groups:
  askers: [%s]
  second: [%s]
roles:
  db:
    hosts: {tier: db}
    commands: [/usr/bin/true]
    max_duration: 1h
    reason: optional
    approval: {by: ["group:second"], count: 1}
    freshness: 10m
eligible:
  - {role: db, groups: [askers]}
`

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for what other programs are to bring about.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	within(t, 2*time.Minute, what, so)
}

func within(t testing.TB, most time.Duration, what string, so func() bool) {
	t.Helper()
	limit := time.After(most)
	for !so() {
		select {
		case <-limit:
			t.Fatalf("in %v: not %s", most, what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// world is a fleet with two servers, a and b.
type world struct {
	dir  string
	db   *postgres.Server
	name string // of the database
	pin  []byte // of the CA that both servers have
	a, b *plane
	ada  *human
}

// plane is one server.
type plane struct {
	config              string
	people, agents, ops string
	cmd                 *exec.Cmd
	log                 *os.File
	in                  func(name string, args ...string) *exec.Cmd // where it runs
}

func program(t testing.TB, name string) string {
	t.Helper()
	file, err := filepath.Abs(filepath.Join("../../bin", name))
	must(t, err)
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	return file
}

func freePort(t testing.TB) string {
	t.Helper()
	address, err := port.Free(t.Context())
	must(t, err)
	return address
}

// newWorld makes a fleet on PostgreSQL, its first server by init and the other
// from the first one's keys. The groups are who asks and who approves.
func newWorld(t testing.TB, askers, second []string) *world {
	t.Helper()
	ctx := t.Context()
	w := &world{dir: t.TempDir()}
	var err error
	w.db, err = postgres.Start(ctx)
	must(t, err)
	t.Cleanup(func() { must(t, w.db.Stop()) })
	w.name, err = w.db.Database(ctx, "")
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(w.dir, "policy"), 0o700))
	text := fmt.Sprintf(policy, strings.Join(askers, ", "), strings.Join(second, ", "))
	must(t, os.WriteFile(filepath.Join(w.dir, "policy", "policy.yaml"), []byte(text), 0o600))
	w.a, w.b = w.plane(t, "a"), w.plane(t, "b")
	out, err := exec.CommandContext(ctx, program(t, "curfew-server"), "init", "--config", w.a.config, "--fleet", "lab", "--url", "https://"+w.a.people,
		"--admin", "ada", "--data-dir", filepath.Join(w.dir, "a"), "--policy-dir", filepath.Join(w.dir, "policy"), "--root-key", filepath.Join(w.dir, "root.key"),
		"--store", w.db.URL(w.name), "--listen", w.a.people, "--agents", w.a.agents, "--ops", w.a.ops).Output()
	must(t, err)
	// As docs/postgresql.md says: the keys, and the configuration with its own
	// addresses.
	must(t, os.CopyFS(filepath.Join(w.dir, "b", "keys"), os.DirFS(filepath.Join(w.dir, "a", "keys"))))
	config, err := os.ReadFile(w.a.config)
	must(t, err)
	config = []byte(strings.NewReplacer(
		"listen: "+w.a.people, "listen: "+w.b.people, "agents: "+w.a.agents, "agents: "+w.b.agents, "ops: "+w.a.ops, "ops: "+w.b.ops,
		filepath.Join(w.dir, "a"), filepath.Join(w.dir, "b")).Replace(string(config)))
	must(t, os.WriteFile(w.b.config, config, 0o600))
	w.start(t, w.a)
	w.start(t, w.b)
	code, err := invite.Parse(invite.Person, strings.TrimSpace(string(out)))
	must(t, err)
	w.pin = code.CA
	w.ada = w.enrol(t, w.a, "ada", code)
	return w
}

func (w *world) plane(t testing.TB, name string) *plane {
	t.Helper()
	log, err := os.Create(filepath.Join(w.dir, name+".log"))
	must(t, err)
	p := &plane{config: filepath.Join(w.dir, name+".yaml"), people: freePort(t), agents: freePort(t), ops: freePort(t), log: log, in: exec.Command}
	t.Cleanup(func() {
		p.kill()
		if b, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("server %s:\n%s", name, b)
		}
		_ = log.Close()
	})
	return p
}

func (w *world) start(t testing.TB, p *plane) {
	t.Helper()
	p.cmd = p.in(program(t, "curfew-server"), "serve", "--config", p.config)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	must(t, p.cmd.Start())
	until(t, "the server is ready", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.ops+"/readyz", nil)
		must(t, err)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// kill ends the server without a word.
func (p *plane) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait() // killed: that is what we wanted
		p.cmd = nil
	}
}

// human is somebody with a computer and a second factor.
type human struct {
	name    string
	session *api.SessionReply
	key     ed25519.PrivateKey
	secret  string
	step    int64 // the last of which a code was used
	a, b    apiconnect.CurfewClient
}

// code is the person's next code. A code is good once: it waits until there is
// one that was not used.
func (h *human) code(t testing.TB) string {
	t.Helper()
	for {
		now := time.Now().Unix() / 30
		if next := max(h.step+1, now); next <= now+1 {
			h.step = next
			code, err := totp.GenerateCode(h.secret, time.Unix(next*30, 0))
			must(t, err)
			return code
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// add adds somebody and enrols her at the server.
func (w *world) add(t testing.TB, at *plane, name string) *human {
	t.Helper()
	code := ""
	if w.ada.step == 0 {
		code = w.ada.code(t)
	}
	added, err := w.ada.at(w, at).AddPerson(t.Context(), &api.AddPersonRequest{Name: name, Code: code})
	must(t, err)
	parsed, err := invite.Parse(invite.Person, added.Invite)
	must(t, err)
	return w.enrol(t, at, name, parsed)
}

func (h *human) at(w *world, p *plane) apiconnect.CurfewClient {
	if p == w.a {
		return h.a
	}
	return h.b
}

func (w *world) enrol(t testing.TB, at *plane, name string, code invite.Code) *human {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	h := &human{name: name, key: key}
	c := w.client(t, at, h)
	e, err := c.Enroll(t.Context(), &api.EnrollRequest{Secret: code.Secret, DeviceKey: public})
	must(t, err)
	u, err := url.Parse(e.OtpauthUri)
	must(t, err)
	h.secret = u.Query().Get("secret")
	h.session, err = c.ConfirmEnroll(t.Context(), &api.ConfirmEnrollRequest{Secret: code.Secret, DeviceKey: public, Code: h.code(t)})
	must(t, err)
	h.a, h.b = w.client(t, w.a, h), w.client(t, w.b, h)
	return h
}

// signIn opens a new session of the person's.
func (w *world) signIn(t testing.TB, at *plane, h *human) {
	t.Helper()
	now := time.Now().Unix()
	words := "lab\x00" + h.name + "\x00" + strconv.FormatInt(now, 10)
	public, _ := h.key.Public().(ed25519.PublicKey)
	h.session = nil
	var err error
	h.session, err = w.client(t, at, h).Login(t.Context(), &api.LoginRequest{
		Person: h.name, DeviceKey: public, At: now, Code: h.code(t), Signature: ed25519.Sign(h.key, dsse.PAE("application/vnd.curfew.login.v1", []byte(words))),
	})
	must(t, err)
	h.a, h.b = w.client(t, w.a, h), w.client(t, w.b, h)
}

// client trusts the CA that codes pin, as the command line does.
func (w *world) client(t testing.TB, at *plane, h *human) apiconnect.CurfewClient {
	t.Helper()
	base := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // verified below, by the pin
		VerifyConnection: func(s tls.ConnectionState) error {
			for _, ca := range s.PeerCertificates {
				if sum := sha256.Sum256(ca.Raw); w.pin != nil && !bytes.Equal(sum[:], w.pin) {
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
	if h.session != nil {
		rt = signature.Transport{Base: base, Session: h.session.Session, Key: h.key, Now: time.Now}
	}
	return apiconnect.NewCurfewClient(&http.Client{Transport: rt}, "https://"+at.people)
}

// run runs curfew on the person's computer, against the first server.
func (w *world) run(t testing.TB, h *human, args ...string) string {
	t.Helper()
	home := filepath.Join(w.dir, "home-"+h.name)
	must(t, os.MkdirAll(home, 0o700))
	session, err := json.Marshal(map[string]any{
		"url": "https://" + w.a.people, "ca": w.pin, "fleet": "lab", "person": h.name, "session": h.session.Session, "expires": h.session.Expires.AsTime(),
	})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(home, "session.json"), session, 0o600))
	must(t, os.WriteFile(filepath.Join(home, "device.key"), h.key.Seed(), 0o600))
	cmd := exec.CommandContext(t.Context(), program(t, "curfew"), args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "CURFEW_HOME=" + home, "HOME=" + home, "LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("curfew %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
