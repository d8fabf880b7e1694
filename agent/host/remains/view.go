package remains

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// beside is what is in a folder's Statx_t for us.
const beside = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// A view is one look at a host: its root, and what is mounted there.
type view struct {
	fd     int
	mounts mounts
	away   map[string]bool // mount points that are not looked behind, and what does not answer
	silent []string
	tell   func(file string)
}

func (h Host) view() (*view, error) {
	fd, err := unix.Open(h.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: h.Root, Err: err}
	}
	v := &view{fd: fd, away: map[string]bool{}, silent: h.Away, tell: h.Tell}
	if v.tell == nil {
		v.tell = func(string) {}
	}
	text, err := v.read("/proc/self/mountinfo", 16<<20)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look what is mounted: %w", err), unix.Close(fd))
	}
	if v.mounts = parseMounts(text); len(v.mounts) == 0 {
		return nil, errors.Join(errors.New("look what is mounted: nothing is, it seems"), unix.Close(fd))
	}
	return v, nil
}

func (v *view) close() error { return unix.Close(v.fd) }

// near reports whether a path lies on a file system that answers by itself. A
// server that is gone, or a program of the person's, would keep us waiting. One
// that stands on such a file system does as well: that shows when it is asked.
func (v *view) near(file string) bool {
	if v.mute(file) {
		return false
	}
	m, ok := v.mounts.over(file)
	if ok && !m.near() {
		v.away[fmt.Sprintf("%s (%s)", m.point, m.kind)] = true
		return false
	}
	return true
}

// mute tells what is asked next, and reports whether it did not answer before.
func (v *view) mute(file string) bool {
	for _, s := range v.silent {
		if file == s || s != "/" && under(file, s) {
			v.away[s+", which does not answer"] = true
			return true
		}
	}
	v.tell(file)
	return false
}

// open opens a path as if Root were the root. Its last name is not followed.
func (v *view) open(file string, flags, resolve uint64) (int, error) {
	if !v.near(file) {
		return -1, unix.EXDEV
	}
	return openat(v.fd, strings.TrimPrefix(path.Clean(file), "/"), flags|unix.O_NOFOLLOW, unix.RESOLVE_IN_ROOT|resolve)
}

// openat opens what cannot make us wait: not for a pipe's other end, and not
// for the holder of a lease.
func openat(dir int, name string, flags, resolve uint64) (int, error) {
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: resolve | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&(unix.O_PATH|unix.O_DIRECTORY) != 0 {
		how.Flags &^= unix.O_NONBLOCK | unix.O_NOCTTY // openat2 takes no flag in vain
	}
	for range 32 { // a rename somewhere makes it try again
		fd, err := unix.Openat2(dir, name, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
		if flags&unix.O_PATH == 0 && leased(dir, name) {
			return -1, unix.EWOULDBLOCK
		}
	}
	return -1, unix.EAGAIN
}

// leased tells a lease on a regular file, which openat2 answers with the error
// that says "try again" too.
func leased(dir int, name string) bool {
	st, err := look(dir, name)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// look tells about a name without opening it or waiting for a server.
func look(dir int, name string) (st unix.Statx_t, err error) {
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC | unix.AT_EMPTY_PATH
	err = unix.Statx(dir, name, flags, beside, &st)
	return st, err
}

// read reads a small regular file.
func (v *view) read(file string, most int) (string, error) {
	fd, err := v.open(file, unix.O_RDONLY, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: file, Err: err}
	}
	b, err := slurp(fd, most)
	if err != nil {
		return "", &os.PathError{Op: "read", Path: file, Err: err}
	}
	return string(b), nil
}

// slurp reads what fd has, if it is a regular file of no more than most bytes,
// and closes it. An os.File would ask the kernel to be told when there is more.
func slurp(fd, most int) (b []byte, err error) {
	defer func() { _ = unix.Close(fd) }() // read only
	st, err := look(fd, "")
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("it is no file")
	}
	b = make([]byte, 0, min(st.Size, uint64(most))+4096) //nolint:gosec // not negative
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 || err != nil {
			return b, err
		}
		if b = b[:len(b)+n]; len(b) > most {
			return nil, fmt.Errorf("it is larger than %d bytes", most)
		}
		b = slices.Grow(b, 512)
	}
}

// skipped lists what near turned away.
func (v *view) skipped() []string { return sorted(v.away) }

func identity(st unix.Statx_t) Identity {
	id := Identity{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, UID: st.Uid, Type: st.Mode & unix.S_IFMT}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Born = nanos(st.Btime)
	}
	return id
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
