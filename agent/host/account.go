package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"curfew.internal/agent/enforce"
	"curfew.internal/grant"
)

// A record is what we look at in a user or group record.
type record struct {
	UserName  string `json:"userName"`
	GroupName string `json:"groupName"`
	UID       uint32 `json:"uid"`
	GID       uint32 `json:"gid"`
	Curfew    bool   `json:"curfew"`
}

func parseRecord(content string) (r record, ours bool) {
	if err := json.Unmarshal([]byte(content), &r); err != nil {
		return r, false
	}
	return r, r.Curfew && r.GID >= grant.UIDMin && r.GID <= grant.UIDMax
}

// byNumber is the second name of a record, by which numbers are looked up.
func (h *Host) byNumber(p place, r record) string {
	return h.path(p.dir, strconv.FormatUint(uint64(r.GID), 10)+p.ext)
}

func (h *Host) numbered(p place, name string, r record) bool {
	to, err := os.Readlink(h.byNumber(p, r))
	return err == nil && to == name+p.ext
}

// applyRecord gives or takes an account, or its group.
func (h *Host) applyRecord(ctx context.Context, s enforce.Step) error {
	p := places[s.Thing.Kind]
	name := s.Thing.Name
	old, err := h.readThing(p, name+p.ext)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at %v: %w", s.Thing, err)
	}
	oldRecord, ours := parseRecord(old)
	if err == nil && !ours && !strings.HasPrefix(old, "spoiled") {
		return fmt.Errorf("%v: %w", s.Thing, ErrNotOurs)
	}
	if s.Op == enforce.Remove {
		if ours {
			if err := os.Remove(h.byNumber(p, oldRecord)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove the number of %v: %w", s.Thing, err)
			}
		}
		if err := h.remove(p, name); err != nil {
			return err
		}
		h.forgetNames(ctx)
		return nil
	}
	r, good := parseRecord(s.Content)
	if !good {
		return fmt.Errorf("%v: its record is not one of ours", s.Thing)
	}
	if !ours {
		if err := h.free(ctx, s.Thing.Kind, name, r.GID); err != nil {
			return err
		}
	}
	if err := h.put(ctx, s); err != nil {
		return err
	}
	if err := h.link(name+p.ext, h.byNumber(p, r)); err != nil {
		return fmt.Errorf("number %v: %w", s.Thing, err)
	}
	h.forgetNames(ctx)
	return nil
}

// link makes a symbolic link in one step, over whatever was there.
func (h *Host) link(to, file string) error {
	fresh := h.path(freshDir, filepath.Base(file))
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(to, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, file)
}

// free says whether a name and its number belong to nobody on this host,
// wherever its accounts come from.
func (h *Host) free(ctx context.Context, kind enforce.Kind, name string, number uint32) error {
	database := "passwd"
	if kind == enforce.Group {
		database = "group"
	}
	for _, key := range []string{name, strconv.FormatUint(uint64(number), 10)} {
		out, found, err := h.getent(ctx, database, key)
		if err != nil {
			return err
		}
		if found {
			return fmt.Errorf("%v %s is not given: this host has %s %s already (%q): "+
				"rename that one, or the person", kind, name, database, key, strings.TrimSpace(out))
		}
	}
	return nil
}

// getent asks the name service, all of its sources. Exit code 2 says that
// there is no such entry (getent(1)).
func (h *Host) getent(ctx context.Context, database, key string) (line string, found bool, err error) {
	out, err := h.run(ctx, "getent", database, "--", key)
	var ended interface{ ExitCode() int }
	if errors.As(err, &ended) && ended.ExitCode() == 2 {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("ask for %s %s: %w", database, key, err)
	}
	return out, true, nil
}

// forgetNames empties caches of names that would outlive an account.
func (h *Host) forgetNames(ctx context.Context) {
	if _, err := os.Stat(h.path("run/nscd/socket")); err == nil {
		_, _ = h.run(ctx, "nscd", "-i", "passwd") // a cache that is not there has nothing to forget
		_, _ = h.run(ctx, "nscd", "-i", "group")
	}
}

// Managed reports whether the account on the host is one of ours.
func (h *Host) Managed(ctx context.Context, name string) (bool, error) {
	if grant.CheckPerson(name) != nil {
		return false, nil // no name of ours, so no account of ours
	}
	if _, err := os.Lstat(h.path(managedDir, name)); err == nil {
		return true, nil
	}
	line, found, err := h.getent(ctx, "passwd", name)
	if err != nil || !found {
		return false, err
	}
	fields := strings.Split(line, ":")
	if len(fields) < 3 {
		return false, fmt.Errorf("account %s has no number", name)
	}
	uid, err := strconv.ParseUint(fields[2], 10, 32)
	return uid >= grant.UIDMin && uid <= grant.UIDMax, err
}

// observeHomes tells of each home its owner.
func (h *Host) observeHomes(seen enforce.State) error {
	entries, err := os.ReadDir(h.path(homeDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for homes: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at home %s: %w", e.Name(), err)
		}
		content := "spoiled"
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.IsDir() {
			content = strconv.FormatUint(uint64(st.Uid), 10)
		}
		seen[enforce.Thing{Kind: enforce.Home, Name: e.Name()}] = content
	}
	return nil
}

// applyHome makes or removes a home.
func (h *Host) applyHome(s enforce.Step) error {
	dir, name := h.path(homeDir), s.Thing.Name
	if s.Op == enforce.Remove {
		if err := removeTree(dir, name); err != nil {
			return fmt.Errorf("remove %v: %w", s.Thing, err)
		}
		return nil
	}
	uid, err := strconv.Atoi(s.Content)
	if err != nil || uid < grant.UIDMin || uid > grant.UIDMax {
		return fmt.Errorf("%v is for uid %q: not one of ours", s.Thing, s.Content)
	}
	if info, err := os.Lstat(filepath.Join(dir, name)); err == nil {
		if owned(info, uid) {
			return nil // hers already, with what is in it
		}
		// Somebody else's, or not a folder: it is not followed, and not given.
		if err := removeTree(dir, name); err != nil {
			return fmt.Errorf("clear the way for %v: %w", s.Thing, err)
		}
	}
	if err := makeHome(dir, name, uid); err != nil {
		return fmt.Errorf("make %v: %w", s.Thing, err)
	}
	return nil
}

// makeHome makes a home under a name that nobody has, so that nobody can be
// inside before it has its owner. No one but root writes to the folder dir.
func makeHome(dir, name string, uid int) error {
	fresh := ".new-" + name
	if err := removeTree(dir, fresh); err != nil {
		return err
	}
	file := filepath.Join(dir, fresh)
	err := os.Mkdir(file, 0o700)
	if err == nil {
		err = os.Lchown(file, uid, uid)
	}
	if err == nil {
		err = os.Rename(file, filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, removeTree(dir, fresh))
	}
	return nil
}

func owned(info fs.FileInfo, uid int) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.IsDir() && st.Uid == uint32(uid) //nolint:gosec // within our range
}

func rooted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
