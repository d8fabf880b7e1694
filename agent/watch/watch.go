// Package watch ties processes to sessions in the kernel, ends them, and
// tells what they do.
//
// It loads the programs of package bpf, pins all of them, and takes over
// those of an agent before it without a gap. It knows sessions by number
// alone; whose they are, its caller knows.
package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"curfew.internal/bpf"
)

// Config says where to pin, and to whom to talk.
type Config struct {
	PinDir string // on a bpffs
	Log    *slog.Logger
}

// Watch is the agent's hold on the kernel.
type Watch struct {
	objs  bpf.WatchObjects
	links []link.Link
	log   *slog.Logger
	// Fresh says that nothing could be taken over: labels and events from
	// before, if there were any, are gone. Why is for the record.
	Fresh bool
	Why   string
}

const linkPrefix = "link-"

// Open loads the programs and makes them the ones that work.
func Open(c Config) (*Watch, error) {
	if err := os.MkdirAll(c.PinDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for pins: %w", err)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		c.Log.Info("memory limit kept", "err", err)
	}
	w := &Watch{log: c.Log}
	if _, err := os.Stat(filepath.Join(c.PinDir, "sessions")); errors.Is(err, fs.ErrNotExist) {
		w.Fresh, w.Why = true, "no programs were there"
	}
	err := w.load(c.PinDir)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		// Maps of another layout cannot be taken over. Labels are lost, and
		// that is said.
		w.Fresh, w.Why = true, "the maps of the agent before have another layout"
		if err := os.RemoveAll(c.PinDir); err != nil {
			return nil, fmt.Errorf("remove old pins: %w", err)
		}
		if err := os.MkdirAll(c.PinDir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder for pins: %w", err)
		}
		err = w.load(c.PinDir)
	}
	if err != nil {
		return nil, err
	}
	if err := w.takeOver(c.PinDir); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	if err := w.prove(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// load puts the programs of a new generation into the kernel, on the maps
// that are there.
func (w *Watch) load(dir string) error {
	spec, err := bpf.LoadWatch()
	if err != nil {
		return fmt.Errorf("read the programs: %w", err)
	}
	for name, m := range spec.Maps {
		if m.Type != ebpf.PerCPUArray && !strings.HasPrefix(name, ".") || name == "counts" {
			m.Pinning = ebpf.PinByName
		}
	}
	old, err := generations(dir)
	if err != nil {
		return err
	}
	next := uint64(1)
	for _, g := range old {
		next = max(next, g+1)
	}
	if err := spec.Variables["generation"].Set(next); err != nil {
		return fmt.Errorf("number the programs: %w", err)
	}
	err = spec.LoadAndAssign(&w.objs, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}})
	if err != nil {
		return fmt.Errorf("load programs into the kernel: %w", err)
	}
	return nil
}

// takeOver attaches this generation beside the old, turns the switch by one
// write, and takes the old one away: at no moment does a fork go unlabelled.
func (w *Watch) takeOver(dir string) error {
	old, err := generations(dir)
	if err != nil {
		return err
	}
	next := uint64(1)
	for _, g := range old {
		next = max(next, g+1)
	}
	for name, prog := range map[string]*ebpf.Program{"fork": w.objs.OnFork, "exec": w.objs.OnExec, "exit": w.objs.OnExit} {
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		w.links = append(w.links, l)
		if err := l.Pin(filepath.Join(dir, fmt.Sprintf("%s%d-%s", linkPrefix, next, name))); err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	if err := w.objs.Active.Put(uint32(0), next); err != nil {
		return fmt.Errorf("switch programs: %w", err)
	}
	return dropGenerations(dir, next)
}

// generations lists the numbers of the pinned links.
func generations(dir string) (map[string]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	found := map[string]uint64{}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), linkPrefix)
		number, _, cut := strings.Cut(rest, "-")
		if g, err := strconv.ParseUint(number, 10, 64); ok && cut && err == nil {
			found[e.Name()] = g
		}
	}
	return found, nil
}

func dropGenerations(dir string, keep uint64) error {
	found, err := generations(dir)
	if err != nil {
		return err
	}
	for name, g := range found {
		if g == keep {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove old pin: %w", err)
		}
	}
	return nil
}

// Close lets go of the kernel objects. What is pinned goes on without us.
func (w *Watch) Close() error {
	errs := []error{w.objs.Close()}
	for _, l := range w.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Mode says what this kernel gives, as proved at the start.
func (w *Watch) Mode() string { return "tracing" }

// prove labels this very process, reads the label back, and takes it off: a
// kernel on which that fails is not watched, whatever it said when the
// programs were attached.
func (w *Watch) prove() error {
	const id = 0
	self := os.Getpid()
	if err := w.mark(self, id); err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	got, ok, err := w.LabelOf(self)
	if err == nil && (!ok || got != id) {
		err = errors.New("the label does not read back")
	}
	return errors.Join(err, w.unmark(self))
}

// Lost returns how many records were sent and lost, on all CPUs.
func (w *Watch) Lost() (sent, lost uint64, err error) {
	var per []bpf.WatchTally
	if err := w.objs.Counts.Lookup(uint32(0), &per); err != nil {
		return 0, 0, fmt.Errorf("read counts: %w", err)
	}
	for _, c := range per {
		sent, lost = sent+c.Sent, lost+c.Lost
	}
	return sent, lost, nil
}
