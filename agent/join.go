package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/goccy/go-yaml"
	"github.com/google/renameio/v2"

	"curfew.internal/agent/host"
	"curfew.internal/agent/keep"
	"curfew.internal/agent/uplink"
	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/wire/invite"
)

// A Newcomer is a host that wants to join.
type Newcomer struct {
	Token     string
	Name      string
	Addresses []string
	Labels    map[string]string
}

// Join makes this host a part of the fleet that the token is of. What a host
// kept for a fleet that it was in before counts no more.
func Join(ctx context.Context, f Folders, n Newcomer) (fleet string, err error) {
	code, err := invite.Parse(invite.Join, n.Token)
	if err != nil {
		return "", err
	}
	if err := grant.CheckHost(n.Name); err != nil {
		return "", fmt.Errorf("%w: choose one with --name", err)
	}
	h := &host.Host{Root: "/"}
	keys, err := h.SSHHostKeys()
	if err != nil {
		return "", err
	}
	server, err := uplink.Server(code.URL)
	if err != nil {
		return "", err
	}
	id, err := uplink.Join(ctx, clock.System{}, code, uplink.Newcomer{
		Name: n.Name, Labels: n.Labels, Addresses: n.Addresses, SSHHostKeys: keys,
	})
	if err != nil {
		return "", err
	}
	if err := keep.SaveIdentity(f.Config, keep.Identity(id)); err != nil {
		return "", err
	}
	b, err := yaml.Marshal(Config{Server: server, Addresses: n.Addresses})
	if err != nil {
		return "", err
	}
	head := []byte("# Made by `curfew-agent join`; `curfew-agent status` shows what came of it.\n")
	err = renameio.WriteFile(filepath.Join(f.Config, configName), append(head, b...), 0o644)
	return id.Fleet, errors.Join(err, keep.Reset(f.State))
}

// Access is what `curfew-agent install` is to change of who may use sudo and
// su without a grant. What it does not name stays as it is.
type Access struct {
	Enforce, Observe bool
	Breakglass       string
}

// Install wires PAM, sudo and sshd of this host. At first it only observes.
func Install(ctx context.Context, to Access) error {
	h := &host.Host{Root: "/"}
	w, _, err := h.Wiring()
	if err != nil && to.Enforce == to.Observe {
		return err
	}
	w.Enforce = (w.Enforce || to.Enforce) && !to.Observe
	w.Breakglass = cmp.Or(to.Breakglass, w.Breakglass)
	return h.Install(ctx, w)
}

// Uninstall takes the wiring out again.
func Uninstall(ctx context.Context) error { return (&host.Host{Root: "/"}).Uninstall(ctx) }
