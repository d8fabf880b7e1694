package watch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"

	"curfew.internal/bpf"
	"curfew.internal/clock"
)

// EndDue ends what is labelled and over, by the pins in a folder alone: no
// program is loaded, and whoever holds the pins is not asked. Before Linux 6.13
// the kernel ends nobody who sleeps, and with the agent dead that is for a
// sweep, which opens all the rest only after this: that takes its time. It goes
// on until two looks in turn find nobody new, or ctx is done, and says how many
// it ended: one that cannot die now, as on a disk that hangs, is not waited for.
// Where there are no pins there is nobody.
func EndDue(ctx context.Context, dir string, k clock.Clock) (ended int, err error) {
	labels, err := pinned(dir, bpf.WatchMapLabels)
	if labels == nil || err != nil {
		return 0, err
	}
	defer labels.Close() //nolint:errcheck // it was only read
	ends, err := pinned(dir, bpf.WatchMapEnds)
	if ends == nil || err != nil {
		return 0, err
	}
	defer ends.Close() //nolint:errcheck // it was only read
	killed := map[int]bool{}
	for empty := 0; empty < 2; empty++ {
		found, err := endAll(labels, ends, uint64(k.Now().Boot)) //nolint:gosec // not negative
		if err != nil {
			return len(killed), err
		}
		for _, pid := range found {
			if !killed[pid] {
				killed[pid] = true
				empty = -1
			}
		}
		select {
		case <-ctx.Done():
			return len(killed), nil
		case <-k.After(again):
		}
	}
	return len(killed), nil
}

// pinned is a map that lies there; nil, if there is none.
func pinned(dir, name string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open what is pinned as %s: %w", name, err)
	}
	return m, nil
}

// endAll looks at each process once, ends those whose session is over, and names
// them.
func endAll(labels, ends *ebpf.Map, now uint64) (found []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && alive(pid) && endOne(pid, labels, ends, now) {
			found = append(found, pid)
		}
	}
	return found, nil
}

// endOne ends a process whose session is over. All layouts begin a label with
// the session, and an end with the deadline. What fails is gone, or the next
// look tells.
func endOne(pid int, labels, ends *ebpf.Map, now uint64) (over bool) {
	_ = onPidfd(pid, 0, func(fd int) error {
		label, err := labels.LookupBytes(int32(fd)) //nolint:gosec // a descriptor
		if err != nil || len(label) < 8 {
			return err
		}
		session := binary.NativeEndian.Uint64(label)
		if session == noSession || session >= strangers {
			return nil
		}
		end, err := ends.LookupBytes(session)
		if err != nil || len(end) < 8 {
			return err
		}
		deadline := binary.NativeEndian.Uint64(end)
		if over = deadline != 0 && deadline <= now; !over {
			return nil
		}
		return finish(pid, fd)
	})
	return over
}
