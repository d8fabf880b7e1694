package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	root    string // the disk that it began with
	cmd     *exec.Cmd
	gone    chan struct{} // closed when cmd has ended
	leader  int           // the container's pid 1, as the machine numbers it
	caps    string        // what its root may do, as setpriv says it
}

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Host starts a host and waits until its systemd says that it runs. Hosts may
// be started at the same time.
func (l *Lab) Host(ctx context.Context, name string, files ...File) (*Host, error) {
	return l.host(ctx, l.root, name, files)
}

// HostOf is Host with another release of Debian.
func (l *Lab) HostOf(ctx context.Context, suite, name string, files ...File) (*Host, error) {
	root, err := RootOf(ctx, l.told, suite)
	if err != nil {
		return nil, err
	}
	return l.host(ctx, root, name, files)
}

func (l *Lab) host(ctx context.Context, root, name string, files []File) (*Host, error) {
	if !hostName.MatchString(name) {
		return nil, fmt.Errorf("%q is no name for a host", name)
	}
	address, err := l.Join(ctx, name)
	if err != nil {
		return nil, err
	}
	h := &Host{Name: name, Address: address, lab: l, root: root, dir: filepath.Join(l.dir, "hosts", name)}
	for _, d := range []string{h.Disk(), filepath.Join(h.dir, "work"), filepath.Join(h.dir, "mnt")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	// With an identity from the start, its first boot is no "first boot" in
	// which systemd would switch on every unit that it finds.
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	files = append([]File{
		{Path: "/etc/machine-id", Text: hex.EncodeToString(id) + "\n", Mode: 0o444},
		{Path: "/etc/hostname", Text: name + "\n", Mode: 0o644},
		{Path: "/etc/hosts", Text: "127.0.0.1 localhost\n::1 localhost\n" + address + " " + name + "\n", Mode: 0o644},
	}, files...)
	for _, f := range files {
		if err := place(h.Disk(), root, f); err != nil {
			return nil, err
		}
	}
	return h, h.Start(ctx)
}

// script starts a container; $1 is the host's folder, $2 the root, $3 the
// network namespace, $4 the name, and the rest are its control groups. Its
// mounts are its own. The clock and what else the kernel has only once stay
// out of its reach: no CAP_SYS_TIME.
const script = `set -e
for group in "${@:5}"; do echo $$ >"$group/cgroup.procs"; done
mkdir -p /run/systemd
mount -t tmpfs t /run/systemd
mount -t overlay o -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/mnt"
given=()
for c in "$1"/given/*; do [ ! -e "$c" ] || given+=("--load-credential=${c##*/}:$c"); done
exec systemd-nspawn "${given[@]}" -q --register=no --keep-unit -D "$1/mnt" --network-namespace-path="/run/netns/$3" --machine="$4" --hostname="$4" \
	--console=pipe --kill-signal=SIGRTMIN+3 --resolv-conf=off --timezone=off --link-journal=no \
	--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN,CAP_SYS_RESOURCE --system-call-filter=bpf --system-call-filter=perf_event_open \
	--system-call-filter=fanotify_init --system-call-filter=fanotify_mark --system-call-filter=name_to_handle_at --system-call-filter=pidfd_getfd --boot`

// Start boots the host: for the first time, or again on the same disk.
func (h *Host) Start(ctx context.Context) error {
	if h.cmd != nil {
		return fmt.Errorf("start %s: it runs", h.Name)
	}
	made, err := groups(h.lab.ns(h.Name))
	if err != nil {
		return fmt.Errorf("start %s: %w", h.Name, err)
	}
	console, err := os.OpenFile(h.console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = console.Close() }() // the container has its own
	// Not bound to ctx: the host lives until it is powered off.
	h.cmd = exec.Command("unshare", append([]string{
		"-m", "--propagation", "private", "bash", "-c", script, "host", h.dir, h.root, h.lab.ns(h.Name), h.Name,
	}, made...)...)
	h.cmd.Stdout, h.cmd.Stderr = console, console
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := h.cmd.Start(); err != nil {
		h.cmd = nil
		return fmt.Errorf("start %s: %w", h.Name, err)
	}
	h.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan struct{}) {
		_ = cmd.Wait() // how it ended shows on the console
		close(gone)
	}(h.cmd, h.gone)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute) // cloud-init takes its time
	defer cancel()
	return h.up(ctx)
}

// up waits until systemd says that all is well, or that it is not.
func (h *Host) up(ctx context.Context) error {
	var bad error
	err := Until(ctx, "the start of "+h.Name, func() error {
		select {
		case <-h.gone:
			bad = fmt.Errorf("%s ended in its start", h.Name)
			return nil
		default:
		}
		if err := h.findLeader(); err != nil {
			return err
		}
		out, err := h.Sh(ctx, "systemctl is-system-running --wait 2>&1")
		if state := strings.TrimSpace(out); state == "degraded" || state == "maintenance" {
			failed, _ := h.Sh(ctx, "systemctl --failed --no-legend; systemctl --failed --plain --no-legend | cut -d' ' -f1 | xargs -r -n1 journalctl -n 20 --no-pager -u")
			bad = fmt.Errorf("%s is %s: %s", h.Name, state, failed)
			return nil
		}
		return err
	})
	if err = errors.Join(err, bad); err != nil {
		return fmt.Errorf("%w; console: %s", err, h.Console())
	}
	return nil
}

func (h *Host) console() string { return filepath.Join(h.dir, "console") }

// Console is the end of what the host wrote on its console.
func (h *Host) Console() string {
	b, err := os.ReadFile(h.console())
	if err != nil {
		return err.Error()
	}
	return tail(b)
}

// Disk is the machine's way to what the host has written.
func (h *Host) Disk() string { return filepath.Join(h.dir, "upper") }

// findLeader finds the container's pid 1: the child of systemd-nspawn, which
// took the place of the shell that we started.
func (h *Host) findLeader() error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", h.cmd.Process.Pid))
	if err != nil {
		return err
	}
	for _, f := range bytes.Fields(b) {
		pid, err := strconv.Atoi(string(f))
		if err != nil {
			return err
		}
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil || strings.TrimSpace(string(comm)) != "systemd" {
			continue
		}
		if h.caps, err = bounds(pid); err != nil {
			return err
		}
		h.leader = pid
		return nil
	}
	return errors.New("its systemd has not begun")
}

// PowerOff takes the host's power away: every process at once, nothing
// written that was not. A host that is off stays so.
func (h *Host) PowerOff(ctx context.Context) error {
	if h.cmd == nil {
		return nil
	}
	if h.findLeader() == nil {
		_ = syscall.Kill(h.leader, syscall.SIGKILL) // pid 1 takes all of its namespace with it
	} else {
		_ = h.cmd.Process.Kill() // it never came up, or is gone
	}
	return h.off(ctx)
}

// Give hands the host a credential when it starts the next time, as whoever
// makes virtual machines can.
func (h *Host) Give(name, text string) error {
	given := filepath.Join(h.dir, "given")
	if err := os.MkdirAll(given, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(given, name), []byte(text), 0o600)
}

// Reboot lets the host shut down in order and starts it again.
func (h *Host) Reboot(ctx context.Context) error {
	if _, err := h.Sh(ctx, "systemctl reboot --no-block"); err != nil {
		return err
	}
	if err := h.off(ctx); err != nil {
		return err
	}
	return h.Start(ctx)
}

// off waits until nothing of the host runs and nobody holds its disk, so that
// it may be started again.
func (h *Host) off(ctx context.Context) error {
	select {
	case <-h.gone:
	case <-ctx.Done():
		return fmt.Errorf("%s does not go off: %w; console: %s", h.Name, ctx.Err(), h.Console())
	}
	h.cmd, h.leader = nil, 0
	err := Until(ctx, "the disk of "+h.Name, func() error {
		pids, err := inhabitants(h.dir, nil)
		if err == nil && len(pids) > 0 {
			err = fmt.Errorf("processes %v hold it", pids)
		}
		return err
	})
	return errors.Join(err, removeGroups(ctx, h.lab.ns(h.Name)))
}
