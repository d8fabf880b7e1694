package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"
)

// Config is agent.yaml, in the folder of the identity.
type Config struct {
	// Server is where the control plane hears hosts, HOST:PORT. The join
	// code brings it.
	Server string `yaml:"server"`
	// Addresses are where people reach this host's sshd, HOST or HOST:PORT.
	// Optional; the host's name.
	Addresses []string `yaml:"addresses,omitempty"`
	// Resync is the longest time between two looks at the host. Optional; 30s.
	Resync time.Duration `yaml:"resync,omitempty"`
	// Retry is the longest time to the next look after one that left work
	// undone. Optional; 1s.
	Retry time.Duration `yaml:"retry,omitempty"`
	// Quota bounds what waits on disk to be sent, in bytes. Optional; 1 GiB.
	Quota int64 `yaml:"quota,omitempty"`
	// TerminalQuota bounds what recordings of terminals take on disk until
	// the control plane has them, in bytes. Optional; 1 GiB.
	TerminalQuota int64 `yaml:"terminal_quota,omitempty"`
}

const configName = "agent.yaml"

// ReadConfig reads the agent's configuration from its folder and reports all
// that is wrong in it.
func ReadConfig(dir string) (Config, error) {
	file := filepath.Join(dir, configName)
	b, err := os.ReadFile(file) //nolint:gosec // the administrator's own folder
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	var c Config
	if err := yaml.UnmarshalWithOptions(b, &c, yaml.Strict()); err != nil {
		return Config{}, fmt.Errorf("%s: %w", file, err)
	}
	c.fill()
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

func (c *Config) fill() {
	if c.Resync == 0 {
		c.Resync = 30 * time.Second
	}
	if c.Retry == 0 {
		c.Retry = time.Second
	}
}

func (c *Config) check() error {
	var errs []error
	if _, _, err := net.SplitHostPort(c.Server); err != nil {
		errs = append(errs, fmt.Errorf("server: write HOST:PORT: %w", err))
	}
	if c.Resync < time.Second || c.Resync > time.Hour {
		errs = append(errs, errors.New("resync: write 1s to 1h"))
	}
	if c.Retry < 100*time.Millisecond || c.Retry > time.Minute {
		errs = append(errs, errors.New("retry: write 100ms to 1m"))
	}
	if c.TerminalQuota < 0 {
		errs = append(errs, errors.New("terminal_quota: write a number of bytes"))
	}
	if c.Quota < 0 {
		errs = append(errs, errors.New("quota: write a number of bytes"))
	}
	return errors.Join(errs...)
}
