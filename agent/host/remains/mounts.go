package remains

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A mount is one line of mountinfo.
type mount struct {
	device string // major:minor
	root   string // the part of the file system that is mounted
	point  string
	kind   string
	source string
}

type mounts []mount

// parseMounts reads proc_pid_mountinfo(5). A line that it does not understand
// it leaves out.
func parseMounts(text string) mounts {
	var all mounts
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		a, b := strings.Split(before, " "), strings.Split(after, " ")
		if !ok || len(a) < 6 || len(b) < 2 {
			continue
		}
		m := mount{device: a[2], root: unescape(a[3]), point: unescape(a[4]), kind: b[0], source: unescape(b[1])}
		if strings.HasPrefix(m.point, "/") { // not beyond our root
			all = append(all, m)
		}
	}
	return all
}

// unescape undoes the three octal digits that stand for a blank in a name.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// disks are file systems that the kernel answers for itself, and on which a
// file stays.
var disks = []string{
	"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "reiserfs", "tmpfs", "ramfs", "devtmpfs", "overlay",
}

// kernels are those that answer by themselves as well, and hold no programs.
var kernels = []string{
	"rootfs", "proc", "sysfs", "bpf", "binfmt_misc", "mqueue", "securityfs", "cgroup", "cgroup2", "debugfs", "tracefs", "efivarfs",
	"configfs", "devpts", "hugetlbfs", "pstore", "squashfs", "erofs", "vfat", "iso9660", "nsfs",
}

func (m mount) disk() bool { return slices.Contains(disks, m.kind) }

func (m mount) near() bool { return m.disk() || slices.Contains(kernels, m.kind) }

// over is the mount that a path lies on.
func (all mounts) over(file string) (m mount, found bool) {
	for _, x := range all {
		if under(file, x.point) && len(x.point) >= len(m.point) { // the last of two is on top
			m, found = x, true
		}
	}
	return m, found
}

// Around is what to leave out where a file does not answer: all that is mounted
// there, or on the root's own file system that file alone, with what is below.
func (h Host) Around(file string) string {
	file = path.Clean(file)
	v, err := h.view()
	if err != nil {
		return file
	}
	_ = v.close() // nothing was written
	if m, ok := v.mounts.over(file); ok && m.point != "/" {
		return m.point
	}
	return file
}

// local are the mounts to walk: each part of each disk once.
func (all mounts) local() mounts {
	var walk mounts
	for i, m := range all {
		top, _ := all.over(m.point)
		seen := slices.ContainsFunc(all, func(x mount) bool {
			return x != m && x.device == m.device && under(m.root, x.root) && len(x.root) < len(m.root)
		}) || slices.ContainsFunc(all[:i], func(x mount) bool { return x.device == m.device && x.root == m.root })
		if m.disk() && top == m && !seen {
			walk = append(walk, m)
		}
	}
	return walk
}

// containers are folders whose files are what images brought.
var containers = []string{"/var/lib/docker", "/var/lib/containers", "/var/lib/containerd"}

// usual are folders below which mounts come and go.
var usual = append([]string{
	"/run/user", "/run/credentials", "/run/netns", "/run/docker", "/run/containerd", "/var/lib/kubelet", binfmt,
}, containers...)

// points tells of each place that something is mounted on what that is.
func (all mounts) points() map[string]string {
	at := map[string]string{}
	for _, m := range all {
		if !slices.ContainsFunc(usual, func(u string) bool { return under(m.point, u) }) {
			at[m.point] = m.kind + " " + m.source
			if m.root != "/" {
				at[m.point] += " " + m.root
			}
		}
	}
	return at
}

func under(file, dir string) bool {
	return dir == "/" || file == dir || strings.HasPrefix(file, dir) && file[len(dir)] == '/'
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
