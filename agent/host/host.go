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
)

// Host is the machine below Root, which is "/" in life.
type Host struct {
	Root string
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

// Prepare makes our folders. They are in memory: a boot begins without them.
func (h *Host) Prepare() error {
	for _, dir := range []string{runDir, runDir + "/ssh", principals, managedDir, homeDir, sudoersDir, userdb} {
		if err := os.MkdirAll(h.path(dir), 0o755); err != nil { //nolint:gosec // sshd and nss read them as other users
			return fmt.Errorf("make folder: %w", err)
		}
	}
	for _, dir := range []string{scopeDir, freshDir} {
		if err := os.MkdirAll(h.path(dir), 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	return nil
}

// Paths are the folders in which somebody could touch what is ours.
func (h *Host) Paths() []string {
	return []string{h.path(sudoersDir), h.path(principals), h.path(managedDir), h.path(userdb), h.path(scopeDir)}
}

// Observe returns every thing on the host that carries our mark, whoever put
// it there and whenever. A thing whose owner or mode is wrong has another
// content than any that is wanted.
func (h *Host) Observe(ctx context.Context) (enforce.State, error) {
	seen := enforce.State{}
	var errs []error
	for kind, p := range places {
		errs = append(errs, h.observeFiles(seen, kind, p))
	}
	errs = append(errs, h.observeHomes(seen), h.observeScopes(ctx, seen))
	return seen, errors.Join(errs...)
}

func (h *Host) observeFiles(seen enforce.State, kind enforce.Kind, p place) error {
	entries, err := os.ReadDir(h.path(p.dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %vs: %w", kind, err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), p.ext)
		if !ok || e.Type()&fs.ModeSymlink != 0 && p.dir == userdb {
			continue
		}
		content, err := h.readThing(p, e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at %v %s: %w", kind, name, err)
		}
		if p.dir == userdb {
			r, ours := parseRecord(content)
			if !ours {
				continue // an administrator's
			}
			if !h.numbered(p, name, r) {
				content += "its number does not lead to it"
			}
		}
		seen[enforce.Thing{Kind: kind, Name: name}] = content
	}
	return nil
}

// readThing reads a file that is ours to the last bit; any other is told by
// what is wrong with it.
func (h *Host) readThing(p place, name string) (string, error) {
	file := h.path(p.dir, name)
	info, err := os.Lstat(file)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm() != p.mode || !rooted(info) || info.Size() > 1<<20 {
		return fmt.Sprintf("spoiled: %v", info.Mode()), nil
	}
	b, err := os.ReadFile(file)
	return string(b), err
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
	if err := removeTree(h.path(p.dir), name+p.ext); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// put writes a file whole or not at all: it is made in a folder that nobody
// reads, checked, and moved in place.
func (h *Host) put(ctx context.Context, s enforce.Step) error {
	p := places[s.Thing.Kind]
	target := h.path(p.dir, s.Thing.Name+p.ext)
	if info, err := os.Lstat(target); err == nil && !info.Mode().IsRegular() {
		if err := removeTree(filepath.Dir(target), filepath.Base(target)); err != nil {
			return fmt.Errorf("clear the way for %v: %w", s.Thing, err)
		}
	}
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
