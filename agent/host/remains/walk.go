package remains

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// deepest is how many folders are open at a time; what lies deeper is named
// as not looked at.
const deepest = 256

var (
	errSpent = errors.New("not all was looked at: it holds too many names")
	errLate  = errors.New("not all was looked at: the time was over")
)

// spent says why the walk has to stop, if it has to.
func (l *search) spent(ctx context.Context) error {
	if l.names <= 0 {
		return errSpent
	}
	if l.names%256 == 0 {
		if l.tell(""); ctx.Err() != nil {
			return errLate
		}
	}
	l.names--
	return nil
}

// folder walks all of one file system below dir.
func (l *search) folder(ctx context.Context, dir string) {
	fd, err := l.open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOTDIR) {
		return // not there, another machine's, or a file that is mounted by itself
	}
	if err == nil {
		err = l.walk(ctx, fd, level{shown: path.Clean(dir), kind: homely(dir)})
	}
	if err != nil {
		l.skip(dir, err)
	}
}

// homely is the kind of what is the account's in a folder.
func homely(dir string) Kind {
	for _, s := range shared {
		if under(dir, s) {
			return TempFile
		}
	}
	return OwnedFile
}

// A level is a folder that is being walked.
type level struct {
	shown  string // its path
	depth  int
	kind   Kind // of what is the account's in it
	theirs bool // told as the account's already
}

// walk looks at each name in the folder fd, which it closes. It stops for the
// bounds alone.
func (l *search) walk(ctx context.Context, fd int, at level) error {
	f := os.NewFile(uintptr(fd), at.shown)
	defer func() { _ = f.Close() }() // read only
	for {
		names, err := f.Readdirnames(512)
		for _, n := range names {
			if err := l.spent(ctx); err != nil {
				return fmt.Errorf("%w, in %s", err, at.shown)
			}
			if err := l.entry(ctx, fd, n, at); err != nil {
				return err
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			l.skip(at.shown, err)
		}
		if err != nil {
			return nil
		}
	}
}

// entry looks at one name.
func (l *search) entry(ctx context.Context, dir int, name string, at level) error {
	st, err := look(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil // gone meanwhile
	}
	if err != nil {
		l.skip(path.Join(at.shown, name), err)
		return nil
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return nil // walked by itself, if it is local
	}
	own := st.Uid == l.s.UID
	if own && !at.theirs {
		l.own(name, at, st)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		l.privileged(dir, name, at, st)
	case unix.S_IFBLK, unix.S_IFCHR:
		l.device(name, at, st)
	case unix.S_IFDIR:
		next := level{path.Join(at.shown, name), at.depth + 1, at.kind, own}
		if at.kind == OwnedFile && slices.Contains(shared, next.shown) {
			return nil // walked already
		}
		return l.down(ctx, dir, name, next)
	}
	return nil
}

// own notes what the account owns.
func (l *search) own(name string, at level, st unix.Statx_t) {
	file := path.Join(at.shown, name)
	if under(file, "/run/curfew") || under(file, "/proc") {
		return // homes and their like are looked at as things of a grant
	}
	f := Fact{Mode: st.Mode, UID: st.Uid, Size: st.Size}
	l.add(Finding{Kind: at.kind, Path: file, Detail: "theirs: " + describe(f), Removable: true, ID: identity(st)})
}

// privileged notes a file that gives whoever starts it the rights of another,
// if it was made or changed since the session began.
func (l *search) privileged(dir int, name string, at level, st unix.Statx_t) {
	if nanos(st.Ctime) < l.s.Since.UnixNano() {
		return
	}
	f := Finding{Kind: Setuid, Path: path.Join(at.shown, name), ID: identity(st)}
	// What was there before is somebody's, however it came by its mode.
	f.Removable = st.Uid == l.s.UID || f.ID.Born >= l.s.Since.UnixNano()
	f.Detail = fmt.Sprintf("mode %o, owner %d, group %d, changed %s", st.Mode&0o7777, st.Uid, st.Gid, stamp(nanos(st.Ctime)))
	if st.Nlink > 1 {
		f.Detail += fmt.Sprintf(", one of %d names of it", st.Nlink)
	}
	if st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		// Asked by the folder's descriptor: to open a file can be to wait for
		// the holder of a lease.
		_, err := unix.Lgetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name), "security.capability", nil)
		if err != nil {
			return // none
		}
		f.Kind = Capability
	}
	l.add(f)
}

// device notes a file that leads to a disk, to memory or the like, if it was
// made or changed since the session began: whoever may open it reads and writes
// past all that guards what lies there. The one without a number is an
// overlay's word that a file is gone. In /dev the kernel makes them, and udev
// touches a disk's whenever somebody wrote to it: there a disk is noted that
// everybody may open.
func (l *search) device(name string, at level, st unix.Statx_t) {
	if nanos(st.Ctime) < l.s.Since.UnixNano() || st.Rdev_major == 0 && st.Rdev_minor == 0 {
		return
	}
	if under(at.shown, "/dev") && (st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Mode&0o006 == 0) {
		return
	}
	l.add(Finding{
		Kind: Device, Path: path.Join(at.shown, name), ID: identity(st),
		Detail: fmt.Sprintf("device %d:%d, mode %o, owner %d, changed %s", st.Rdev_major, st.Rdev_minor, st.Mode&0o7777, st.Uid, stamp(nanos(st.Ctime))),
	})
}

// down walks a folder in a folder.
func (l *search) down(ctx context.Context, dir int, name string, at level) error {
	if at.depth > deepest {
		l.skip(brief(at.shown), fmt.Errorf("not all was looked at: it is more than %d folders deep", deepest))
		return nil
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_NO_XDEV)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ELOOP) {
		return nil // gone, exchanged, or mounted on meanwhile
	}
	if err != nil {
		l.skip(at.shown, err)
		return nil
	}
	return l.walk(ctx, fd, at)
}

// packaged takes from Removable what belongs to a package.
func (l *search) packaged(ctx context.Context) error {
	listed, known, err := l.packages(ctx)
	for key, f := range l.found {
		switch {
		case !f.Removable:
			continue
		case listed[usr(f.Path)]:
			f.Detail += "; a package's file"
		case !known && delivered(f.Path):
			f.Detail += "; perhaps a package's file"
		case slices.ContainsFunc(containers, func(u string) bool { return under(f.Path, u) }):
			f.Detail += "; part of a container"
		default:
			continue
		}
		f.Removable = false
		l.found[key] = f
	}
	return err
}

// delivered reports whether a path lies where packages put programs.
func delivered(file string) bool { return under(usr(file), "/usr") || under(file, "/opt") }

// usr is a path on a host whose /bin, /sbin and /lib are in /usr, as dpkg's
// lists may not say.
func usr(file string) string {
	first, _, ok := strings.Cut(strings.TrimPrefix(file, "/"), "/")
	if ok && (first == "bin" || first == "sbin" || strings.HasPrefix(first, "lib")) {
		return "/usr" + file
	}
	return file
}

// packages tells which of the findings dpkg knows. known says that all of its
// lists could be read.
func (l *search) packages(ctx context.Context) (listed map[string]bool, known bool, err error) {
	const dir = "/var/lib/dpkg/info"
	want := map[string]bool{}
	for _, f := range l.found {
		if f.Removable {
			want[usr(f.Path)] = true
		}
	}
	if len(want) == 0 {
		return nil, true, nil
	}
	names := l.list(dir)
	listed = map[string]bool{}
	known = len(names) > 0 && len(names) < crowd
	for _, n := range names {
		if !strings.HasSuffix(n, ".list") {
			continue
		}
		if ctx.Err() != nil {
			return listed, false, ctx.Err()
		}
		text, err := l.read(path.Join(dir, n), 64<<20)
		if err != nil {
			return listed, false, err
		}
		for line := range strings.Lines(text) {
			if file := usr(strings.TrimSuffix(line, "\n")); want[file] {
				listed[file] = true
			}
		}
	}
	return listed, known, nil
}
