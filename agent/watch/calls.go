package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// onCall is the program that looks after every system call.
const onCall = "on_sys_exit"

// calls are the programs that look after every system call. While they are
// attached, each call of the host takes a longer way through the kernel: so
// they are only as long as somebody has a label.
type calls struct {
	labelling sync.RWMutex // read by those who give a label, written by whoever attaches or takes away
	dir       string       // of our links
	link      link.Link    // nil: taken away
}

// listen attaches the programs, unless they are. They stay until the caller,
// who gives a label meanwhile, is done.
func (w *Watch) listen() (done func(), err error) {
	for {
		w.calls.labelling.RLock()
		if w.calls.link != nil {
			return w.calls.labelling.RUnlock, nil
		}
		w.calls.labelling.RUnlock()
		if err := w.wake(); err != nil {
			return nil, err
		}
	}
}

// wake attaches the programs. The alarm's are first: what is listened to by
// the other has all that it needs.
func (w *Watch) wake() error {
	w.calls.labelling.Lock()
	defer w.calls.labelling.Unlock()
	if w.calls.link != nil {
		return nil
	}
	if err := w.alarm.attach(w.dir); err != nil {
		return err
	}
	var err error
	w.calls.link, err = attach(w.progs[onCall], filepath.Join(w.calls.dir, onCall))
	return err
}

// rest takes the programs away if no session is left. Nobody has a label then,
// since a session stays as long as one of its processes does. It does not wait
// for whoever gives a label: a tree that forks while it is labelled can make
// that last, and nobody else would get one meanwhile, nor be recorded.
func (w *Watch) rest() error {
	if !w.calls.labelling.TryLock() {
		return nil
	}
	defer w.calls.labelling.Unlock()
	if w.calls.link == nil {
		return nil
	}
	sessions, err := w.Sessions()
	if err != nil || len(sessions) > 0 {
		return err
	}
	err = detach(w.calls.link, filepath.Join(w.calls.dir, onCall))
	w.calls.link = nil
	return errors.Join(err, w.alarm.detach(w.dir))
}

// attach has a program run from now on, whatever becomes of us.
func attach(prog *ebpf.Program, pin string) (link.Link, error) {
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", filepath.Base(pin), err)
	}
	// There may be one of an agent before us.
	if err := os.Remove(pin); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("remove the link before: %w", err), l.Close())
	}
	if err := l.Pin(pin); err != nil {
		return nil, errors.Join(fmt.Errorf("pin %s: %w", filepath.Base(pin), err), l.Close())
	}
	return l, nil
}

// detach ends what attach began.
func detach(l link.Link, pin string) error {
	err := os.Remove(pin)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.Close())
}
