package remains

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/host/tree"
)

// Remove takes those findings that are of the kinds. What is left says in its
// Detail why, unless it is of another kind. The manager of units has to be
// told of units that went; it may still run them.
func (h Host) Remove(ctx context.Context, found []Finding, kinds ...Kind) (removed, left []Finding, err error) {
	v, err := h.view()
	if err != nil {
		return nil, found, err
	}
	for _, f := range found {
		if !f.Is(kinds...) || !f.Removable {
			left = append(left, f)
			continue
		}
		err := ctx.Err()
		if err == nil {
			err = v.take(ctx, f)
		}
		if err != nil {
			f.Err = err
			f.Detail += "; could not be removed: " + err.Error()
			left = append(left, f)
			continue
		}
		removed = append(removed, f)
	}
	return removed, left, v.close()
}

var errOther = errors.New("another file has its name now")

// take removes one finding. It is moved aside first: what has our name is
// looked at once nobody knows it by that any more, so that nobody's file goes
// who took the name meanwhile. A name that begins with a dot is read by none
// of the programs whose folders these are.
func (v *view) take(ctx context.Context, f Finding) error {
	dir, name := path.Split(path.Clean(f.Path))
	if !path.IsAbs(f.Path) || name == "" {
		return errors.New("it is no file")
	}
	fd, err := v.open(dir, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, unix.ENOENT) {
		return nil // removed already: the end we wanted
	}
	if err != nil {
		return fmt.Errorf("open its folder: %w", err)
	}
	goOn := func() error {
		v.tell("") // a folder of many files takes its time
		return ctx.Err()
	}
	return errors.Join(takeAt(fd, name, f, goOn), unix.Close(fd))
}

func takeAt(fd int, name string, f Finding, goOn func() error) error {
	st, err := look(fd, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if identity(st) != f.ID {
		return errOther
	}
	aside := fmt.Sprintf(".curfew-%x-%x", f.ID.Dev, f.ID.Ino)
	if err := unix.Renameat2(fd, name, fd, aside, unix.RENAME_NOREPLACE); err != nil {
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EBUSY):
			return tree.ErrMounted
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("%w: is it immutable? lsattr tells", err)
		}
		return fmt.Errorf("move it aside: %w", err)
	}
	if st, err = look(fd, aside); err == nil && identity(st) != f.ID {
		err = errOther
	}
	if err == nil {
		err = tree.RemoveAt(fd, aside, path.Dir(f.Path), goOn)
	}
	if err == nil {
		return nil
	}
	back := unix.Renameat2(fd, aside, fd, name, unix.RENAME_NOREPLACE)
	if back != nil && !errors.Is(back, unix.ENOENT) {
		err = fmt.Errorf("%w; it is called %s now: %w", err, aside, back)
	}
	return err
}
