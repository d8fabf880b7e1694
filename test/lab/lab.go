package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Lab is a switch and its members: hosts, and places from which people and
// the control plane speak.
type Lab struct {
	dir     string
	prefix  string
	root    string
	members int
	hosts   []*Host
	netns   []string
	unlock  func()
}

// New makes an empty lab. Close takes it away.
func New(ctx context.Context, progress io.Writer) (*Lab, error) {
	root, err := Root(ctx, progress)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "curfew-lab-")
	if err != nil {
		return nil, err
	}
	l := &Lab{dir: dir, prefix: "cfw" + strings.ToLower(rand.Text()[:5]), root: root}
	// One lab at a time: the machine has two cores.
	if l.unlock, err = lock(filepath.Join(os.TempDir(), "curfew-lab.lock")); err != nil {
		return nil, err
	}
	sw := l.ns("sw")
	l.netns = append(l.netns, sw)
	err = errors.Join(
		ip(ctx, "netns", "add", sw),
		ip(ctx, "-n", sw, "link", "add", "br0", "type", "bridge"),
		ip(ctx, "-n", sw, "link", "set", "br0", "up"))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) ns(member string) string { return l.prefix + "-" + member }

// Dir is a folder that goes with the lab.
func (l *Lab) Dir() string { return l.dir }

// Join gives a member its place on the switch, and returns its address.
func (l *Lab) Join(ctx context.Context, member string) (string, error) {
	l.members++
	ns, port, address := l.ns(member), "p"+fmt.Sprint(l.members), fmt.Sprintf("10.77.0.%d", l.members)
	l.netns = append(l.netns, ns)
	for _, args := range [][]string{
		{"netns", "add", ns},
		{"-n", ns, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", l.ns("sw")},
		{"-n", l.ns("sw"), "link", "set", port, "master", "br0", "up"},
		{"-n", ns, "link", "set", "lo", "up"},
		{"-n", ns, "addr", "add", address + "/24", "dev", "eth0"},
		{"-n", ns, "link", "set", "eth0", "up"},
	} {
		if err := ip(ctx, args...); err != nil {
			return "", fmt.Errorf("network of %s: %w", member, err)
		}
	}
	return address, nil
}

// Cable pulls a member's cable out, or puts it in again.
func (l *Lab) Cable(ctx context.Context, member string, in bool) error {
	state := "down"
	if in {
		state = "up"
	}
	return ip(ctx, "-n", l.ns(member), "link", "set", "eth0", state)
}

// In is a program of the machine that runs in a member's network.
func (l *Lab) In(ctx context.Context, member, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", l.ns(member), name}, args...)...)
}

func ip(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, tail(out))
	}
	return nil
}

// Close takes the lab away: its hosts, its networks, its folder.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, h := range l.hosts {
		errs = append(errs, h.PowerOff(ctx))
	}
	for _, ns := range l.netns {
		if _, err := os.Stat("/run/netns/" + ns); err == nil {
			errs = append(errs, ip(ctx, "netns", "del", ns))
		}
	}
	errs = append(errs, os.RemoveAll(l.dir))
	if l.unlock != nil {
		l.unlock()
	}
	return errors.Join(errs...)
}

// Until repeats a look until it finds what is to come about, or ctx is done.
func Until(ctx context.Context, what string, look func() error) error {
	for {
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
