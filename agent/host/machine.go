package host

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Boot is the kernel's id of this boot (random(4)).
func Boot() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// MountBPF mounts a bpffs on dir, unless one is there.
func MountBPF(dir string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", dir, err)
	}
	return nil
}

// SSHHostKeys are the public keys by which this host's sshd is known.
func (h *Host) SSHHostKeys() ([]string, error) {
	var keys []string
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		b, err := os.ReadFile(h.path("etc/ssh/ssh_host_" + kind + "_key.pub"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read ssh host key: %w", err)
		}
		if words := strings.Fields(string(b)); len(words) >= 2 {
			keys = append(keys, words[0]+" "+words[1])
		}
	}
	return keys, nil
}
