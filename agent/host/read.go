package host

import (
	"errors"
	"io"
	"io/fs"
	"os"
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
// a device is told by the error fs.ErrInvalid, a mount by [tree.ErrMounted]. Folders
// of ours are full of what somebody with root may have put there.
func read(file string) ([]byte, fs.FileInfo, error) {
	if _, err := tree.Lstat(file); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0) //nolint:gosec // in a folder of ours
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > largest {
		return nil, info, &fs.PathError{Op: "read", Path: file, Err: fs.ErrInvalid}
	}
	b, err := io.ReadAll(io.LimitReader(f, largest))
	return b, info, err
}

// readWhole reads a file, also through a link, and says whether it is whole:
// not a link, with our mode and our owner. What cannot be read as a file has
// no text.
func readWhole(file string, mode fs.FileMode) (text string, whole bool, err error) {
	before, err := tree.Lstat(file)
	if err != nil {
		return "", false, err
	}
	linked := before.Mode()&fs.ModeSymlink != 0
	// Looked at before it is opened: to open a device can be to use it.
	if info, err := os.Stat(file); linked && err != nil || err == nil && !info.Mode().IsRegular() {
		return "", false, nil
	}
	b, info, err := read(file)
	if errors.Is(err, fs.ErrInvalid) || linked && err != nil {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return string(b), !linked && os.SameFile(before, info) && info.Mode().Perm() == mode && rooted(info), nil
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
