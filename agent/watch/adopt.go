package watch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
)

// asideDir begins the names of the folders that hold the pins of agents whose
// maps we cannot read whole.
const asideDir = "before-"

// rounds is how often processes are looked for that have the label of an agent
// before us and not ours: each forks while we look.
const rounds = 50

// setAside moves all pins out of the way. What they hold works on: sessions
// are still labelled and ended by it until ours does.
func setAside(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	to, _, err := nextFolder(dir, asideDir)
	if err != nil {
		return err
	}
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
		if err := errors.Join(empty(folder), os.Remove(folder)); err != nil {
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
	for range rounds {
		n, err := w.adoptAll(labels, ends)
		if err != nil {
			return err
		}
		if n == 0 {
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

func (w *Watch) adoptOne(pid int, labels, ends *ebpf.Map) (bool, error) {
	var raw []byte
	err := onPidfd(pid, 0, func(fd int) (err error) {
		raw, err = labels.LookupBytes(int32(fd)) //nolint:gosec // a descriptor
		return err
	})
	if err != nil || len(raw) < 8 {
		return false, err
	}
	session := binary.NativeEndian.Uint64(raw)
	if _, has, err := w.LabelOf(pid); has || err != nil || session >= strangers {
		return false, err
	}
	// One whose end nobody knows is over.
	deadline := uint64(1)
	if raw, err = ends.LookupBytes(session); err != nil {
		return false, err
	}
	if len(raw) >= 8 {
		deadline = binary.NativeEndian.Uint64(raw)
	}
	if err := w.begin(session, deadline); err != nil {
		return false, err
	}
	return true, w.mark(pid, -1, session)
}
