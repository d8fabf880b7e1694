package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// most is how many labs run at a time: the machines that test have few cores,
// and one host boots while the other is asked something.
const most = 2

// Each host's systemd takes a handful of the inotify instances that the
// kernel gives to one user, and 128 are soon gone.
const (
	inotify     = "/proc/sys/fs/inotify/max_user_instances"
	inotifyNeed = 4096
)

var errTaken = errors.New("another process holds it")

// cache returns a folder of ours below the user's cache.
func cache(name string) (string, error) {
	top, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache: %w", err)
	}
	dir := filepath.Join(top, "curfew", name)
	return dir, os.MkdirAll(dir, 0o755)
}

// tryLock takes a file's lock, which lasts until the file is closed or its
// process ends, however it ends.
func tryLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errTaken
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}

// lock waits for a file's lock.
func lock(ctx context.Context, name string) (f *os.File, err error) {
	err = Until(ctx, "a lock", func() error {
		f, err = tryLock(name)
		return err
	})
	return f, err
}

// slot waits for one of the places that labs can have.
func slot(ctx context.Context, labs string, progress io.Writer) (held *os.File, err error) {
	said := false
	err = Until(ctx, "another lab to be closed", func() error {
		for i := range most {
			if held, err = tryLock(filepath.Join(labs, "slot"+strconv.Itoa(i))); !errors.Is(err, errTaken) {
				return err
			}
		}
		if !said {
			_, _ = fmt.Fprintln(progress, "waiting for another lab to be closed")
			said = true
		}
		return err
	})
	return held, err
}

// sweep takes away the labs whose process is gone. The caller holds the lock
// of the labs.
func sweep(ctx context.Context, labs string) error {
	dirs, err := filepath.Glob(filepath.Join(labs, "cfw-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		held, err := tryLock(filepath.Join(dir, "lock"))
		if errors.Is(err, errTaken) {
			continue
		}
		if err != nil {
			errs = append(errs, err) // in doubt it lives
			continue
		}
		errs = append(errs, remove(ctx, dir))
		_ = held.Close()
	}
	return errors.Join(errs...)
}

// remove takes away all that was made for the lab of this folder: processes,
// networks, and the folder last, because it is what the rest is found by.
func remove(ctx context.Context, dir string) error {
	spaces, err := filepath.Glob("/run/netns/" + filepath.Base(dir) + "-*")
	if err != nil {
		return err
	}
	err = Until(ctx, "the end of what runs in "+dir, func() error {
		pids, err := inhabitants(dir, spaces)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone already: fine
		}
		if err == nil && len(pids) > 0 {
			err = fmt.Errorf("processes %v are left", pids)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := removeGroups(ctx, filepath.Base(dir)+"-*"); err != nil {
		return err
	}
	for _, s := range spaces {
		if err := ip(ctx, "netns", "del", filepath.Base(s)); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// inhabitants are the processes that live in one of the network namespaces or
// see the disk of a host of the lab. The kernel says so: no list of process
// ids is kept that could be out of date.
func inhabitants(dir string, spaces []string) ([]int, error) {
	ours := map[string]bool{}
	for _, s := range spaces {
		var st unix.Stat_t
		if err := unix.Stat(s, &st); err != nil {
			return nil, err
		}
		ours[fmt.Sprintf("net:[%d]", st.Ino)] = true
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	disk := []byte("upperdir=" + dir + "/")
	var pids []int
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// What can't be read belongs to a process that has just ended.
		space, _ := os.Readlink(filepath.Join("/proc", e.Name(), "ns/net"))
		mounts, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "mountinfo"))
		if ours[space] || bytes.Contains(mounts, disk) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// borrow raises a limit that the kernel has only once, and notes what it was.
// The caller holds the lock of the labs.
func borrow(labs, limit string) error {
	note := filepath.Join(labs, "inotify")
	if _, err := os.Stat(note); err == nil {
		return nil // another lab did
	}
	was, err := os.ReadFile(limit)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(was)))
	if err != nil || n >= inotifyNeed {
		return err
	}
	if err := os.WriteFile(note+".new", was, 0o600); err != nil {
		return err
	}
	if err := os.Rename(note+".new", note); err != nil {
		return err
	}
	return os.WriteFile(limit, []byte(strconv.Itoa(inotifyNeed)), 0)
}

// giveBack undoes borrow once the last lab is gone. The caller holds the lock
// of the labs.
func giveBack(labs, limit string) error {
	others, err := filepath.Glob(filepath.Join(labs, "cfw-*"))
	if err != nil || len(others) > 0 {
		return err
	}
	note := filepath.Join(labs, "inotify")
	was, err := os.ReadFile(note)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(limit, was, 0); err != nil {
		return err
	}
	return os.Remove(note)
}

func ip(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, tail(out))
	}
	return nil
}

// Until repeats a look until it finds what is to come about, or ctx is done.
func Until(ctx context.Context, what string, look func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}
