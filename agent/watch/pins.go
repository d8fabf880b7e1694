package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"

	"curfew.internal/bpf"
)

// linkDir begins the names of the folders that hold one agent's links each.
const linkDir = "links-"

// scratch maps hold nothing from one event to the next.
var scratch = map[string]bool{bpf.WatchMapExecBuffer: true, bpf.WatchMapArgvBuffer: true, bpf.WatchMapPathBuffer: true, bpf.WatchMapDeedBuffer: true, bpf.AfterMapAsked: true, bpf.AfterMapSent: true}

// errOther is what is said of pins with another layout.
var errOther = fmt.Errorf("they have another layout: %w", ebpf.ErrMapIncompatible)

// takeMaps loads the programs over the pinned maps. Maps that another layout
// wrote are set aside: then all begins anew, which is said, and their sessions
// are adopted.
func (w *Watch) takeMaps(dir string) error {
	other, err := stale(dir)
	if err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(dir, bpf.WatchMapLabels))
	w.Fresh = errors.Is(err, fs.ErrNotExist)
	if err = errOther; !other {
		err = w.load(dir)
	}
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		w.Fresh, w.Broken = true, fmt.Sprintf("unread events of an agent of another version are lost: %v", err)
		w.log.Error("pinned maps are of another version: starting anew", "err", err)
		if err := setAside(dir); err != nil {
			return err
		}
		err = w.load(dir)
	}
	return err
}

func (w *Watch) load(dir string) error {
	spec, err := bpf.LoadWatch()
	if err != nil {
		return fmt.Errorf("read the programs: %w", err)
	}
	for name, m := range spec.Maps {
		if !scratch[name] && !strings.HasPrefix(name, ".") {
			m.Pinning = ebpf.PinByName
		}
	}
	if err := fit(spec); err != nil {
		return err
	}
	// Refused inside some containers, and needed before Linux 5.11 only: where
	// it is needed, loading fails and says so.
	_ = rlimit.RemoveMemlock()
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}})
	if err != nil {
		return fmt.Errorf("load programs into the kernel: %w", err)
	}
	defer coll.Close() // of what is left in it
	if err := coll.Maps[bpf.WatchMapLayout].Put(uint32(0), uint64(bpf.Layout)); err != nil {
		return fmt.Errorf("write the layout of the maps: %w", err)
	}
	if err := coll.Assign(&w.maps); err != nil {
		return fmt.Errorf("take the maps: %w", err)
	}
	w.progs = map[string]*ebpf.Program{}
	for name := range coll.Programs {
		w.progs[name] = coll.DetachProgram(name)
	}
	return nil
}

// optional are the programs that an older kernel, or one without modules or
// io_uring, has no tracepoint for. Without on_prepare (before 6.10), a thread
// that was there when its process was labelled, and then execs, loses the label.
var optional = map[string]string{
	"on_prepare": "sched_prepare_exec", "on_module": "module_load", "on_module_gone": "module_free", "on_ring": "io_uring_submit_req",
}

// fit leaves out what this kernel has no tracepoint for.
func fit(spec *ebpf.CollectionSpec) error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("read the kernel's types: %w", err)
	}
	for name, point := range optional {
		_, err := kernel.AnyTypesByName("btf_trace_" + point)
		if errors.Is(err, btf.ErrNotFound) {
			delete(spec.Programs, name)
		} else if err != nil {
			return fmt.Errorf("look for the tracepoint %s: %w", point, err)
		}
	}
	return nil
}

// takeOver attaches our programs beside those of the agent before us, and
// then takes the old ones away. Meanwhile both run: a fork that is labelled
// twice is labelled once, and an event that one told the other does not tell.
func (w *Watch) takeOver(dir string) error {
	ours, old, err := nextFolder(dir, linkDir)
	if err != nil {
		return err
	}
	w.calls.dir = ours
	for name, prog := range w.progs {
		if prog.Type() != ebpf.Tracing || name == "tasks" {
			continue
		}
		l, err := attach(prog, filepath.Join(ours, name))
		if err != nil {
			return err
		}
		if name == onCall {
			w.calls.link = l
			continue
		}
		w.links = append(w.links, l)
	}
	for _, name := range old {
		if err := os.RemoveAll(name); err != nil {
			return fmt.Errorf("remove old links: %w", err)
		}
	}
	return nil
}

// nextFolder makes the folder for our links, and lists those of agents before
// us.
func nextFolder(dir, prefix string) (ours string, old []string, err error) {
	old, err = filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		return "", nil, fmt.Errorf("list links: %w", err)
	}
	next := 1
	for _, name := range old {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), prefix))
		if err == nil {
			next = max(next, n+1)
		}
	}
	ours = filepath.Join(dir, prefix+strconv.Itoa(next))
	if err := os.Mkdir(ours, 0o700); err != nil {
		return "", nil, fmt.Errorf("make the folder for links: %w", err)
	}
	return ours, old, nil
}

// dropUnknown removes the pins of a later version that we have no name for.
// Its programs would go on, and tell what nobody here can read.
func (w *Watch) dropUnknown(dir string) error {
	ours := map[string]bool{onReturn: true}
	for _, read := range []func() (*ebpf.CollectionSpec, error){bpf.LoadWatch, bpf.LoadLock, bpf.LoadGate, bpf.LoadGuard, bpf.LoadAfter} {
		spec, err := read()
		if err != nil {
			return fmt.Errorf("read the programs: %w", err)
		}
		for name := range spec.Maps {
			ours[name] = true
		}
	}
	folders := []string{linkDir, asideDir, atEnd.dir, before.dir, after.dir}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	for _, e := range entries {
		begins := func(prefix string) bool { return strings.HasPrefix(e.Name(), prefix) }
		if ours[e.Name()] || e.IsDir() && slices.ContainsFunc(folders, begins) {
			continue
		}
		w.log.Warn("a pin of another version is removed", "pin", e.Name())
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove a pin of another version: %w", err)
		}
	}
	return nil
}

// empty removes all pins: links first, so that no program works on maps that
// nobody will read.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	var errs []error
	for _, links := range []bool{true, false} {
		for _, e := range entries {
			if e.IsDir() == links {
				errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}
