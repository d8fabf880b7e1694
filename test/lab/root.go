// Package lab runs real hosts for tests and the demo: systemd, sshd and sudo
// in nspawn containers, on networks of their own.
//
// It leaves the machine as it found it: all that it makes lies in namespaces
// and folders of its own, and Close takes it away. It is for tests alone.
package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// packages are what a host consists of.
var packages = []string{
	"systemd-sysv", "systemd", "udev", "dbus", "libpam-systemd", "openssh-server", "openssh-client", "sudo", "nftables", "iproute2",
	"kmod", "procps", "cron", "at", "libnss-systemd", "login", "passwd", "util-linux", "pamtester", "python3-minimal", "tmux",
}

const suite = "bookworm"

// Root returns the folder of a host's root file system, which is built from
// Debian's packages once and kept outside the repository.
func Root(ctx context.Context, progress io.Writer) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache: %w", err)
	}
	sum := sha256.Sum256([]byte("4 " + suite + " " + strings.Join(packages, " ")))
	dir := filepath.Join(cache, "curfew", "roots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	root := filepath.Join(dir, hex.EncodeToString(sum[:8]))
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	_, _ = fmt.Fprintln(progress, "building the root file system of the hosts from Debian's packages (about a minute, once)")
	fresh := root + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--variant=minbase", "--include="+strings.Join(packages, ","),
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		suite, fresh)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mmdebstrap: %w: %s", err, tail(out))
	}
	if err := common(fresh); err != nil {
		return "", err
	}
	return root, os.Rename(fresh, root)
}

// common changes what all hosts share: no keys and no identity in the image,
// and no services that a container has no use for.
func common(root string) error {
	keys, err := filepath.Glob(filepath.Join(root, "etc/ssh/ssh_host_*"))
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := os.Remove(k); err != nil {
			return err
		}
	}
	// Empty: systemd makes one at each start, and does not take it for the
	// first start of all.
	if err := os.WriteFile(filepath.Join(root, "etc/machine-id"), nil, 0o444); err != nil {
		return err
	}
	for _, unit := range []string{"systemd-firstboot.service", "systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket", "console-getty.service", "getty.target", "systemd-resolved.service", "systemd-networkd.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"} {
		if err := os.Symlink("/dev/null", filepath.Join(root, "etc/systemd/system", unit)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	// Keys are made at each host's first start; bpffs is what systemd mounts
	// on a machine, and leaves out in a container.
	units := map[string]string{
		"ssh-keys.service": "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target\nBefore=ssh.service\n" +
			"ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n" +
			"[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -q -N '' -t ed25519 -f /etc/ssh/ssh_host_ed25519_key\n",
		"bpffs.service": "[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\nConditionPathIsMountPoint=!/sys/fs/bpf\n" +
			"[Service]\nType=oneshot\nExecStart=/bin/mount -t bpf -o mode=0700,nosuid,nodev,noexec bpf /sys/fs/bpf\n",
	}
	for name, text := range units {
		if err := os.WriteFile(filepath.Join(root, "etc/systemd/system", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for link, to := range map[string]string{
		"etc/systemd/system/multi-user.target.wants/ssh-keys.service": "/etc/systemd/system/ssh-keys.service",
		"etc/systemd/system/local-fs.target.wants/bpffs.service":      "/etc/systemd/system/bpffs.service",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, link)), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}

// lock holds a file's lock until it is let go.
func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return func() { _ = f.Close() }, nil
}

// tail is the end of what a program printed.
func tail(out []byte) string {
	const most = 2000
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return strings.TrimSpace(string(out))
}
