// Package lab runs real hosts for tests and the demo: systemd, sshd and sudo
// in nspawn containers, on networks of their own.
//
// It leaves the machine as it found it: all that it makes lies in namespaces
// and folders of its own, and Close takes it away. What a killed run left, the
// next one takes away. It is for tests alone.
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
	"sync"
	"time"
)

// A Lab is a switch and its members: hosts, and places from which people and
// the control plane speak.
type Lab struct {
	labs string // the folder of all labs
	dir  string // ours
	root string // the disk that hosts begin with
	told io.Writer
	slot *os.File // held until Close
	own  *os.File // the lock that says that we live

	mu    sync.Mutex
	ports []string // of the switch: the members in the order in which they joined
	hosts []*Host
}

// New makes an empty lab. It waits for its turn: only a few labs run at a time.
func New(ctx context.Context, progress io.Writer) (*Lab, error) {
	root, err := Root(ctx, progress)
	if err != nil {
		return nil, err
	}
	labs, err := cache("labs")
	if err != nil {
		return nil, err
	}
	l := &Lab{labs: labs, root: root, told: progress, dir: filepath.Join(labs, "cfw-"+strings.ToLower(rand.Text()[:5]))}
	if l.slot, err = slot(ctx, labs, progress); err != nil {
		return nil, err
	}
	sw := l.ns("switch")
	err = l.begin(ctx)
	if err == nil {
		err = errors.Join(
			ip(ctx, "netns", "add", sw),
			ip(ctx, "-n", sw, "link", "add", "br0", "type", "bridge"),
			ip(ctx, "-n", sw, "link", "set", "br0", "up"))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin a lab: %w", err), l.end(context.WithoutCancel(ctx)))
	}
	return l, nil
}

// begin takes away dead labs, and makes a folder whose lock says that this
// one lives.
func (l *Lab) begin(ctx context.Context) error {
	all, err := lock(ctx, filepath.Join(l.labs, "lock"))
	if err != nil {
		return err
	}
	defer func() { _ = all.Close() }()
	if err := sweep(ctx, l.labs); err != nil {
		return fmt.Errorf("take away what a dead lab left: %w", err)
	}
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return err
	}
	if l.own, err = tryLock(filepath.Join(l.dir, "lock")); err != nil {
		return err
	}
	return borrow(l.labs, inotify)
}

// ns is the name of a member's network namespace.
func (l *Lab) ns(member string) string { return filepath.Base(l.dir) + "-" + member }

// Dir is a folder that goes with the lab.
func (l *Lab) Dir() string { return l.dir }

// Join gives a member its place on the switch, and returns its address.
func (l *Lab) Join(ctx context.Context, member string) (string, error) {
	l.mu.Lock()
	l.ports = append(l.ports, member)
	n := len(l.ports)
	l.mu.Unlock()
	if n > 254 {
		return "", fmt.Errorf("network of %s: the switch is full", member)
	}
	space, sw, port, address := l.ns(member), l.ns("switch"), fmt.Sprintf("p%d", n), fmt.Sprintf("10.77.0.%d", n)
	for _, args := range [][]string{
		{"netns", "add", space},
		{"-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", sw},
		{"-n", sw, "link", "set", port, "master", "br0", "up"},
		{"-n", space, "link", "set", "lo", "up"},
		{"-n", space, "addr", "add", address + "/24", "dev", "eth0"},
		{"-n", space, "link", "set", "eth0", "up"},
	} {
		if err := ip(ctx, args...); err != nil {
			return "", fmt.Errorf("network of %s: %w", member, err)
		}
	}
	return address, nil
}

// Cable pulls a member's cable out of the switch, or puts it in again. The
// member keeps its address, as a machine does.
func (l *Lab) Cable(ctx context.Context, member string, in bool) error {
	state := "down"
	if in {
		state = "up"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, m := range l.ports {
		if m == member {
			return ip(ctx, "-n", l.ns("switch"), "link", "set", fmt.Sprintf("p%d", i+1), state)
		}
	}
	return fmt.Errorf("the lab has no member %s", member)
}

// In is a program of the machine that runs in a member's network.
func (l *Lab) In(ctx context.Context, member, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", l.ns(member), name}, args...)...)
}

// Close takes the lab away: its hosts, whatever else runs in its networks,
// these, and its folder. What it borrowed of the machine, it gives back.
func (l *Lab) Close() error { return l.end(context.Background()) }

func (l *Lab) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	defer func() { _ = l.slot.Close() }()
	l.mu.Lock()
	hosts := l.hosts
	l.mu.Unlock()
	errs := make([]error, len(hosts))
	var off sync.WaitGroup
	for i, h := range hosts {
		off.Go(func() { errs[i] = h.PowerOff(ctx) })
	}
	off.Wait()
	all, err := lock(ctx, filepath.Join(l.labs, "lock"))
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer func() { _ = all.Close() }()
	errs = append(errs, remove(ctx, l.dir), giveBack(l.labs, inotify))
	if l.own != nil {
		_ = l.own.Close()
	}
	return errors.Join(errs...)
}
