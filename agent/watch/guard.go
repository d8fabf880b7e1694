package watch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
)

// before is the guard: before the end, it refuses to labelled processes what
// would take us away, and tells of it.
var before = refuser{"guard-", bpf.GuardMapGuarded, bpf.LoadGuard}

// A Place is a file, or a folder with what lies under it, that labelled
// processes may not change; or a folder under one that they may; or one where
// it is told who opens for writing.
type Place struct {
	Path       string
	Free, Seen bool
}

// openGate loads programs, gives them what they have to know, and only then
// has them run.
func (w *Watch) openGate(r refuser, prepare func(*gate) error) (*gate, error) {
	g, err := r.open(w.dir)
	if err != nil || g == nil {
		return nil, err
	}
	if prepare != nil {
		err = prepare(g)
	}
	if err == nil {
		err = g.attach(w.dir, r)
	}
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// Guard says whether a session is kept from taking us away; it is, until its
// role says otherwise.
func (w *Watch) Guard(session uint64, on bool) error {
	if w.guard == nil {
		return nil
	}
	trusted := w.guard.maps[bpf.GuardMapTrusted]
	err := trusted.Put(session, uint32(1))
	if on {
		err = trusted.Delete(session)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("guard session %d: %w", session, err)
	}
	return nil
}

// Guards says whether the kernel refuses, before the end, what would take us away.
func (w *Watch) Guards() bool { return w != nil && w.guard != nil }

// Ours has a process that the agent started guarded as the agent is. It is for
// where it [Watch.Guards].
func (w *Watch) Ours(pid int) error {
	if err := w.guard.mark(pid, bpf.GuardMarkOURS); err != nil {
		return fmt.Errorf("mark a process of the agent's: %w", err)
	}
	return nil
}

// mark has the kernel refuse what labelled tasks would do to a process.
func (g *gate) mark(pid int, m bpf.GuardMark) error {
	return onPidfd(pid, 0, func(fd int) error { return g.maps[bpf.GuardMapMarks].Put(int32(fd), uint32(m)) }) //nolint:gosec // a descriptor
}

// resync is how often the guarded files are looked up again: an upgrade puts
// others in their places.
const resync = 10 * time.Second

// Refresh keeps the kernel's list of files that matter true until ctx is done.
func (w *Watch) Refresh(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.clock.After(resync):
		}
		if err := w.know(w.guard); err != nil {
			w.log.WarnContext(ctx, "files that matter not looked up", "err", err)
		}
	}
}

// know tells the kernel who we are and which files matter. What is new is
// there before what is old goes.
func (w *Watch) know(g *gate) error {
	if g != nil {
		if err := errors.Join(g.mark(os.Getpid(), bpf.GuardMarkOURS), g.mark(1, bpf.GuardMarkFIRST)); err != nil {
			return fmt.Errorf("mark the agent and the first process: %w", err)
		}
	}
	places := []Place{{Path: w.dir}}
	if w.places != nil {
		places = append(places, w.places()...)
	}
	found, order, err := wardsOf(places)
	if err != nil {
		return err
	}
	over, err := w.note(order, found)
	if err != nil {
		return err
	}
	wards := w.maps.Wards
	var ward bpf.WatchWard
	var place uint32
	var gone []bpf.WatchWard
	it := wards.Iterate()
	for it.Next(&ward, &place) {
		if _, ok := found[ward]; !ok {
			gone = append(gone, ward)
		}
	}
	errs := []error{it.Err()}
	for _, ward := range gone {
		errs = append(errs, wards.Delete(&ward))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("forget files that mattered: %w", err)
	}
	if len(over) == 0 {
		return nil
	}
	if over, err = w.note(over, found); len(over) > 0 {
		w.log.Error("more files matter than the kernel's list has room for: the rest is not guarded", "rest", len(over))
	}
	return err
}

// note puts files on the kernel's list, and returns those that had no room.
func (w *Watch) note(order []bpf.WatchWard, found map[bpf.WatchWard]bpf.WatchPlace) (over []bpf.WatchWard, err error) {
	for _, ward := range order {
		err := w.maps.Wards.Put(&ward, uint32(found[ward]))
		if errors.Is(err, unix.E2BIG) {
			over = append(over, ward)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("note a file that matters: %w", err)
		}
	}
	return over, nil
}

// wardsOf finds the places, and the folders on the way to them, in their order.
func wardsOf(places []Place) (found map[bpf.WatchWard]bpf.WatchPlace, order []bpf.WatchWard, err error) {
	mounts, err := devices()
	if err != nil {
		return nil, nil, err
	}
	found = map[bpf.WatchWard]bpf.WatchPlace{}
	add := func(path string, place bpf.WatchPlace) error {
		ward, err := wardOf(path, mounts)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at %s: %w", path, err)
		}
		if _, known := found[ward]; !known {
			order = append(order, ward)
		}
		found[ward] = also(found[ward], place)
		return nil
	}
	var errs []error
	ways := map[string]bool{} // most places have one in common
	for _, p := range places {
		path, err := filepath.EvalSymlinks(p.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		place := bpf.WatchPlaceUNDER
		switch {
		case p.Free:
			place = bpf.WatchPlaceFREE
		case p.Seen:
			errs = append(errs, err, add(path, bpf.WatchPlaceSEEN))
			continue
		}
		errs = append(errs, err, add(path, place))
		for dir := filepath.Dir(path); err == nil && !ways[dir]; dir = filepath.Dir(dir) {
			errs = append(errs, add(dir, bpf.WatchPlaceWAY))
			ways[dir] = true
		}
	}
	return found, order, errors.Join(errs...)
}

// also is what a place is that is another one as well: what it was first counts
// more, unless it lies but on the way to one.
func also(have, place bpf.WatchPlace) bpf.WatchPlace {
	switch is := have &^ bpf.WatchPlaceSEEN; {
	case place == bpf.WatchPlaceSEEN:
		return have | place
	case is == 0 || is == bpf.WatchPlaceWAY:
		return have&bpf.WatchPlaceSEEN | place
	}
	return have
}

// wardOf names a file as the kernel does: by the device of its file system,
// which on some, as btrfs, is not the one that stat(2) gives.
func wardOf(path string, mounts map[string]uint64) (bpf.WatchWard, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return bpf.WatchWard{}, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return bpf.WatchWard{}, err
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return bpf.WatchWard{}, err
	}
	for line := range strings.Lines(string(info)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			if dev, ok := mounts[strings.TrimSpace(id)]; ok {
				return bpf.WatchWard{Dev: dev, Ino: st.Ino}, nil
			}
		}
	}
	return bpf.WatchWard{}, errors.New("its mount is not in /proc/self/mountinfo")
}

// devices are those of the mounts, by number (proc_pid_mountinfo(5)), as the
// kernel encodes them: 12 bits major, 20 minor.
func devices() (map[string]uint64, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	all := map[string]uint64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 3 {
			continue
		}
		major, minor, _ := strings.Cut(words[2], ":")
		x, err := strconv.ParseUint(major, 10, 12)
		y, err2 := strconv.ParseUint(minor, 10, 20)
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("read /proc/self/mountinfo: %w", err)
		}
		all[words[0]] = x<<20 | y
	}
	return all, lines.Err()
}
