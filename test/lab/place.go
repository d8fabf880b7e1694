package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A File is put into a host before it starts: a text, a copy of a file of the
// machine, or a symbolic link.
type File struct {
	Path string // on the host
	From string // on the machine; or
	Link string // what the link says; or
	Text string
	Mode fs.FileMode
}

// place puts a file on a host's own disk, above the root that all share.
func place(upper, root string, f File) error {
	if !filepath.IsAbs(f.Path) || filepath.Clean(f.Path) != f.Path {
		return fmt.Errorf("place %q: not a clean path", f.Path)
	}
	if err := parents(upper, root, filepath.Dir(f.Path)); err != nil {
		return fmt.Errorf("place %s: %w", f.Path, err)
	}
	to := filepath.Join(upper, f.Path)
	if f.Link != "" {
		return os.Symlink(f.Link, to)
	}
	b := []byte(f.Text)
	if f.From != "" {
		var err error
		if b, err = os.ReadFile(f.From); err != nil {
			return err
		}
	}
	if err := os.WriteFile(to, b, f.Mode); err != nil {
		return err
	}
	return os.Chmod(to, f.Mode) // whatever the umask
}

// parents makes a folder as it is in the root: the upper one's mode and owner
// are what the host sees, so that a careless /etc/sudoers.d would be open to
// all, and a folder /lib would hide the link of that name and all behind it.
func parents(upper, root, dir string) error {
	at := ""
	for part := range strings.SplitSeq(strings.TrimPrefix(dir, "/"), "/") {
		at = filepath.Join(at, part)
		mode, uid, gid := fs.FileMode(0o755), 0, 0
		st, err := os.Lstat(filepath.Join(root, at))
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return err
		case !st.IsDir():
			return fmt.Errorf("/%s is no folder on a host: name what it leads to", at)
		default:
			own := st.Sys().(*syscall.Stat_t)
			mode, uid, gid = st.Mode(), int(own.Uid), int(own.Gid)
		}
		err = os.Mkdir(filepath.Join(upper, at), 0o700)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(os.Chown(filepath.Join(upper, at), uid, gid), os.Chmod(filepath.Join(upper, at), mode)); err != nil {
			return err
		}
	}
	return nil
}
