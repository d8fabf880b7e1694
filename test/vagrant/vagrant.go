// Package vagrant does what the Vagrantfile asks for, on machines that are no
// virtual machines of Vagrant's.
//
// It makes no machine. It is for tests alone.
package vagrant

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"curfew.internal/test/lab"
)

// vagrant stands in for Vagrant: it says which machine the Vagrantfile wants
// provisioned by what.
//
//go:embed vagrant.rb
var vagrant string

// A Machine runs scripts as root.
type Machine interface {
	Sh(ctx context.Context, script string) (string, error)
	Feed(ctx context.Context, input, script string) (string, error)
}

type step struct {
	Machine, Path, Inline string
	Args                  []string
}

// Up provisions machines that have the packages in /vagrant/dist, in the order
// of the Vagrantfile, and waits until the hosts are connected. Each is
// provisioned twice, as by `vagrant provision`: nothing that is there is lost.
func Up(ctx context.Context, repo string, make func(name string) (m Machine, address string, err error)) error {
	cmd := exec.CommandContext(ctx, "ruby", "-w", "-e", vagrant)
	cmd.Dir = repo
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("read the Vagrantfile: %w: %s", err, out)
	}
	var steps []step
	if err := json.Unmarshal(out, &steps); err != nil {
		return fmt.Errorf("read the Vagrantfile: %w: %s", err, out)
	}
	machines, plane := map[string]Machine{}, ""
	for _, name := range []string{"plane", "db1", "web1"} {
		m, address, err := make(name)
		if err != nil {
			return err
		}
		machines[name] = m
		if name == "plane" {
			plane = address
		} else if err := shared(ctx, machines["plane"], m, name); err != nil {
			return err
		}
		if _, err := m.Sh(ctx, "echo "+plane+" curfew.example >>/etc/hosts"); err != nil {
			return err
		}
		for range 2 {
			if err := provision(ctx, repo, name, m, steps); err != nil {
				return fmt.Errorf("provision %s: %w", name, err)
			}
		}
	}
	if _, err := machines["plane"].Sh(ctx, "test -s /vagrant/.vagrant/tokens/cleo && curfew version && systemctl is-active curfew-server"); err != nil {
		return err
	}
	for _, name := range []string{"db1", "web1"} {
		if err := lab.Until(ctx, name+"'s uplink", func() error {
			_, err := machines[name].Sh(ctx, "curfew-agent status | grep 'connected to' && test -e /vagrant/.vagrant/tokens/"+name+".used")
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// shared brings a host's token to it: machines of Vagrant's share a folder.
func shared(ctx context.Context, plane, m Machine, name string) error {
	const tokens = "/vagrant/.vagrant/tokens"
	token, err := plane.Sh(ctx, "cat "+tokens+"/"+name)
	if err != nil {
		return err
	}
	_, err = m.Feed(ctx, token, "umask 077 && mkdir -p "+tokens+" && cat >"+tokens+"/"+name)
	return err
}

func provision(ctx context.Context, repo, name string, m Machine, steps []step) error {
	for _, s := range steps {
		if s.Machine != "" && s.Machine != name {
			continue
		}
		script, args := s.Inline, ""
		if s.Path != "" {
			b, err := os.ReadFile(filepath.Join(repo, s.Path))
			if err != nil {
				return err
			}
			script, args = string(b), " '"+strings.Join(s.Args, "' '")+"'"
		}
		if out, err := m.Feed(ctx, script, "cat >/tmp/provision && chmod +x /tmp/provision && /tmp/provision"+args+" 2>&1"); err != nil {
			return errors.Join(err, errors.New(out))
		}
	}
	return nil
}
