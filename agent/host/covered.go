package host

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// covered names the mounts that may keep processes from who looks through
// /proc: root can put one on a process's folder, and the agent can take none
// off. The list of mounts is itself read in a way that passes none.
func covered() ([]string, error) {
	text, err := mountsUncovered()
	if err != nil {
		return nil, fmt.Errorf("look for mounts over processes: %w", err)
	}
	return coveredBy(text), nil
}

// uncovered fails where processes may be hidden.
func uncovered() error {
	names, err := covered()
	if len(names) > 0 {
		err = errors.New(strings.Join(names, "; "))
	}
	return err
}

// coveredBy names those of a list of mounts.
func coveredBy(mountinfo string) []string {
	var names []string
	whole := 0
	for root, point := range mountsIn(mountinfo) {
		if point == "/proc" {
			if whole++; whole == 1 {
				continue // the one that is to be there
			}
		} else if rest, in := strings.CutPrefix(point, "/proc/"); !in || !isProcess(rest) {
			continue
		}
		names = append(names, fmt.Sprintf("a mount of %s on %s, which may hide a process: unmount it", root, point))
	}
	return names
}

// mountsIn are what proc_pid_mountinfo(5) lists: what of its file system is
// mounted, and where.
func mountsIn(mountinfo string) iter.Seq2[string, string] {
	return func(yield func(root, point string) bool) {
		for line := range strings.Lines(mountinfo) {
			if fields := strings.Fields(line); len(fields) >= 5 && !yield(fields[3], fields[4]) {
				return
			}
		}
	}
}

// hiding names the mounts that may hide a rule, a record or a session of ours,
// with what was written there before: root can put one on our folders, or on
// the one above them, and what lies under it comes back when it goes. That one
// has a mount of the host's, as homes have, which see to those in them by
// themselves.
func (h *Host) hiding() ([]string, error) {
	text, err := mountsUncovered()
	if err != nil {
		return nil, fmt.Errorf("look for mounts over what is ours: %w", err)
	}
	var names []string
	usual := map[string]bool{h.path(homeDir): true, filepath.Dir(h.path(runDir)): true}
	for root, point := range mountsIn(text) {
		first, host := usual[point]
		switch {
		case first:
			usual[point] = false
			continue
		case strings.HasPrefix(point, h.path(homeDir)+"/"):
			continue
		case !host && !below(point, h.path(runDir)) && !below(point, h.path(userdb)):
			continue
		}
		names = append(names, fmt.Sprintf("a mount of %s on %s, which may hide what is ours: unmount it", root, point))
	}
	return names, nil
}

func below(file, dir string) bool { return file == dir || strings.HasPrefix(file, dir+"/") }

// isProcess reports whether a path in /proc is about one process.
func isProcess(file string) bool {
	first, _, _ := strings.Cut(file, "/")
	_, err := strconv.ParseUint(first, 10, 32)
	return err == nil
}

func mountsUncovered() (text string, err error) {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unix.Close(proc)) }()
	var st unix.Statfs_t
	if err := unix.Fstatfs(proc, &st); err != nil {
		return "", err
	}
	if st.Type != unix.PROC_SUPER_MAGIC {
		return "", errors.New("/proc is covered by another file system: unmount it")
	}
	const own = "thread-self/mountinfo"
	fd, err := unix.Openat2(proc, own, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV})
	if errors.Is(err, unix.EXDEV) {
		return "", errors.New("the agent's own part of /proc is covered by a mount: unmount it")
	}
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), own)
	defer func() { _ = f.Close() }() // read only
	b, err := io.ReadAll(f)
	return string(b), err
}
