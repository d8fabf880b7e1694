package host

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// searchPath is where programs of the host are looked for, whatever the
// environment says.
var searchPath = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// patience bounds every program that we start.
const patience = 10 * time.Second

// run starts a program of the host with nothing of our environment, and
// returns what it printed.
func (h *Host) run(ctx context.Context, name string, args ...string) (string, error) {
	return h.feed(ctx, "", name, args...)
}

func (h *Host) feed(ctx context.Context, input, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	file, err := h.find(name)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, file, args...) //nolint:gosec // a program of the host, by a fixed name
	cmd.Env = []string{"PATH=" + strings.Join(searchPath, ":"), "LC_ALL=C"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w", name, err)
	}
	return out.String(), nil
}

func (h *Host) find(name string) (string, error) {
	for _, dir := range searchPath {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s is not on this host: install it", name)
}
