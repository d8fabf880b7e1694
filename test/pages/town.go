package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/sync/errgroup"

	"curfew.internal/clock"
	"curfew.internal/controlplane"
	"curfew.internal/test/port"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
	"curfew.internal/wire/invite"
	"curfew.internal/wire/signature"
)

// A town is a control plane that runs here, with hosts and people that are
// played.
type town struct {
	dir    string
	origin string
	config controlplane.Config
	work   *errgroup.Group
	stop   context.CancelFunc
	ada    apiconnect.CurfewClient // the admin's command line
	secret string                  // of her codes
	hosts  map[string]*host
}

const rules = `labels:
  tier: [db, web]
groups:
  dba: [ben, cleo]
roles:
  db-admin:
    description: Restart the database and free its disk
    hosts: {tier: db}
    commands:
      - /usr/bin/systemctl restart postgresql
      - /usr/local/sbin/free-disk
    max_duration: 4h
    approval: {by: [group:dba], count: 1}
    delegation: {up_to: 14d, to: [ida, ivo]}
  db-root:
    description: Everything on a database host, for what nobody foresaw
    hosts: {tier: db}
    any_command: true
    max_duration: 30m
    ticket: required
    approval: {by: [group:dba, dan], count: 2}
  web-deploy:
    description: Put a new version of the shop in place
    hosts: {tier: web}
    commands: [/usr/local/sbin/deploy-shop]
    network: ["tcp://10.20.0.0/16:443"]
    max_duration: 1h
    drain: 5m
    approval: {by: [ben, dan], count: 1}
eligible:
  - {role: db-admin, people: [ana, ben, dan]}
  - {role: db-root, people: [ana]}
  - {role: web-deploy, people: [ana, cleo]}
`

// settle makes a town in a folder and starts it, with its configuration
// altered. The pages are at localhost, since passkeys are not bound to
// addresses.
func settle(ctx context.Context, dir, listen string, log io.Writer, alter ...func(*controlplane.Config)) (*town, error) {
	t := &town{dir: dir, hosts: map[string]*host{}}
	if err := os.MkdirAll(filepath.Join(dir, "policy"), 0o750); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "policy", "roles.yaml"), []byte(rules), 0o600); err != nil {
		return nil, err
	}
	var free [4]string
	for i := range free {
		var err error
		if free[i], err = port.Free(ctx); err != nil {
			return nil, err
		}
	}
	if listen == "" {
		listen = free[3]
	}
	_, number, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, err
	}
	t.origin = "https://localhost:" + number
	plan := controlplane.Plan{
		Config: controlplane.Config{
			Fleet: "harbour", URL: "https://" + free[0], AgentsURL: "https://" + free[1], Listen: free[0], Agents: free[1], Ops: free[2],
			DataDir: filepath.Join(dir, "data"), PolicyDir: filepath.Join(dir, "policy"), TerminalQuota: 1 << 30, Web: &controlplane.Web{Origin: t.origin, Listen: listen},
		},
		ConfigFile: filepath.Join(dir, "server.yaml"), RootKey: filepath.Join(dir, "root.key"), Admin: "ada", FullName: "Ada Lund",
	}
	for _, f := range alter {
		f(&plan.Config)
	}
	made, err := controlplane.Init(ctx, plan, clock.System{})
	if err != nil {
		return nil, err
	}
	t.config = plan.Config
	server, err := controlplane.Open(ctx, t.config, controlplane.Options{Clock: clock.System{}, Log: slog.New(slog.NewTextHandler(log, nil)), Version: "demo"})
	if err != nil {
		return nil, err
	}
	ctx, t.stop = context.WithCancel(ctx)
	t.work, ctx = errgroup.WithContext(ctx)
	t.work.Go(func() error { return server.Run(ctx, nil) })
	t.ada, t.secret, err = enrol(ctx, "ada", made.Code.Text)
	return t, err
}

// leave stops all that runs.
func (t *town) leave() error {
	t.stop()
	if err := t.work.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// client trusts the server that the code pins.
func client(code invite.Code, sign func(http.RoundTripper) http.RoundTripper) apiconnect.CurfewClient {
	base := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // verified below, by the pin
		VerifyConnection: func(s tls.ConnectionState) error {
			for _, c := range s.PeerCertificates {
				if sum := sha256.Sum256(c.Raw); string(sum[:]) == string(code.CA) {
					return nil
				}
			}
			return errors.New("not the server of the code")
		},
	}}
	return apiconnect.NewCurfewClient(&http.Client{Transport: sign(base)}, code.URL)
}

// enrol signs a command line up, and shows the secret of its codes.
func enrol(ctx context.Context, name, text string) (apiconnect.CurfewClient, string, error) {
	code, err := invite.Parse(invite.Person, text)
	if err != nil {
		return nil, "", err
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	anybody := client(code, func(r http.RoundTripper) http.RoundTripper { return r })
	e, err := anybody.Enroll(ctx, &api.EnrollRequest{Secret: code.Secret, DeviceKey: public})
	if err != nil {
		return nil, "", err
	}
	u, err := url.Parse(e.OtpauthUri)
	if err != nil {
		return nil, "", err
	}
	secret := u.Query().Get("secret")
	otp, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		return nil, "", err
	}
	s, err := anybody.ConfirmEnroll(ctx, &api.ConfirmEnrollRequest{Secret: code.Secret, DeviceKey: public, Code: otp, DeviceName: "laptop of " + name})
	if err != nil {
		return nil, "", err
	}
	return client(code, func(r http.RoundTripper) http.RoundTripper {
		return signature.Transport{Base: r, Session: s.Session, Key: key, Now: time.Now}
	}), secret, nil
}

// add adds somebody, who is not enrolled yet.
func (t *town) add(ctx context.Context, name, full string, admin bool) (*api.InviteReply, error) {
	return t.ada.AddPerson(ctx, &api.AddPersonRequest{Name: name, FullName: full, Admin: admin})
}

// pin is the hash of the key that the pages' certificate is for, by which a
// browser can be told to trust it.
func (t *town) pin(ctx context.Context) (string, error) {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // it is asked for its key, and told nothing
	var pin string
	err := within(ctx, "the pages", func() (bool, error) {
		c, err := d.DialContext(ctx, "tcp", t.config.Web.Listen)
		if err != nil {
			return false, nil //nolint:nilerr // not up yet
		}
		defer c.Close() //nolint:errcheck // it was only read from
		leaf := c.(*tls.Conn).ConnectionState().PeerCertificates[0]
		spki, err := x509.MarshalPKIXPublicKey(leaf.PublicKey)
		sum := sha256.Sum256(spki)
		pin = base64.StdEncoding.EncodeToString(sum[:])
		return true, err
	})
	return pin, err
}

// patience is enough for a machine that has other work as well.
const patience = 3 * time.Minute

// within waits until something is so.
func within(ctx context.Context, what string, so func() (bool, error)) error {
	for began := time.Now(); time.Since(began) < patience; {
		if ok, err := so(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s: not within %v", what, patience)
}
