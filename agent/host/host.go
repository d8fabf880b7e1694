// Package host observes and changes the machine for the agent.
//
// It is the only code that does so, and the only one that starts programs. It
// decides nothing: it carries out steps, one at a time, each of them whole or
// not at all. What does not carry our mark, or lie in a folder of ours, it
// leaves alone.
package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host/tree"
	"curfew.internal/clock"
)

// Host is the machine below Root, which is "/" in life.
type Host struct {
	Root  string
	Clock clock.Clock // that systemd counts by, for timers; of no need elsewhere
	Self  []string    // what starts a process that runs [Apart]; without it, nothing is looked at apart
	// Began is told of each such process before that is told what to do, which it
	// is not where this fails. It may be nil.
	Began func(pid int) error

	loads loads
	apart apart
	alone alone
}

// ErrNotOurs refuses to touch what somebody else made.
var ErrNotOurs = errors.New("it was not made by us")

// Folders on the host.
const (
	runDir     = "run/curfew"
	userdb     = "run/userdb"
	sudoersDir = runDir + "/sudoers.d"
	principals = runDir + "/ssh/principals"
	managedDir = runDir + "/managed"
	homeDir    = runDir + "/home"
	scopeDir   = runDir + "/network"
	freshDir   = runDir + "/fresh" // files are made here, and moved
)

func (h *Host) path(elem ...string) string {
	return filepath.Join(append([]string{h.Root}, elem...)...)
}

// A place is where things of one kind lie, a file for each.
type place struct {
	dir  string
	ext  string
	mode fs.FileMode
}

var places = map[enforce.Kind]place{
	enforce.Account:    {userdb, ".user", 0o644},
	enforce.Group:      {userdb, ".group", 0o644},
	enforce.Marker:     {managedDir, "", 0o644},
	enforce.Principals: {principals, "", 0o644},
	enforce.SudoRule:   {sudoersDir, "", 0o440},
}

// A folder of the host that things of ours lie in.
type folder struct {
	dir  string
	mode fs.FileMode
}

// folders are listed with what they lie in first. tmpfiles.d says the same.
var folders = []folder{
	{runDir, 0o755},
	{runDir + "/ssh", 0o755},
	{principals, 0o755},
	{managedDir, 0o755},
	{homeDir, 0o755},
	{sudoersDir, 0o750},
	{scopeDir, 0o700},
	{freshDir, 0o700},
	{userdb, 0o755},
}

// Prepare makes our folders, and makes them again. They are in memory: a boot
// begins without them, and whoever has root can take them away.
func (h *Host) Prepare() error {
	var errs []error
	for _, f := range folders {
		errs = append(errs, h.prepare(f))
	}
	return errors.Join(errs...)
}

func (h *Host) prepare(f folder) error {
	file := h.path(f.dir)
	tree.Loosen(filepath.Dir(file), filepath.Base(file))
	info, err := os.Lstat(file)
	if err == nil && !info.IsDir() && f.dir != userdb {
		err = tree.Remove(filepath.Dir(file), filepath.Base(file))
	}
	if err = ignore(err, fs.ErrNotExist); err == nil {
		err = os.MkdirAll(file, f.mode)
	}
	if err == nil {
		info, err = os.Lstat(file)
	}
	if err == nil && !rooted(info) {
		err = os.Lchown(file, os.Geteuid(), os.Getegid())
	}
	// Said outright: the unit's umask lets nobody read what we make, and sshd
	// and nss read as other users.
	if err == nil && info.IsDir() && info.Mode().Perm() != f.mode {
		err = os.Chmod(file, f.mode)
	}
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	return nil
}

// Paths are the folders in which somebody could touch what is ours.
func (h *Host) Paths() []string {
	return []string{h.path(sudoersDir), h.path(principals), h.path(managedDir), h.path(userdb), h.path(scopeDir)}
}

// File is where a thing lies, or nothing if it is none of ours in a file.
func (h *Host) File(t enforce.Thing) string {
	if t.Kind == enforce.Network {
		return h.path(scopeDir, t.Name)
	}
	p, ok := places[t.Kind]
	if !ok {
		return ""
	}
	return h.path(p.dir, t.Name+p.ext)
}

// Observe returns every thing on the host that carries our mark, whoever put
// it there and whenever. A thing whose owner or mode is wrong has another
// content than any that is wanted. What could be seen is returned together
// with what could not, so that it can be taken away.
func (h *Host) Observe(ctx context.Context) (enforce.State, error) {
	seen := enforce.State{}
	errs := []error{h.Prepare()}
	for kind, p := range places {
		errs = append(errs, h.observeFiles(seen, kind, p))
	}
	errs = append(errs, h.observeHomes(seen), h.observeScopes(ctx, seen), h.observeTimers(seen))
	return seen, errors.Join(errs...)
}

// observeFiles goes on after what cannot be looked at: one file must not hide
// the others.
func (h *Host) observeFiles(seen enforce.State, kind enforce.Kind, p place) error {
	entries, err := os.ReadDir(h.path(p.dir))
	errs := []error{ignore(err, fs.ErrNotExist)}
	var led map[string]bool
	if p.dir == userdb {
		led = h.led(p)
		var failed error
		entries, failed = h.known(entries, led, p.ext)
		errs = append(errs, failed)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), p.ext)
		if !ok {
			continue
		}
		content, ours, err := h.readThing(p, e.Name(), led[e.Name()])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		if ours {
			seen[enforce.Thing{Kind: kind, Name: name}] = content
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("look for %vs: %w", kind, err)
	}
	return nil
}

// readThing tells what a file holds, or what is wrong with it. In folders of
// ours everything is ours; among the records of the host, what bears our mark.
func (h *Host) readThing(p place, name string, led bool) (content string, ours bool, err error) {
	if p.dir == userdb {
		return h.observeRecord(p, name, led)
	}
	text, whole, err := readWhole(h.path(p.dir, name), p.mode)
	if err != nil || !whole {
		return spoiled, true, err
	}
	return text, true, nil
}

// Apply carries out one step. It is idempotent.
func (h *Host) Apply(ctx context.Context, s enforce.Step) error {
	name := s.Thing.Name
	if name == "" || strings.ContainsAny(name, "/\x00") || name[0] == '.' {
		if s.Op == enforce.Put {
			return fmt.Errorf("%q is no name for a thing", name)
		}
	}
	switch s.Thing.Kind {
	case enforce.Home:
		return h.applyHome(s)
	case enforce.EndTimer:
		return h.applyTimer(ctx, s)
	case enforce.Network:
		return h.applyScope(ctx, s)
	case enforce.Account, enforce.Group:
		return h.applyRecord(ctx, s)
	case enforce.Marker, enforce.Principals, enforce.SudoRule:
		if s.Op == enforce.Remove {
			return h.remove(places[s.Thing.Kind], name)
		}
		return h.put(ctx, s)
	}
	return fmt.Errorf("a thing of kind %d: %w", s.Thing.Kind, ErrNotOurs)
}

// remove takes a file away. One that is gone already is the end we wanted.
func (h *Host) remove(p place, name string) error {
	if err := tree.Remove(h.path(p.dir), name+p.ext); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// put writes a file whole or not at all: it is made in a folder that nobody
// reads, checked, and moved in place.
func (h *Host) put(ctx context.Context, s enforce.Step) error {
	p := places[s.Thing.Kind]
	target := h.path(p.dir, s.Thing.Name+p.ext)
	if info, err := tree.Lstat(target); err == nil && !info.Mode().IsRegular() {
		if err := tree.Remove(filepath.Dir(target), filepath.Base(target)); err != nil {
			return fmt.Errorf("clear the way for %v: %w", s.Thing, err)
		}
	}
	tree.Loosen(filepath.Dir(target), filepath.Base(target))
	f, err := renameio.NewPendingFile(target, renameio.WithTempDir(h.path(freshDir)),
		renameio.WithPermissions(0o600), renameio.IgnoreUmask())
	if err != nil {
		return fmt.Errorf("make %v: %w", s.Thing, err)
	}
	defer func() { _ = f.Cleanup() }() // a no-op once the file is in place
	if _, err := f.WriteString(s.Content); err != nil {
		return fmt.Errorf("write %v: %w", s.Thing, err)
	}
	if err := f.Chmod(p.mode); err != nil {
		return fmt.Errorf("set the mode of %v: %w", s.Thing, err)
	}
	if s.Thing.Kind == enforce.SudoRule {
		if err := h.visudo(ctx, f.Name()); err != nil {
			return fmt.Errorf("%v is not given: %w", s.Thing, err)
		}
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("put %v in place: %w", s.Thing, err)
	}
	return nil
}

// visudo has sudo's own parser look at a rule before sudo does.
func (h *Host) visudo(ctx context.Context, file string) error {
	if out, err := h.run(ctx, "visudo", "-c", "-q", "-f", file); err != nil {
		return fmt.Errorf("visudo does not take it: %w: %s", err, strings.TrimSpace(out))
	}
	return nil
}
