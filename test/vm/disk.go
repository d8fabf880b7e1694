package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// versions are the kernels that guests may have.
var versions = []string{"6.1", "6.12"}

// fetch gets kernels and an emulator with Debian's own tools, from where this
// machine gets its packages, and leaves the machine's lists alone. The emulator
// is a newer one than the release has: Linux 6.12 panics now and then under
// that. $1 is the folder.
const fetch = `set -euo pipefail
cd -- "${1:?}"
mkdir -p lists/partial archives/partial parts debs
site=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | awk '!found && $2 == "bookworm" { print $1; found = 1 }')
[ -n "$site" ] || { echo 'apt knows no source of bookworm' >&2; exit 1; }
for suite in bookworm bookworm-backports; do
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $suite main"
done >parts/vm.list
printf '%s;\n' 'Dir::Etc::SourceList "/dev/null"' "Dir::Etc::SourceParts \"$PWD/parts\"" "Dir::State::Lists \"$PWD/lists\"" \
	"Dir::Cache \"$PWD\"" 'APT::Sandbox::User "root"' >apt.conf
export APT_CONFIG=$PWD/apt.conf
apt-get -qq update
get() { (cd debs && apt-get -qq download "$1"); }
kernel() {
	package=$(apt-cache depends "linux-image-cloud-amd64/$1" | awk '!found && $1 == "Depends:" { print $2; found = 1 }')
	get "$package"
	dpkg-deb -x debs/"$package"_*.deb part
	mkdir -p "$2/usr/lib"
	mv part/lib/modules "$2/usr/lib/modules"
	mv part/boot/vmlinuz-* "$2.vmlinuz"
	rm -r part
}
kernel bookworm linux-6.1
kernel bookworm-backports linux-6.12
for package in qemu-system-x86 qemu-system-common qemu-system-data seabios; do
	get "$package/bookworm-backports"
	dpkg-deb -x debs/"$package"_*.deb qemu
done
rm -r lists archives parts debs apt.conf
rm -f ./*.bin
`

// disk lays files over kernels over a root of test/lab, and makes a file
// system of it, all in mounts of its own. $1 is the folder, $2 the kernels and
// $3 the root. Modules that the disk and the network need are laid out in the
// order in which they load.
const disk = `set -euo pipefail
mkdir -p "${1:?}/upper" "$1/work" "$1/mnt"
mount -t overlay o -o "lowerdir=$1/files:$2/linux-6.1:$2/linux-6.12:$3,upperdir=$1/upper,workdir=$1/work" "$1/mnt"
for k in 6.1 6.12; do
	v=$(ls "$2/linux-$k/usr/lib/modules")
	chroot "$1/mnt" depmod "$v"
	mkdir "$1/modules-$k"
	n=100
	chroot "$1/mnt" modprobe -S "$v" -D -a virtio_pci virtio_console virtio_blk ext4 virtio_net virtio-rng >"$1/order"
	while read -r what file _; do
		[ "$what" = insmod ] || continue
		ls "$1/modules-$k/"*-"${file##*/}" >/dev/null 2>&1 || cp "$1/mnt$file" "$1/modules-$k/$((n++))-${file##*/}"
	done <"$1/order"
done
for unit in serial-getty@ttyS0.service systemd-timesyncd.service; do ln -sf /dev/null "$1/mnt/etc/systemd/system/$unit"; done
mkdir -p "$1/mnt/etc/systemd/system/sysinit.target.wants"
ln -sf ../lab.service "$1/mnt/etc/systemd/system/sysinit.target.wants/lab.service"
ln -sf ../lab-console.service "$1/mnt/etc/systemd/system/multi-user.target.wants/lab-console.service"
mkfs.ext4 -q -d "$1/mnt" "$1/disk" 1G
`

// service starts what runs inside.
const service = `[Unit]
DefaultDependencies=no
After=local-fs.target
[Service]
ExecStart=/usr/lib/lab/inside
KillMode=process
`

// console asks who is there at the second serial port, as Debian's
// serial-getty@.service does, which waits for udev.
const console = `[Unit]
After=systemd-user-sessions.service
[Service]
ExecStart=/sbin/agetty -L 115200 ttyS1 vt220
Restart=always
RestartSec=0
UtmpIdentifier=ttyS1
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/ttyS1
TTYReset=yes
TTYVHangup=yes
KillMode=process
IgnoreSIGPIPE=no
SendSIGHUP=yes
`

// fetched returns the folder of kernels and emulator. They are got once and
// kept outside the repository; its name tells what went into it.
func fetched(ctx context.Context, progress io.Writer) (string, error) {
	top, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache: %w", err)
	}
	sum := sha256.Sum256([]byte(fetch))
	dir := filepath.Join(top, "curfew", "kernels", hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	_, _ = fmt.Fprintln(progress, "fetching kernels and an emulator from Debian's packages (half a minute, once)")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(part) }() // moved away when all is well
	if out, err := exec.CommandContext(ctx, "bash", "-c", fetch, "fetch", part).CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch kernels: %w: %s", err, tail(out))
	}
	err = os.Rename(part, dir)
	if errors.Is(err, fs.ErrExist) {
		err = nil // somebody else did
	}
	return dir, err
}

// build makes the disk that guests begin with, and what they boot with.
func build(ctx context.Context, dir, kernels, root string, what map[string]string) error {
	if err := files(filepath.Join(dir, "files"), what); err != nil {
		return err
	}
	inside := filepath.Join(dir, "files/usr/lib/lab/inside")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", inside, "./inside")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // tests run in this folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build what runs inside: %w: %s", err, tail(out))
	}
	for _, name := range []string{"ways", "turn"} {
		cc := exec.CommandContext(ctx, "gcc", "-static", "-O2", "-Wall", "-Werror", "-o", filepath.Join(filepath.Dir(inside), name), "ways/"+name+".c")
		if out, err := cc.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s, which tries things: %w: %s", name, err, tail(out))
		}
	}
	out, err := exec.CommandContext(ctx, "unshare", "-m", "--propagation", "private", "bash", "-c", disk, "disk", dir, kernels, root).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make the disk: %w: %s", err, tail(out))
	}
	for _, k := range versions {
		if err := archive(filepath.Join(dir, "initrd-"+k), inside, filepath.Join(dir, "modules-"+k)); err != nil {
			return fmt.Errorf("make the archive for Linux %s: %w", k, err)
		}
	}
	return nil
}

// ours is what a guest has of what was built, by where it is there.
func ours(repo string) map[string]string {
	from := map[string]string{
		"usr/bin/curfew-agent":                            "bin/curfew-agent",
		"usr/libexec/curfew-agent/curfew-record":          "bin/curfew-record",
		"usr/libexec/curfew-agent/curfew-shell":           "bin/curfew-shell",
		"usr/lib/x86_64-linux-gnu/security/pam_curfew.so": "bin/pam_curfew.so",
		"usr/libexec/curfew-agent/pam-try":                "bin/pam-try",
	}
	for _, u := range []string{"curfew-agent.service", "curfew-record.service", "curfew-sweep.service", "curfew-sweep.timer"} {
		from["usr/lib/systemd/system/"+u] = "systemd/" + u
	}
	for to, name := range from {
		from[to] = filepath.Join(repo, name)
	}
	return from
}

// files lays out what a guest has beside Debian.
func files(dir string, from map[string]string) error {
	text := map[string][]byte{"etc/systemd/system/lab.service": []byte(service), "etc/systemd/system/lab-console.service": []byte(console)}
	for to, name := range from {
		b, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("%w: run `make build`", err)
		}
		text[to] = b
	}
	for to, b := range text {
		name := filepath.Join(dir, to)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, b, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// archive writes a cpio of the first program and its modules, as the kernel
// wants one.
func archive(name, program, modules string) error {
	var b bytes.Buffer
	inode := 0
	entry := func(path string, mode uint32, content []byte) {
		inode++
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path)+1, 0)
		b.WriteString(path + "\x00")
		pad(&b)
		b.Write(content)
		pad(&b)
	}
	init, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	entry("init", unix.S_IFREG|0o755, init)
	entry("modules", unix.S_IFDIR|0o755, nil)
	found, err := os.ReadDir(modules)
	if err != nil {
		return err
	}
	for _, f := range found {
		content, err := os.ReadFile(filepath.Join(modules, f.Name()))
		if err != nil {
			return err
		}
		entry("modules/"+f.Name(), unix.S_IFREG|0o644, content)
	}
	entry("TRAILER!!!", 0, nil)
	return os.WriteFile(name, b.Bytes(), 0o600)
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}

// tail is the end of what was written.
func tail(b []byte) string {
	const most = 4000
	return strings.TrimSpace(string(b[max(0, len(b)-most):]))
}
