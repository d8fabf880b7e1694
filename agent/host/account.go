package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host/remains"
	"curfew.internal/agent/host/tree"
	"curfew.internal/grant"
)

// A record is what we look at in a user or group record.
type record struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// marked reports whether a record holds what every record of ours does. One that
// somebody changed must not outlive its grant for it.
func marked(content string) bool {
	if strings.Contains(content, remains.Mark) {
		return true
	}
	var r struct {
		Curfew bool `json:"curfew"`
	}
	return json.Unmarshal([]byte(content), &r) == nil && r.Curfew
}

// parseRecord reads the numbers of a record that is to be given.
func parseRecord(content string) (r record, good bool) {
	if err := json.Unmarshal([]byte(content), &r); err != nil {
		return r, false
	}
	return r, marked(content) && r.GID >= grant.UIDMin && r.GID <= grant.UIDMax
}

// byNumber is the second name of a record, by which numbers are looked up.
func (h *Host) byNumber(p place, r record) string {
	return h.path(p.dir, strconv.FormatUint(uint64(r.GID), 10)+p.ext)
}

func (h *Host) numbered(p place, name string, content string) bool {
	r, good := parseRecord(content)
	to, err := os.Readlink(h.byNumber(p, r))
	return good && err == nil && to == name+p.ext
}

// observeRecord tells what a file among the records holds, if it is ours.
func (h *Host) observeRecord(p place, file string, led bool) (content string, ours bool, err error) {
	name := strings.TrimSuffix(file, p.ext)
	if to, err := os.Readlink(h.path(p.dir, file)); err == nil && numeric(name) && filepath.Base(to) == to {
		if _, err := tree.Lstat(h.path(p.dir, to)); ignore(err, tree.ErrMounted) == nil {
			return "", false, nil // the number of a record, which is looked at itself
		}
	}
	text, whole, err := readWhole(h.path(p.dir, file), p.mode)
	if errors.Is(err, fs.ErrNotExist) || !marked(text) && !led {
		return "", false, ignore(err, fs.ErrNotExist)
	}
	if !whole {
		text += "its owner, mode or kind was changed"
	} else if !h.numbered(p, name, text) {
		text += "its number does not lead to it"
	}
	return text, true, err
}

func numeric(name string) bool {
	_, err := strconv.ParseUint(name, 10, 32)
	return err == nil
}

// led are the files among the records that stand where one of ours did: numbers
// that nobody but us gives lead to them. Somebody may have taken the mark out of
// one, and what a link holds may be out of reach.
func (h *Host) led(p place) map[string]bool {
	led := map[string]bool{}
	numbers, _ := h.numbers(p) // those that could be read
	for file, links := range numbers {
		led[file] = slices.ContainsFunc(links, func(number string) bool {
			n, err := strconv.ParseUint(strings.TrimSuffix(number, p.ext), 10, 32)
			return err == nil && n >= grant.UIDMin && n <= grant.UIDMax
		})
	}
	return led
}

// crowd is how many records are looked at, whoever made them.
const crowd = 10_000

// known leaves of more records than that the accounts that have a number or a
// marker of ours. Root can put any number of others there: they stay after her
// end, and each look at all of them could be the last of anybody's.
func (h *Host) known(entries []os.DirEntry, led map[string]bool, ext string) ([]os.DirEntry, error) {
	if len(entries) <= crowd {
		return entries, nil
	}
	ours := slices.DeleteFunc(entries, func(e os.DirEntry) bool {
		_, err := tree.Lstat(h.path(managedDir, strings.TrimSuffix(e.Name(), ext)))
		return !led[e.Name()] && ignore(err, tree.ErrMounted) != nil
	})
	return ours, fmt.Errorf("more than %d records lie in /%s, so that not all were looked at: remove what is nobody's", crowd, userdb)
}

// applyRecord gives or takes an account, or its group.
func (h *Host) applyRecord(ctx context.Context, s enforce.Step) error {
	p := places[s.Thing.Kind]
	name := s.Thing.Name
	file := h.path(p.dir, name+p.ext)
	info, err := tree.Lstat(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at %v: %w", s.Thing, err)
	}
	there := err == nil
	old, _, err := readWhole(file, p.mode)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at %v: %w", s.Thing, err)
	}
	// No administrator writes a record as a folder, a socket or a pipe.
	ours := marked(old) || there && h.led(p)[name+p.ext]
	if there && !ours && (info.Mode().IsRegular() || info.Mode()&fs.ModeSymlink != 0) {
		return fmt.Errorf("%v: %w", s.Thing, ErrNotOurs)
	}
	if s.Op == enforce.Remove {
		if err := errors.Join(h.unnumber(p, name), h.remove(p, name)); err != nil {
			return err
		}
		h.forgetNames(ctx)
		return nil
	}
	return h.putRecord(ctx, s, ours)
}

func (h *Host) putRecord(ctx context.Context, s enforce.Step, ours bool) error {
	p := places[s.Thing.Kind]
	name := s.Thing.Name
	r, good := parseRecord(s.Content)
	if !good {
		return fmt.Errorf("%v: its record is not one of ours", s.Thing)
	}
	if !ours {
		if err := h.free(ctx, s.Thing.Kind, name, r.GID); err != nil {
			return err
		}
	}
	if err := h.unnumber(p, name); err != nil {
		return err
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

// numbers are the links that lead to each record, whichever number it holds by
// now. Root can put any number of links there: all are read at once.
func (h *Host) numbers(p place) (map[string][]string, error) {
	numbers := map[string][]string{}
	entries, err := os.ReadDir(h.path(p.dir))
	for _, e := range entries {
		if e.Type() != fs.ModeSymlink {
			continue
		}
		if to, err := os.Readlink(h.path(p.dir, e.Name())); err == nil && e.Name() != to {
			numbers[to] = append(numbers[to], e.Name())
		}
	}
	return numbers, ignore(err, fs.ErrNotExist)
}

// unnumber removes every number that leads to a record.
func (h *Host) unnumber(p place, name string) error {
	numbers, err := h.numbers(p)
	errs := []error{err}
	for _, n := range numbers[name+p.ext] {
		errs = append(errs, ignore(os.Remove(h.path(p.dir, n)), fs.ErrNotExist))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the numbers of %s: %w", name, err)
	}
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

// Managed reports whether the account on the host is one of ours: it has our
// marker, or a uid and a home of ours. A site's own directory may use the
// uids, and never the homes.
func (h *Host) Managed(ctx context.Context, name string) (bool, error) {
	if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return false, nil // no name of an account
	}
	if _, err := tree.Lstat(h.path(managedDir, name)); ignore(err, tree.ErrMounted) == nil {
		return true, nil
	}
	line, found := h.local(name)
	if !found {
		var err error
		if line, found, err = h.getent(ctx, "passwd", name); err != nil || !found {
			return false, err
		}
	}
	fields := strings.Split(line, ":")
	if len(fields) < 6 {
		return false, fmt.Errorf("account %s has no number or no home", name)
	}
	uid, err := strconv.ParseUint(fields[2], 10, 32)
	return uid >= grant.UIDMin && uid <= grant.UIDMax && strings.HasPrefix(fields[5], enforce.HomeDir+"/"), err
}

// local looks a name up in the host's own file, which every source of names
// that the network has comes after: the door cannot wait for those when it is
// the administrator who knocks.
func (h *Host) local(name string) (line string, found bool) {
	b, err := read(h.path("etc/passwd"))
	if err != nil {
		return "", false // the name service says what is wrong, by a program that can be left alone
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, name+":") {
			return line, true
		}
	}
	return "", false
}

// observeHomes tells of each home its owner.
func (h *Host) observeHomes(seen enforce.State) error {
	entries, err := os.ReadDir(h.path(homeDir))
	errs := []error{ignore(err, fs.ErrNotExist)}
	for _, e := range entries {
		content, err := homeOf(h.path(homeDir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		seen[enforce.Thing{Kind: enforce.Home, Name: e.Name()}] = content
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("look for homes: %w", err)
	}
	return nil
}

// homeOf tells whose home a folder is. A mount on it is seen before anything
// is asked of the file system behind it, which may be a program of the
// person's.
func homeOf(file string) (string, error) {
	fd, err := unix.Open(file, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return spoiled, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	if err := tree.Mounted(fd); err != nil {
		return spoiled + ": " + err.Error(), nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return spoiled, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return spoiled, nil
	}
	return strconv.FormatUint(uint64(st.Uid), 10), nil
}

// applyHome makes or removes a home.
func (h *Host) applyHome(s enforce.Step) error {
	dir, name := h.path(homeDir), s.Thing.Name
	if s.Op == enforce.Remove {
		if err := tree.Remove(dir, name); err != nil {
			return fmt.Errorf("remove %v: %w", s.Thing, err)
		}
		return nil
	}
	uid, err := strconv.Atoi(s.Content)
	if err != nil || uid < grant.UIDMin || uid > grant.UIDMax {
		return fmt.Errorf("%v is for uid %q: not one of ours", s.Thing, s.Content)
	}
	if owner, err := homeOf(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
		if owner == s.Content {
			return nil // hers already, with what is in it
		}
		// Somebody else's, or not a folder: it is not followed, and not given.
		if err := tree.Remove(dir, name); err != nil {
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
	if err := tree.Remove(dir, fresh); err != nil {
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
		return errors.Join(err, tree.Remove(dir, fresh))
	}
	return nil
}
