package watch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
)

// asideDir begins the names of the folders that hold the pins of agents whose
// maps we cannot read whole.
const asideDir = "before-"

// A process that forks and exits is easily between two looks: so many in a row
// have to find nobody, out of so many at most.
const (
	quiet  = 40
	rounds = 400
)

// stale says whether the pins, all of them or what is left of them, are of a
// layout that we cannot take over as it is.
func stale(dir string) (bool, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.WatchMapLayout), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open the layout of the maps: %w", err)
	}
	defer m.Close() //nolint:errcheck // it was only read
	var version uint64
	if err := m.Lookup(uint32(0), &version); err != nil {
		return false, fmt.Errorf("read the layout of the maps: %w", err)
	}
	return version < bpf.Oldest || version > bpf.Layout, nil
}

// setAside moves all pins out of the way. What they hold works on: sessions
// are still labelled and ended by it until ours does. Links go first and the
// layout last, so that one who comes after a crash goes on with it.
func setAside(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	to, err := unfinished(dir)
	if err != nil {
		return err
	}
	rank := func(e os.DirEntry) int {
		switch {
		case e.IsDir():
			return 0
		case e.Name() == bpf.WatchMapLayout:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(entries, func(a, b os.DirEntry) int { return rank(a) - rank(b) })
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), asideDir) {
			continue
		}
		if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return fmt.Errorf("set old pins aside: %w", err)
		}
	}
	return nil
}

// unfinished is the folder that pins were being moved to, or a new one.
func unfinished(dir string) (string, error) {
	old, err := filepath.Glob(filepath.Join(dir, asideDir+"*"))
	if err != nil {
		return "", fmt.Errorf("list old pins: %w", err)
	}
	for _, folder := range old {
		if _, err := os.Stat(filepath.Join(folder, bpf.WatchMapLayout)); errors.Is(err, fs.ErrNotExist) {
			return folder, nil
		}
	}
	to, _, err := nextFolder(dir, asideDir)
	return to, err
}

// adopt gives our label to every process that has one of an agent whose pins
// were set aside, with the deadline that its session had, and then takes those
// pins away. All layouts begin a label with the session, and an end with the
// deadline. If it fails, the old pins stay, and what they do.
func (w *Watch) adopt(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, asideDir+"*"))
	if err != nil {
		return fmt.Errorf("list old pins: %w", err)
	}
	for _, folder := range old {
		if err := w.adoptFrom(folder); err != nil {
			return fmt.Errorf("take over the sessions of an agent of another version: %w", err)
		}
		// Labels first: without them there is nothing to adopt, should we die
		// in the middle.
		err := os.Remove(filepath.Join(folder, bpf.WatchMapLabels))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err := errors.Join(err, empty(folder), os.Remove(folder)); err != nil {
			return fmt.Errorf("remove old pins: %w", err)
		}
	}
	return nil
}

func (w *Watch) adoptFrom(folder string) error {
	labels, err := ebpf.LoadPinnedMap(filepath.Join(folder, bpf.WatchMapLabels), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it died before it labelled anybody, or we did after we had adopted
	}
	if err != nil {
		return err
	}
	defer labels.Close() //nolint:errcheck // it was only read
	ends, err := ebpf.LoadPinnedMap(filepath.Join(folder, bpf.WatchMapEnds), nil)
	if err != nil {
		return err
	}
	defer ends.Close() //nolint:errcheck // it was only read
	for look, found := 0, 0; look < rounds; look++ {
		n, err := w.adoptAll(labels, ends)
		if err != nil {
			return err
		}
		if n > 0 {
			found = look + 1
		}
		if look-found >= quiet {
			return w.alarm.set()
		}
	}
	return fmt.Errorf("after %d looks at all processes there are still new ones", rounds)
}

// adoptAll looks at every process once, and says how many it labelled.
func (w *Watch) adoptAll(labels, ends *ebpf.Map) (n int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		is, err := w.adoptOne(pid, labels, ends)
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL) {
			return n, fmt.Errorf("process %d: %w", pid, err)
		}
		if is {
			n++
		}
	}
	return n, nil
}

func (w *Watch) adoptOne(pid int, labels, ends *ebpf.Map) (is bool, err error) {
	err = onPidfd(pid, 0, func(fd int) error {
		raw, err := labels.LookupBytes(int32(fd)) //nolint:gosec // a descriptor
		if err != nil || len(raw) < 8 {
			return err
		}
		session := binary.NativeEndian.Uint64(raw)
		var have bpf.WatchLabel
		err = w.maps.Labels.Lookup(int32(fd), &have) //nolint:gosec // a descriptor
		if err == nil || !errors.Is(err, ebpf.ErrKeyNotExist) || session >= strangers {
			return err
		}
		// One whose end nobody knows is over.
		deadline := uint64(1)
		if raw, err = ends.LookupBytes(session); err != nil {
			return err
		}
		if len(raw) >= 8 {
			deadline = binary.NativeEndian.Uint64(raw)
		}
		if err := w.begin(session, deadline); err != nil {
			return err
		}
		l := bpf.WatchLabel{Session: session}
		_ = readIDs(pid, &l.Ids) // somebody may have hidden them; the label counts
		is = true
		return w.maps.Labels.Put(int32(fd), &l) //nolint:gosec // a descriptor
	})
	return is, err
}
