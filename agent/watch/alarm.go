package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"curfew.internal/bpf"
)

// An alarm is the kernel's own end of sessions: a timer that kills what is
// labelled and over, with no help from us. It is set whenever the end of a
// session was written down; the kernel finds the earliest by itself. A nil
// alarm is that of a kernel that has none.
type alarm struct {
	objects bpf.LockObjects
	wakes   bool      // it wakes a process; else it waits for one that calls
	link    link.Link // of what such a call runs; nil: taken away, or not needed
}

// onReturn is the name of the program that system calls run.
const onReturn = "on_return"

// taskWork is what a kernel calls the work that we ask of a process.
const taskWork = "bpf_task_work_schedule_signal_impl"

// openAlarm takes over the pinned timer, or makes one.
func openAlarm(dir string) (*alarm, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	_, err = kernel.AnyTypesByName(taskWork)
	return newAlarm(dir, err == nil)
}

// newAlarm makes a timer that wakes processes, or one that waits for one to
// return from a system call.
func newAlarm(dir string, wakes bool) (*alarm, error) {
	a := &alarm{wakes: wakes}
	err := a.load(dir, wakes)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		// Another version's timer: it ends with its pin, and ours begins.
		for _, name := range []string{bpf.LockMapAlarms, bpf.LockMapHelpers} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("remove the timer of another version: %w", err)
			}
		}
		err = a.load(dir, wakes)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(a.attach(dir), a.set()); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// attach has those help who return from a system call, where nobody can be
// woken. Between the link of an agent before us and ours there is none, and the
// timer asks for help again within a moment.
func (a *alarm) attach(dir string) error {
	if a == nil || a.wakes || a.link != nil {
		return nil
	}
	var err error
	a.link, err = attach(a.objects.OnReturn, filepath.Join(dir, onReturn))
	return err
}

// detach takes that away again.
func (a *alarm) detach(dir string) error {
	if a == nil || a.link == nil {
		return nil
	}
	err := detach(a.link, filepath.Join(dir, onReturn))
	a.link = nil
	return err
}

func (a *alarm) load(dir string, wakes bool) error {
	spec, err := bpf.LoadLock()
	if err != nil {
		return fmt.Errorf("read the programs: %w", err)
	}
	if !wakes {
		if err := spec.Variables["wakes"].Set(uint32(0)); err != nil {
			return fmt.Errorf("set up the programs: %w", err)
		}
	}
	for name, m := range spec.Maps {
		if name[0] != '.' {
			m.Pinning = ebpf.PinByName
		}
	}
	err = spec.LoadAndAssign(&a.objects, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}})
	if err != nil {
		return fmt.Errorf("load the timer into the kernel (it needs Linux 6.13): %w", err)
	}
	return nil
}

// set has the kernel look for the earliest end again.
func (a *alarm) set() error {
	if a == nil {
		return nil
	}
	code, err := a.objects.Arm.Run(&ebpf.RunOptions{})
	if err == nil && code != 0 {
		err = fmt.Errorf("the program says %d", int32(code)) //nolint:gosec // a negative errno
	}
	if err != nil {
		return fmt.Errorf("set the kernel's timer: %w", err)
	}
	return nil
}

func (a *alarm) close() error {
	var err error
	if a.link != nil {
		err = a.link.Close()
	}
	return errors.Join(err, a.objects.Close())
}
