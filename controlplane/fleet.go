package controlplane

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync/atomic"

	"curfew.internal/clock"
	"curfew.internal/controlplane/fleet"
	"curfew.internal/controlplane/identity"
	"curfew.internal/controlplane/sign"
	"curfew.internal/controlplane/store"
	"curfew.internal/dsse"
)

// ErrNotInit means that there is no fleet in the data folder yet.
var ErrNotInit = errors.New("there is no fleet in the data folder: run `curfew-server init` first")

// plane is a fleet's database and its keys, opened.
type plane struct {
	config Config
	clock  clock.Clock
	store  *store.Store
	ca     *fleet.CA
	desk   *identity.Desk
	keys   atomic.Pointer[sign.Authority]
	codes  *codes
}

// open opens what [Init] made.
func open(ctx context.Context, c Config, k clock.Clock) (*plane, error) {
	p := &plane{config: c, clock: k}
	box, err := identity.LoadBox(c.secrets())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotInit, err)
	}
	if p.ca, err = fleet.OpenCA(c.keys(), c.Fleet, k); err != nil {
		return nil, err
	}
	people := p.ca.Hash()
	if c.TLSCert != "" {
		if people, err = pinned(c.TLSCert); err != nil {
			return nil, fmt.Errorf("certificate of the people's API: %w", err)
		}
	}
	if p.store, err = store.Open(ctx, c.database(), c.Fleet); err != nil {
		return nil, err
	}
	if err := p.loadKeys(ctx); err != nil {
		return nil, errors.Join(err, p.store.Close())
	}
	p.desk = &identity.Desk{Store: p.store, Clock: k, Fleet: c.Fleet, Box: box}
	if c.Web != nil {
		if p.desk.Passkeys, err = identity.NewPasskeys(c.Fleet, c.Web.Origin); err != nil {
			return nil, errors.Join(err, p.store.Close())
		}
	}
	p.codes = &codes{config: c, store: p.store, desk: p.desk, clock: k, ca: p.ca.Hash(), people: people, root: p.keys.Load().Root()}
	return p, nil
}

// pinned is the digest of the last certificate of a chain, which codes pin. The
// key is not looked at: only the running server may be able to read it.
func pinned(file string) ([]byte, error) {
	rest, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	var last []byte
	for b := new(pem.Block); b != nil; {
		if b, rest = pem.Decode(rest); b != nil && b.Type == "CERTIFICATE" {
			last = b.Bytes
		}
	}
	if last == nil {
		return nil, fmt.Errorf("%s holds none", file)
	}
	sum := sha256.Sum256(last)
	return sum[:], nil
}

// present has a server present the operator's own certificate, if there is one.
func present(t *tls.Config, cert, key string) error {
	if cert == "" {
		return nil
	}
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	t.GetCertificate = nil
	t.Certificates = append(t.Certificates, own)
	return nil
}

func (p *plane) close() error { return p.store.Close() }

// loadKeys takes the newest grant key of the keyring into use, if it is not,
// and signs what earlier ones signed anew.
func (p *plane) loadKeys(ctx context.Context) error {
	version, envelope, err := p.store.Keyring(ctx)
	if err != nil {
		return fmt.Errorf("read keyring: %w", err)
	}
	if version == 0 {
		return ErrNotInit
	}
	if a := p.keys.Load(); a != nil && a.Keyring().Version == version {
		return nil
	}
	a, err := sign.Load(p.config.keys(), p.config.Fleet, envelope)
	if err != nil {
		return err
	}
	p.store.Use(a)
	p.keys.Store(a)
	return p.store.Resign(ctx, dsse.KeyID(a.Public()), p.clock.Now().Wall)
}

// hostOf is the name or address that a URL of ours names.
func hostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "" // the configuration was checked
	}
	return u.Hostname()
}
