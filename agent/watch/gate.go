package watch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
)

// A gate is programs of ours that the kernel asks and that refuse, or that see
// what functions of it returned. A nil gate is that of a kernel that has none.
type gate struct {
	lsm     bool // or before the functions that ask LSMs
	maps    map[string]*ebpf.Map
	refused *ebpf.Map // nil where they only see
	progs   map[string]*ebpf.Program
	links   []link.Link
}

// A refuser is what a gate is made from. The gate at the end refuses to
// labelled processes whose session is over, and they die of the try; see
// [guard] for the other.
type refuser struct {
	dir     string // begins the names of the folders that hold one agent's links each
	counter string // the map that counts refusals, if they refuse
	load    func() (*ebpf.CollectionSpec, error)
}

var atEnd = refuser{"gate-", bpf.GateMapRefused, bpf.LoadGate}

// activeLSMs is where the kernel says who is asked. Programs load and attach as
// LSM programs also where "bpf" is not among them, and then never run.
const activeLSMs = "/sys/kernel/security/lsm"

// asks reports whether the kernel asks LSM programs. Where it does not, ours
// stand before the functions that ask the other LSMs (fmod_ret).
func asks() (bool, error) {
	active, err := os.ReadFile(activeLSMs)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // a kernel, or a container, without the list
	}
	if err != nil {
		return false, fmt.Errorf("read which LSMs are active: %w", err)
	}
	return slices.Contains(strings.Split(strings.TrimSpace(string(active)), ","), "bpf"), nil
}

// open loads this version's programs. It returns nil where the kernel takes
// none that refuse.
func (r refuser) open(dir string) (*gate, error) {
	lsm, err := asks()
	if err != nil {
		return nil, err
	}
	g := &gate{lsm: lsm, progs: map[string]*ebpf.Program{}, maps: map[string]*ebpf.Map{}}
	if err := g.load(dir, r); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

func (g *gate) load(dir string, r refuser) error {
	spec, err := r.load()
	if err != nil {
		return fmt.Errorf("read the programs: %w", err)
	}
	if err := known(spec, g.lsm); err != nil {
		return err
	}
	for name, m := range spec.Maps {
		if !scratch[name] && !strings.HasPrefix(name, ".") {
			m.Pinning = ebpf.PinByName
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}})
	if err != nil {
		return fmt.Errorf("load programs %s*: %w", r.dir, err)
	}
	defer coll.Close() // of what is left in it
	for name := range spec.Maps {
		g.maps[name] = coll.DetachMap(name)
	}
	g.refused = g.maps[r.counter]
	for name := range spec.Programs {
		g.progs[name] = coll.DetachProgram(name)
	}
	return nil
}

// functions are those that ask the LSMs, where they are not called security_
// and the hook's name.
var functions = map[string]string{
	"bprm_check_security": "security_bprm_check", "settime": "security_settime64", "userns_create": "security_create_user_ns",
}

// known leaves out what an older kernel does not ask about, says what of it
// has other arguments, and puts the programs where they are asked.
func known(spec *ebpf.CollectionSpec, lsm bool) error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("read the kernel's types: %w", err)
	}
	asked := func(hook string) string {
		if lsm {
			return "bpf_lsm_" + hook
		}
		return cmp.Or(functions[hook], "security_"+hook)
	}
	for name, p := range spec.Programs {
		function := asked(p.AttachTo)
		switch {
		case p.AttachType == ebpf.AttachTraceFExit && name != bpf.AfterProgDidSend6:
			continue // all or none: half would look like the whole
		case p.AttachType == ebpf.AttachTraceFExit:
			function = p.AttachTo
		case !lsm:
			p.Type, p.AttachType, p.AttachTo = ebpf.Tracing, ebpf.AttachModifyReturn, function
		}
		_, err := kernel.AnyTypesByName(function)
		if errors.Is(err, btf.ErrNotFound) {
			delete(spec.Programs, name)
		} else if err != nil {
			return fmt.Errorf("look for the hook %s: %w", p.AttachTo, err)
		}
	}
	if v := spec.Variables["setattr_has_ids"]; v != nil {
		var hook *btf.Func
		if err := kernel.TypeByName(asked("inode_setattr"), &hook); err != nil {
			return fmt.Errorf("look at the hook inode_setattr: %w", err)
		}
		has := uint32(0)
		if proto, ok := hook.Type.(*btf.FuncProto); ok && len(proto.Params) > 2 {
			has = 1
		}
		return v.Set(has)
	}
	return nil
}

// attach has every program run, and then takes those of the agent before us
// away: all of ours run first.
func (g *gate) attach(dir string, r refuser) error {
	ours, old, err := nextFolder(dir, r.dir)
	if err != nil {
		return err
	}
	for name, prog := range g.progs {
		l, err := g.link(prog)
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		g.links = append(g.links, l)
		if err := l.Pin(filepath.Join(ours, name)); err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	for _, name := range old {
		if err := os.RemoveAll(name); err != nil {
			return fmt.Errorf("remove old links: %w", err)
		}
	}
	return nil
}

func (g *gate) link(prog *ebpf.Program) (link.Link, error) {
	if g.refused == nil {
		return link.AttachTracing(link.TracingOptions{Program: prog, AttachType: ebpf.AttachTraceFExit})
	}
	if g.lsm {
		return link.AttachLSM(link.LSMOptions{Program: prog})
	}
	return link.AttachTracing(link.TracingOptions{Program: prog, AttachType: ebpf.AttachModifyReturn})
}

func (g *gate) close() error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, l := range g.links {
		errs = append(errs, l.Close())
	}
	for _, p := range g.progs {
		errs = append(errs, p.Close())
	}
	for _, m := range g.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// proved is how often a program refused something in a self-test.
func (g *gate) proved() (uint64, error) {
	var r bpf.GateRefusals
	if err := g.refused.Lookup(uint32(0), &r); err != nil {
		return 0, fmt.Errorf("read how often the kernel refused: %w", err)
	}
	return r.Proved, nil
}

// tries is how often the self-test plays: a timer that an agent before us
// armed may kill the puppet before it has tried.
const tries = 3

// proveGate shows that the kernel refuses: a labelled child of ours, that is
// over at the deadline, tries to make a folder beside our pins. It has to be
// refused, by a program of ours, and there may be no folder. A gate that lets
// it through is let go of, so that nobody relies on it.
func (w *Watch) proveGate(g *gate, deadline uint64) (*gate, error) {
	if g == nil {
		return nil, nil //nolint:nilnil // no gate is none
	}
	for range tries {
		refused, err := w.refuses(g, deadline)
		if err = errors.Join(err, w.drop(probeSession)); err != nil || refused {
			return g, err
		}
	}
	w.log.Warn("the kernel took the programs that refuse, and they do not refuse")
	return nil, g.close()
}

func (w *Watch) refuses(g *gate, deadline uint64) (bool, error) {
	before, err := g.proved()
	if err != nil {
		return false, err
	}
	name := filepath.Join(w.dir, "self-test")
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return false, err
	}
	// Of the two gates the other one is not to refuse, and the alarm is faster.
	if err := w.Guard(probeSession, deadline == 0); err != nil {
		return false, err
	}
	alarm := w.alarm
	w.alarm = nil
	_, err = stage(func(read, write int) (int, unix.Errno) { return intruder(read, write, path) },
		func(pid int) error { return w.label(pid, -1, probeSession, deadline) })
	w.alarm = alarm
	runtime.KeepAlive(path)
	if err != nil {
		return false, fmt.Errorf("self-test of refusals: %w", err)
	}
	err = os.Remove(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("remove what the self-test made: %w", err)
	}
	made := err == nil
	after, err := g.proved()
	return after > before && !made, err
}

// intruder makes a clone of this process that waits until the pipe has no
// writer, makes a folder, and exits. As with [puppet], it does nothing but
// these calls.
//
//go:norace
//go:nosplit
func intruder(read, write int, path *byte) (pid int, errno unix.Errno) {
	var b [1]byte
	here := unix.AT_FDCWD
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || child != 0 {
		return int(child), errno
	}
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(write), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(read), uintptr(unsafe.Pointer(&b)), 1)          //nolint:gosec // on our stack
	_, _, _ = unix.RawSyscall(unix.SYS_MKDIRAT, uintptr(here), uintptr(unsafe.Pointer(path)), 0o700) //nolint:gosec // the caller keeps it
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
