package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Suites are the releases of Debian that hosts can have. The first is what a
// host has if nothing else is said.
const (
	Bookworm = "bookworm" // Debian 12
	Trixie   = "trixie"   // Debian 13
	Cloud    = "cloud"    // Debian 12 as clouds have it: with cloud-init and Python
)

// more is what a suite has beside the packages of all.
var more = map[string][]string{Cloud: {"cloud-init", "python3-apt"}}

// release is the release of Debian that a suite is of.
func release(suite string) string {
	if suite == Cloud {
		return Bookworm
	}
	return suite
}

// packages are what a host consists of.
var packages = []string{
	"systemd-sysv", "systemd", "udev", "dbus", "libpam-systemd", "openssh-server", "openssh-client", "sudo", "nftables", "iproute2",
	"kmod", "procps", "cron", "at", "libnss-systemd", "login", "passwd", "util-linux", "pamtester", "python3-minimal", "tmux",
}

// masked are units that a container has no use for, or whose work would
// disturb a test at an hour of its own.
var masked = []string{
	"systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket",
	"console-getty.service", "getty.target", "systemd-resolved.service", "systemd-networkd.service", "apt-daily.timer",
	"apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer",
}

// units are ours: keys are made at each host's first start, and bpffs is what
// systemd itself mounts on a machine and leaves out in a container. (It takes
// no mount unit from others for a place in /sys.)
var units = []struct{ name, wantedBy, text string }{
	{"ssh-keys.service", "multi-user.target", `[Unit]
DefaultDependencies=no
After=local-fs.target
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -N '' -t ed25519 -f /etc/ssh/ssh_host_ed25519_key
`},
	{"bpffs.service", "local-fs.target", `[Unit]
DefaultDependencies=no
Before=local-fs.target
ConditionPathIsMountPoint=!/sys/fs/bpf
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount -t bpf -o mode=0700,nosuid,nodev,noexec bpf /sys/fs/bpf
`},
}

// Root returns the folder of the root file system of a host with Debian 12.
func Root(ctx context.Context, progress io.Writer) (string, error) {
	return RootOf(ctx, progress, Bookworm)
}

// RootOf returns the folder of a suite's root file system, which is built from
// Debian's packages once and kept outside the repository. Its name tells what
// went into it, so that a change here builds another.
func RootOf(ctx context.Context, progress io.Writer, suite string) (string, error) {
	dir, err := cache("roots")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Append(nil, "4", suite, slices.Concat(packages, more[suite]), masked, units))
	root := filepath.Join(dir, hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	held, err := lock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer func() { _ = held.Close() }()
	if _, err := os.Stat(root); err == nil {
		return root, nil // another process built it while we waited
	}
	// What a build left that was cut short, ours or of another list.
	left, err := filepath.Glob(filepath.Join(dir, "*.new"))
	if err != nil {
		return "", err
	}
	for _, l := range left {
		if err := os.RemoveAll(l); err != nil {
			return "", err
		}
	}
	_, _ = fmt.Fprintln(progress, "building the root file system of the hosts from Debian's packages (a minute or two, once)")
	if err := build(ctx, suite, root+".new", held); err != nil {
		return "", fmt.Errorf("build the root file system of the hosts: %w", err)
	}
	return root, os.Rename(root+".new", root)
}

// build makes a root file system. Its mounts are its own, so that a build cut
// short leaves none behind, and it holds the lock for as long as it runs, even
// if we are killed before it.
func build(ctx context.Context, suite, root string, held *os.File) error {
	cmd := exec.CommandContext(ctx, "unshare", "-m", "--propagation", "private",
		"mmdebstrap", "--mode=root", "--variant=minbase", "--include="+strings.Join(slices.Concat(packages, more[suite]), ","), "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", release(suite), root)
	cmd.ExtraFiles = []*os.File{held}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap: %w: %s", err, tail(out))
	}
	if err := commonParts(root); err != nil {
		return err
	}
	return checkNames(filepath.Join(root, "etc/nsswitch.conf"))
}

// commonParts changes what all hosts share: no keys and no identity, nothing of
// the machine that built it, and the units above.
func commonParts(root string) error {
	keys, err := filepath.Glob(filepath.Join(root, "etc/ssh/ssh_host_*"))
	if err != nil {
		return err
	}
	for _, name := range []string{"machine-id", "hostname", "resolv.conf"} {
		keys = append(keys, filepath.Join(root, "etc", name))
	}
	for _, name := range keys {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	dir := filepath.Join(root, "etc/systemd/system")
	for _, unit := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(dir, unit)); err != nil {
			return err
		}
	}
	for _, u := range units {
		if err := os.WriteFile(filepath.Join(dir, u.name), []byte(u.text), 0o644); err != nil {
			return err
		}
		wants := filepath.Join(dir, u.wantedBy+".wants")
		if err := os.MkdirAll(wants, 0o755); err != nil {
			return err
		}
		if err := os.Symlink("../"+u.name, filepath.Join(wants, u.name)); err != nil {
			return err
		}
	}
	return nil
}

// checkNames makes sure that a host asks systemd for accounts: without it,
// nothing that the agent puts into /run/userdb would count.
func checkNames(nsswitch string) error {
	b, err := os.ReadFile(nsswitch)
	if err != nil {
		return err
	}
	asks := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		db, from, _ := strings.Cut(line, ":")
		for _, f := range strings.Fields(from) {
			asks[db] = asks[db] || f == "systemd"
		}
	}
	for _, db := range []string{"passwd", "group", "shadow"} {
		if !asks[db] {
			return fmt.Errorf("%s does not ask systemd for %s", nsswitch, db)
		}
	}
	return nil
}

// tail is the end of what a program printed.
func tail(out []byte) string {
	const most = 2000
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return strings.TrimSpace(string(out))
}
