package host

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/host/tree"
)

// spoiled begins the content of what is not a file of ours to the last bit:
// no grant ever wants it.
const spoiled = "spoiled"

// largest is more than any file of ours holds.
const largest = 1 << 20

// read reads a regular file without waiting for anybody: a pipe, a folder or
// a device is told by the error fs.ErrInvalid, a mount by [tree.ErrMounted].
func read(file string) ([]byte, error) {
	if _, err := tree.Lstat(file); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0) //nolint:gosec // by a fixed name
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	b, _, err := text(f)
	return b, err
}

func text(f *os.File) ([]byte, fs.FileInfo, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > largest {
		return nil, info, &fs.PathError{Op: "read", Path: f.Name(), Err: fs.ErrInvalid}
	}
	b, err := io.ReadAll(io.LimitReader(f, largest))
	return b, info, err
}

// readWhole reads a file of ours, also through a link within its file system,
// and says whether it is whole: not a link, with our mode and our owner. What
// cannot be read as a file has no text. Folders of ours are full of what
// somebody with root may have put there.
func readWhole(file string, mode fs.FileMode) (content string, whole bool, err error) {
	before, err := tree.Lstat(file)
	if err != nil {
		return "", false, err
	}
	linked := before.Mode()&fs.ModeSymlink != 0
	f, err := openNear(file)
	if linked && err != nil || errors.Is(err, fs.ErrInvalid) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer func() { _ = f.Close() }() // read only
	b, info, err := text(f)
	if errors.Is(err, fs.ErrInvalid) || linked && err != nil {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return string(b), !linked && os.SameFile(before, info) && info.Mode().Perm() == mode && rooted(info), nil
}

// openNear opens a regular file for reading, also through a link, but never out
// of the file system that its folder is on (openat2(2)): whoever answers
// elsewhere may be a program of somebody's that never does. What is no regular
// file is fs.ErrInvalid.
func openNear(file string) (*os.File, error) {
	dir, err := unix.Open(filepath.Dir(file), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer func() { _ = unix.Close(dir) }() // opened to look
	open := func(flags uint64) (*os.File, error) {
		how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS}
		fd, err := unix.Openat2(dir, filepath.Base(file), &how)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: file, Err: err}
		}
		return os.NewFile(uintptr(fd), file), nil
	}
	// Looked at before it is opened: to open a device can be to use it.
	at, err := open(unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer func() { _ = at.Close() }() // opened to look
	if info, err := at.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, &os.PathError{Op: "open", Path: file, Err: fs.ErrInvalid})
	}
	return open(unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY)
}

func rooted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// ignore is err, unless it is the one that is as good as none.
func ignore(err, fine error) error {
	if errors.Is(err, fine) {
		return nil
	}
	return err
}
