// Package watch ties processes to sessions in the kernel, ends them, and
// tells what they do.
//
// It loads the programs of package bpf, pins all of them, and takes over
// those of an agent before it without losing a label or an event. It knows
// sessions by number alone and never touches a process without a label.
package watch

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
	"curfew.internal/clock"
)

// Config says where to pin, and whom to ask for the time.
type Config struct {
	PinDir string // on a bpffs; ours alone
	Log    *slog.Logger
	Clock  clock.Clock
	// Places looks up the files and folders that matter. Those that are not
	// there are passed over.
	Places func() []Place
	// Progress is called after each part of the start: what the kernel checks
	// may take it a minute on a slow machine. It may be nil.
	Progress func()
}

// Watch is the agent's hold on the kernel.
type Watch struct {
	dir    string
	places func() []Place
	log    *slog.Logger
	clock  clock.Clock
	maps   bpf.WatchMaps
	progs  map[string]*ebpf.Program
	links  []link.Link
	calls  calls
	tasks  *link.Iter
	alarm  *alarm // nil where the kernel has none
	gate   *gate  // what refuses at the end; nil where the kernel has none
	guard  *gate  // what refuses before it; nil where the kernel has none
	after  *gate  // what tells renames, links and datagrams; nil where the kernel has none
	ring   *ring
	lock   *os.File // held as long as we are the agent of this folder

	// Fresh is true if nothing of an agent before was there to take over.
	Fresh bool
	// Broken says why what was there could not be taken over: its labels and
	// the events that nobody had read are gone. Run reports it as a gap.
	Broken string

	read   atomic.Int64 // when the ring was last read to its end, in nanoseconds since boot
	ending sync.Mutex   // held while an entry of ends is read and written again
}

// ErrBusy means that another agent holds the folder.
var ErrBusy = errors.New("another agent watches this host")

// Open takes over what is pinned, puts this version of the programs in its
// place, and proves that the kernel does what they ask.
func Open(c Config) (*Watch, error) {
	w := &Watch{dir: c.PinDir, places: c.Places, log: c.Log, clock: c.Clock}
	if c.Progress == nil {
		c.Progress = func() {}
	}
	err := w.open(c.PinDir, c.Progress)
	if err == nil {
		err = w.prove()
	}
	// The kernel's types were read to fit the programs to it, which took some
	// 40 MB that are never needed again.
	debug.FreeOSMemory()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Watch) open(dir string, progress func()) error {
	var err error
	if w.lock, err = claim(dir); err != nil {
		return err
	}
	if err := w.takeMaps(dir); err != nil {
		return err
	}
	progress()
	if err := w.settle(); err != nil {
		return err
	}
	if err := w.takeOver(dir); err != nil {
		return err
	}
	progress()
	if w.alarm, err = openAlarm(dir); err != nil {
		w.log.Warn("the kernel cannot end sessions by itself", "err", err)
	}
	progress()
	if w.gate, err = w.openGate(atEnd, nil); err != nil {
		w.log.Warn("the kernel cannot refuse by itself", "err", err)
	}
	progress()
	if w.guard, err = w.openGate(before, w.know); err != nil {
		w.log.Warn("the kernel cannot keep us from a granted root", "err", err)
	}
	progress()
	if w.guard == nil {
		if err := w.know(nil); err != nil {
			return err
		}
	}
	if w.after, err = w.openGate(after, nil); err != nil {
		w.log.Warn("the kernel does not tell renames, links and datagrams", "err", err)
	}
	progress()
	if w.tasks, err = link.AttachIter(link.IterOptions{Program: w.progs["tasks"]}); err != nil {
		return fmt.Errorf("attach the task iterator: %w", err)
	}
	if w.ring, err = openRing(w.maps.Events); err != nil {
		return err
	}
	if err := w.adopt(dir); err != nil {
		// The old programs hold their sessions until somebody can.
		w.log.Error("sessions of an agent of another version are not taken over", "err", err)
		w.Broken += "; its sessions are left to its programs"
	}
	return w.dropUnknown(dir)
}

// settle makes ready for those without a label who gain privilege: what
// runs in our pid namespace, or below it, is of this host.
func (w *Watch) settle() error {
	home, err := namespace()
	if err != nil {
		return fmt.Errorf("look at our pid namespace: %w", err)
	}
	if err := w.maps.Home.Put(uint32(0), home); err != nil {
		return fmt.Errorf("say which pid namespace is ours: %w", err)
	}
	return w.begin(strangers, 0)
}

// claim makes the folder and holds a lock on it: two agents that read one
// ring would each see half of the events.
func claim(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for pins: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil, fmt.Errorf("look at the folder for pins: %w", err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return nil, fmt.Errorf("%s is not on a bpffs: mount one there (mount -t bpf bpf DIR)", dir)
	}
	f, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return nil, fmt.Errorf("open the folder for pins: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the folder for pins: %w", err), f.Close())
	}
	return f, nil
}

// Close lets go of the kernel objects. What is pinned goes on without us:
// labels are inherited, the ring fills, sessions that are over are killed.
func (w *Watch) Close() error {
	var errs []error
	if w.ring != nil {
		errs = append(errs, w.ring.close())
	}
	if w.tasks != nil {
		errs = append(errs, w.tasks.Close())
	}
	if w.alarm != nil {
		errs = append(errs, w.alarm.close())
	}
	errs = append(errs, w.gate.close(), w.guard.close(), w.after.close())
	if w.calls.link != nil {
		errs = append(errs, w.calls.link.Close())
	}
	for _, l := range w.links {
		errs = append(errs, l.Close())
	}
	for _, p := range w.progs {
		errs = append(errs, p.Close())
	}
	errs = append(errs, w.maps.Close())
	if w.lock != nil {
		errs = append(errs, w.lock.Close())
	}
	return errors.Join(errs...)
}

// Mode says what this kernel gives, as [Open] proved it. With "timer" it ends
// every process of a session that is over, whatever becomes of the agent; with
// "lsm", or "fmod_ret" where the kernel asks no LSM program, it refuses and
// ends those that begin anything; with "tracing" alone, those that fork, exec
// or change their ids end. With "guard" it refuses, before the end, what would
// take us away; with "fexit" it tells renames, links and datagrams.
func (w *Watch) Mode() string {
	mode := "tracing"
	if w.after != nil {
		mode = "fexit+" + mode
	}
	if w.guard != nil {
		mode = "guard+" + mode
	}
	switch {
	case w.gate == nil:
	case w.gate.lsm:
		mode = "lsm+" + mode
	default:
		mode = "fmod_ret+" + mode
	}
	if w.alarm != nil {
		mode += "+timer"
	}
	return mode
}

// unread is how long the ring may go unread before the record does not work.
const unread = 3 * time.Second

// Reading says why what processes do is not recorded now: nobody reads it, or
// nobody takes what was read.
func (w *Watch) Reading() error {
	since := w.clock.Now().Boot - time.Duration(w.read.Load())
	if since > unread {
		return fmt.Errorf("what processes do was not taken for %v", since.Round(time.Second))
	}
	return nil
}

// Counts are sums over all sessions since the maps were made. Made is what
// was sent and what was lost, together.
type Counts struct {
	Made, Lost uint64
	Cut        uint64 // pieces of argv that did not fit
	Unlabelled uint64 // children that could not be labelled, events without a session
	Killed     uint64 // kills by the kernel itself
	Skipped    uint64 // calls of a program that the kernel left out, for it ran on that processor already
}

// Counts reads them.
func (w *Watch) Counts() (Counts, error) {
	var each []bpf.WatchSums // by processor
	if err := w.maps.Totals.Lookup(uint32(0), &each); err != nil {
		return Counts{}, fmt.Errorf("read counts: %w", err)
	}
	var c Counts
	for _, s := range each {
		c.Made, c.Lost, c.Cut, c.Killed = c.Made+s.Made, c.Lost+s.Lost, c.Cut+s.Cut, c.Killed+s.Killed
		c.Unlabelled += s.Orphans + s.Strays
	}
	for _, p := range w.programs() {
		s, err := p.Stats()
		if err != nil {
			return Counts{}, fmt.Errorf("read how often a program was left out: %w", err)
		}
		c.Skipped += s.RecursionMisses
	}
	return c, nil
}

// programs are all that are attached.
func (w *Watch) programs() []*ebpf.Program {
	all := slices.Collect(maps.Values(w.progs))
	for _, g := range []*gate{w.gate, w.guard, w.after} {
		if g != nil {
			all = slices.AppendSeq(all, maps.Values(g.progs))
		}
	}
	if w.alarm != nil {
		all = append(all, w.alarm.objects.OnReturn)
	}
	return all
}

// Remove takes every pin away, and with them all labels: for uninstalling.
func Remove(dir string) error {
	f, err := claim(dir)
	if err != nil {
		return err
	}
	return errors.Join(empty(dir), f.Close())
}
