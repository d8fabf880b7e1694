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
	link    link.Link
}

// onReturn is the name of the program that system calls run.
const onReturn = "on_return"

// openAlarm takes over the pinned timer, or makes one.
func openAlarm(dir string) (*alarm, error) {
	a := &alarm{}
	err := a.load(dir)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		// Another version's timer: it ends with its pin, and ours begins.
		for _, name := range []string{bpf.LockMapAlarms, bpf.LockMapHelpers} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("remove the timer of another version: %w", err)
			}
		}
		err = a.load(dir)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(a.attach(dir), a.set()); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// attach pins our link in the place of the one before. Between the two there
// is none, and the timer asks for help again within a moment. From 6.18 on the
// timer wakes a process by itself, and system calls are left alone.
func (a *alarm) attach(dir string) error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("read the kernel's types: %w", err)
	}
	if _, err := kernel.AnyTypesByName("bpf_task_work_schedule_signal_impl"); err == nil {
		return nil
	}
	return a.attachReturn(dir)
}

func (a *alarm) attachReturn(dir string) error {
	var err error
	if a.link, err = link.AttachTracing(link.TracingOptions{Program: a.objects.OnReturn}); err != nil {
		return fmt.Errorf("attach %s: %w", onReturn, err)
	}
	name := filepath.Join(dir, onReturn)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the link of the agent before: %w", err)
	}
	if err := a.link.Pin(name); err != nil {
		return fmt.Errorf("pin %s: %w", onReturn, err)
	}
	return nil
}

func (a *alarm) load(dir string) error {
	spec, err := bpf.LoadLock()
	if err != nil {
		return fmt.Errorf("read the programs: %w", err)
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
