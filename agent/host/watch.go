package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// again is how long Watch waits before it tries a second time to watch a
// folder that it could not.
const again = time.Second

// Watch wakes when somebody touches a folder in which things of ours lie,
// until ctx is done. The wake-up carries nothing: whoever is woken looks. A
// folder that is taken away is made again and watched again. Marked is called
// with each folder when it begins to be watched. Where the kernel does not let
// us watch, as when root used up what it grants or set it to nothing, Watch
// wakes each second instead, and says why.
func (h *Host) Watch(ctx context.Context, marked func(dir string), wake func(), say func(error)) error {
	for {
		w, err := fsnotify.NewWatcher()
		if err == nil {
			return h.watch(ctx, w, marked, wake, say)
		}
		say(fmt.Errorf("watch folders: %w", err))
		wake()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(again):
		}
	}
}

func (h *Host) watch(ctx context.Context, w *fsnotify.Watcher, marked func(dir string), wake func(), say func(error)) error {
	var retry <-chan time.Time
	all := func() {
		err := h.watchAll(w, marked)
		if err != nil {
			retry = time.After(again)
		}
		say(err)
	}
	all()
	wake() // what came before it was watched is not told
	for {
		lost := false
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), w.Close())
		case e := <-w.Events:
			lost = e.Op&(fsnotify.Remove|fsnotify.Rename) != 0 && slices.Contains(h.Paths(), e.Name)
			if lost {
				// A folder that was moved away is watched where it went.
				_ = w.Remove(e.Name) // not watched any more is what we want
			}
		case err := <-w.Errors:
			// Events were lost: looking is what makes up for it.
			lost = err != nil
		case <-retry:
			retry, lost = nil, true
		}
		if lost {
			all()
		}
		wake()
	}
}

// watchAll makes our folders and watches them. To watch one twice is to watch
// it once.
func (h *Host) watchAll(w *fsnotify.Watcher, marked func(dir string)) error {
	errs := []error{h.Prepare()}
	for _, p := range h.Paths() {
		if err := w.Add(p); err != nil {
			errs = append(errs, fmt.Errorf("watch %s: %w", p, err))
			continue
		}
		marked(p)
	}
	for _, p := range append([]string{"etc/curfew"}, wiringDirs...) { // the CA that sshd trusts is in ours
		// One that is not there wires nothing; what is missing in it is looked
		// for from time to time.
		if w.Add(h.path(p)) == nil {
			marked(h.path(p))
		}
	}
	return errors.Join(errs...)
}

// wiringDirs are where the host's programs are told to ask us, and systemd to
// run us.
var wiringDirs = slices.Concat([]string{"etc/pam.d", "etc/sudoers.d", "etc/ssh/sshd_config.d"}, unitDirs, unitWords)
