// Package tree removes folders that hostile hands may have filled, and may be
// filling still.
//
// It never follows a link and never crosses a mount: what it was not pointed
// at it does not touch.
package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrMounted stops a removal at a place where something is mounted: what lies
// behind it belongs to somebody else, down to the host's own root.
var ErrMounted = errors.New("something is mounted there, so it is left alone: unmount it")

// Bounds of a removal.
const (
	deepest = 64  // folders are open at a time; what lies deeper is moved up first
	rounds  = 16  // looks at a folder that somebody keeps filling
	batch   = 512 // names read at a time
)

// Remove takes name out of the folder dir, with all that is in it. It neither
// follows a link nor crosses a mount, and goes on after what it could not
// take. What is gone already is the end we wanted.
func Remove(dir, name string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	r := removal{base: fd, rest: []string{name}, goOn: func() error { return nil }, ours: true}
	return errors.Join(r.all(dir), unix.Close(fd))
}

// RemoveAt is Remove in an open folder, however that was reached. shown is the
// folder's path, for errors alone. Before each name in it goes goOn is asked,
// whose error ends it.
func RemoveAt(fd int, name, shown string, goOn func() error) error {
	r := removal{base: fd, rest: []string{name}, goOn: goOn}
	return r.all(shown)
}

// Loosen takes from a file or folder in dir, and from dir, the flags with which
// nobody may change them, or only add to them (ioctl_iflags(2)): root can set
// them on what is ours. It takes CAP_LINUX_IMMUTABLE, and a file system that has
// flags; whoever changes the file then sees whether it was so.
func Loosen(dir, name string) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	loosen(fd, name)
	_ = unix.Close(fd) // opened to look
}

const fixed = 0x10 | 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL (linux/fs.h)

func loosen(dir int, name string) {
	for _, at := range []string{".", name} {
		if at == name && covered(dir, name) {
			continue // it is left alone, and who is asked may never answer
		}
		var st unix.Stat_t
		err := unix.Fstatat(dir, at, &st, unix.AT_SYMLINK_NOFOLLOW)
		if kind := st.Mode & unix.S_IFMT; err != nil || kind != unix.S_IFREG && kind != unix.S_IFDIR {
			continue // to open another could be to do something
		}
		fd, err := unix.Openat(dir, at, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS); err == nil && flags&fixed != 0 {
			_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags&^fixed))
		}
		_ = unix.Close(fd) // opened to look
	}
}

// A removal is one call of Remove.
type removal struct {
	base  int      // folder from which all is taken
	rest  []string // what is still to be taken from it
	moved int      // folders moved up to it
	goOn  func() error
	ours  bool // all that is there: nobody means it to stay
}

func (r *removal) all(shown string) error {
	var errs []error
	for len(r.rest) > 0 {
		next := r.rest[0]
		r.rest = r.rest[1:]
		errs = append(errs, r.take(r.base, next, shown, 0))
	}
	return errors.Join(errs...)
}

// take removes one name. shown is the folder's path, for errors alone.
func (r *removal) take(dir int, name, shown string, depth int) error {
	shown += "/" + name
	err := unix.Unlinkat(dir, name, 0)
	if r.ours && errors.Is(err, unix.EPERM) {
		loosen(dir, name)
		err = unix.Unlinkat(dir, name, 0)
	}
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: %w", shown, ErrMounted)
	case !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM):
		return &os.PathError{Op: "remove", Path: shown, Err: err}
	}
	// O_PATH asks nothing of the file system behind a mount, which could be a
	// program of the person's that never answers.
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: shown, Err: err}
	}
	err = Mounted(fd)
	if err == nil && depth >= deepest {
		return errors.Join(r.lift(dir, name, shown), unix.Close(fd)) // gone from here
	}
	if err == nil {
		err = r.empty(fd, shown, depth)
	} else {
		err = fmt.Errorf("%s: %w", shown, err)
	}
	err = errors.Join(err, unix.Close(fd))
	if last := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err == nil && last != nil && !errors.Is(last, unix.ENOENT) {
		err = &os.PathError{Op: "remove", Path: shown, Err: last}
	}
	return err
}

// Mounted says whether fd is where a mount begins. A mask of nothing makes
// the kernel answer by itself (statx(2)).
func Mounted(fd int) error {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, 0, &st)
	if err != nil {
		return fmt.Errorf("look for a mount: %w", err)
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return ErrMounted // or a kernel that does not tell
	}
	return nil
}

// covered says whether something is mounted on name.
func covered(dir int, name string) bool {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	err = Mounted(fd)
	_ = unix.Close(fd) // opened to look
	return err != nil
}

// Lstat is as [os.Lstat], but asks nothing of what is mounted on the file: that
// is the error [ErrMounted]. Whoever answers there may be a program of somebody's
// that never does (fuse(4)).
func Lstat(file string) (fs.FileInfo, error) {
	fd, err := unix.Open(file, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "lstat", Path: file, Err: err}
	}
	f := os.NewFile(uintptr(fd), file)
	defer func() { _ = f.Close() }() // opened to look
	if err := Mounted(fd); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: file, Err: err}
	}
	return f.Stat()
}

// empty removes what is in the folder behind fd.
func (r *removal) empty(fd int, shown string, depth int) error {
	// "." opens the folder itself, also when something was mounted on it since.
	in, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: shown, Err: err}
	}
	f := os.NewFile(uintptr(in), shown)
	defer func() { _ = f.Close() }() // read only
	for range rounds {
		took, found, err := r.round(f, in, shown, depth)
		if found == 0 || err != nil && took == 0 {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: somebody keeps filling it", shown)
}

// round goes once over the names in f.
func (r *removal) round(f *os.File, fd int, shown string, depth int) (took, found int, err error) {
	var errs []error
	for {
		names, err := f.Readdirnames(batch)
		for _, n := range names {
			if err := r.goOn(); err != nil {
				return took, found, err
			}
			found++
			if err := r.take(fd, n, shown, depth+1); err != nil {
				errs = append(errs, err)
				continue
			}
			took++
		}
		if err != nil && !errors.Is(err, io.EOF) {
			errs = append(errs, err)
		}
		if err != nil {
			// A folder of a thousand mounts is one error, not a thousand.
			return took, found, errors.Join(errs[:min(len(errs), 3)]...)
		}
	}
}

// lift moves a deep folder up beside the first one, to be removed after it:
// no depth of folders takes more than a few of our descriptors.
func (r *removal) lift(dir int, name, shown string) error {
	for {
		r.moved++
		up := fmt.Sprintf(".curfew-%d-%d", os.Getpid(), r.moved)
		err := unix.Renameat2(dir, name, r.base, up, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "move", Path: shown, Err: err}
		}
		r.rest = append(r.rest, up)
		return nil
	}
}
