package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Host is a machine of the lab: real systemd, sshd and sudo.
type Host struct {
	Name    string
	Address string
	lab     *Lab
	dir     string
	cmd     *exec.Cmd
	leader  int // the container's pid 1, as the machine numbers it
}

// A File is put into a host before it starts.
type File struct {
	Path string // on the host
	From string // on the machine; or
	Text string
	Mode fs.FileMode
}

// Host starts a host and waits until its systemd says that it runs.
func (l *Lab) Host(ctx context.Context, name string, files ...File) (*Host, error) {
	address, err := l.Join(ctx, name)
	if err != nil {
		return nil, err
	}
	h := &Host{Name: name, Address: address, lab: l, dir: filepath.Join(l.dir, name)}
	l.hosts = append(l.hosts, h)
	for _, d := range []string{"upper", "work", "mnt"} {
		if err := os.MkdirAll(filepath.Join(h.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	for _, f := range files {
		if err := h.place(f); err != nil {
			return nil, err
		}
	}
	return h, h.Start(ctx)
}

// place puts a file where the host will find it.
func (h *Host) place(f File) error {
	to := filepath.Join(h.dir, "upper", f.Path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	b := []byte(f.Text)
	if f.From != "" {
		var err error
		if b, err = os.ReadFile(f.From); err != nil {
			return err
		}
	}
	if err := os.WriteFile(to, b, f.Mode); err != nil {
		return err
	}
	return os.Chmod(to, f.Mode)
}

// script starts a container; $1 is the host's folder, $2 the root, $3 the
// network namespace, $4 the name. Its mounts are its own. The clock and what
// else the kernel has only once stay out of its reach: no CAP_SYS_TIME.
const script = `set -e
mkdir -p /run/systemd
mount -t tmpfs t /run/systemd
mount -t overlay o -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/mnt"
exec systemd-nspawn -q --register=no --keep-unit -D "$1/mnt" --network-namespace-path="/run/netns/$3" --machine="$4" --hostname="$4" \
	--console=pipe --kill-signal=SIGRTMIN+3 \
	--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN,CAP_SYS_RESOURCE --system-call-filter=bpf --system-call-filter=perf_event_open --boot`

// Start boots the host: for the first time, or again on the same disk.
func (h *Host) Start(ctx context.Context) error {
	console, err := os.OpenFile(h.console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = console.Close() }() // the container has its own
	// Not bound to ctx: the host lives until it is powered off.
	h.cmd = exec.Command("unshare", "-m", "--propagation", "private", "bash", "-c", script, "host", h.dir, h.lab.root, h.lab.ns(h.Name), h.Name)
	h.cmd.Stdout, h.cmd.Stderr = console, console
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := h.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", h.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = Until(ctx, "the start of "+h.Name, func() error {
		if err := h.findLeader(); err != nil {
			return err
		}
		out, err := h.Sh(ctx, "systemctl is-system-running")
		if state := strings.TrimSpace(out); state == "degraded" {
			failed, _ := h.Sh(ctx, "systemctl --failed --no-legend")
			return fmt.Errorf("degraded: %s", failed)
		}
		return err
	})
	if err != nil {
		log, _ := os.ReadFile(h.console())
		return fmt.Errorf("%w; console: %s", err, tail(log))
	}
	return nil
}

func (h *Host) console() string { return filepath.Join(h.dir, "console") }

// findLeader finds the container's pid 1: the child of systemd-nspawn, which
// took the place of the shell that we started.
func (h *Host) findLeader() error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", h.cmd.Process.Pid, h.cmd.Process.Pid))
	if err != nil {
		return err
	}
	for _, f := range bytes.Fields(b) {
		pid, err := strconv.Atoi(string(f))
		if err != nil {
			return err
		}
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(comm)) == "systemd" {
			h.leader = pid
			return nil
		}
	}
	return errors.New("its systemd has not begun")
}

// Command is a program on the host, run as root from outside of any login.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	pid := strconv.Itoa(h.leader)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", pid, "-m", "-u", "-i", "-n", "-p", "-C", "--", name}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	return cmd
}

// Sh runs a script on the host and returns what it printed.
func (h *Host) Sh(ctx context.Context, script string) (string, error) {
	out, err := h.Command(ctx, "/bin/bash", "-c", script).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("on %s: %w: %s", h.Name, err, tail(out))
	}
	return string(out), nil
}

// Feed runs a script on the host with something on its standard input.
func (h *Host) Feed(ctx context.Context, input, script string) (string, error) {
	cmd := h.Command(ctx, "/bin/bash", "-c", script)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("on %s: %w: %s", h.Name, err, tail(out))
	}
	return string(out), nil
}

// PowerOff takes the host's power away: every process at once, nothing
// written that was not.
func (h *Host) PowerOff(ctx context.Context) error {
	if h.cmd == nil {
		return nil
	}
	_ = h.findLeader() // it may never have come up
	if h.leader > 0 {
		_ = syscall.Kill(h.leader, syscall.SIGKILL) // pid 1 takes all of the namespace with it
	}
	done := make(chan struct{})
	go func() {
		_ = h.cmd.Wait() // killed: that is what we wanted
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		_ = h.cmd.Process.Kill()
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("%s does not go off: %w", h.Name, ctx.Err())
		}
	}
	h.cmd, h.leader = nil, 0
	return nil
}

// Disk is the machine's way to what the host has written.
func (h *Host) Disk() string { return filepath.Join(h.dir, "upper") }
