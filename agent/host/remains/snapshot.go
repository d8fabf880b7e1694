package remains

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"curfew.internal/grant"
)

// Bounds of a snapshot.
const (
	summed   = 128 << 10 // files up to this size are read
	crowd    = 10_000    // names of one folder that are looked at
	families = 5_000     // homes
)

// A Fact is what is known of one file in a guarded place.
type Fact struct {
	Mode  uint16 `json:"mode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Ino   uint64 `json:"ino,omitempty"`
	Ctime int64  `json:"ctime,omitempty"` // ns
	Size  uint64 `json:"size,omitempty"`
	Sum   string `json:"sum,omitempty"`  // SHA-256 of a small file
	Link  string `json:"link,omitempty"` // where a link leads
	To    *Fact  `json:"to,omitempty"`   // what it leads to

	kind Kind
	id   Identity
}

// A Before is what the guarded places looked like before a session.
type Before struct {
	Files   map[string]Fact   `json:"files"`
	Modules []string          `json:"modules"`
	Values  map[string]string `json:"values"`
	Mounts  map[string]string `json:"mounts"`
	Skipped []string          `json:"skipped,omitempty"` // places that were not looked at
}

// Snapshot looks at the guarded places. It opens small files alone, and waits
// for no other machine. Half a snapshot is none: what it lacks would pass for
// made since.
func (h Host) Snapshot(ctx context.Context) (Before, error) {
	v, err := h.view()
	if err != nil {
		return Before{}, err
	}
	b, err := v.snapshot(ctx)
	if err := errors.Join(err, v.close()); err != nil {
		return Before{}, err
	}
	return b, nil
}

func (v *view) snapshot(ctx context.Context) (Before, error) {
	s := scan{view: v, files: map[string]Fact{}}
	for _, p := range places {
		if ctx.Err() != nil {
			return Before{}, errLate
		}
		s.place(p)
	}
	err := s.homes(ctx)
	b := Before{Files: s.files, Values: map[string]string{}, Mounts: v.mounts.points()}
	text, lost := v.read("/proc/modules", 4<<20)
	if lost != nil && !errors.Is(lost, os.ErrNotExist) { // a kernel without modules
		err = errors.Join(err, lost)
	}
	b.Modules = parseModules(text)
	v.settings(b.Values)
	b.Skipped = append(v.skipped(), s.skipped...)
	return b, err
}

// parseModules takes the names from /proc/modules.
func parseModules(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(line, " "); ok && name != "" {
			names = append(names, name)
		}
	}
	return names
}

// settings reads the kernel's values.
func (v *view) settings(into map[string]string) {
	files := slices.Clone(values)
	for _, m := range v.mounts {
		if m.kind == "cgroup" { // of the first version: a program for when a group is empty
			files = append(files, path.Join(m.point, "release_agent"))
		}
	}
	// To list it would mount it where it is only to be mounted on use.
	if m, ok := v.mounts.over(binfmt); ok && m.kind == "binfmt_misc" {
		for _, name := range v.list(binfmt) {
			if name != "register" && name != "status" {
				files = append(files, path.Join(binfmt, name))
			}
		}
	}
	for _, file := range files {
		if text, err := v.read(file, 4096); err == nil {
			into[file] = strings.TrimSpace(text)
		}
	}
}

// list names what is in a folder, or nothing where there is none.
func (v *view) list(dir string) []string {
	fd, err := v.open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), dir)
	defer func() { _ = f.Close() }()  // read only
	names, _ := f.Readdirnames(crowd) // what came until then
	return names
}

// A scan gathers facts.
type scan struct {
	*view
	files   map[string]Fact
	skipped []string
}

func (s *scan) skip(file string, err error) {
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EXDEV) {
		s.skipped = append(s.skipped, fmt.Sprintf("%s: %v", file, err))
	}
}

// place gathers what lies in one place.
func (s *scan) place(p place) {
	dir, name := path.Split(p.path)
	fd, err := s.open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		s.skip(dir, err)
		return
	}
	if s.near(p.path) {
		s.name(fd, name, p, p.path, p.deep)
	}
	_ = unix.Close(fd) // opened to look
}

// name gathers one name, and what lies below it if it is a folder.
func (s *scan) name(dir int, name string, p place, file string, deep int) {
	if _, ok := s.files[file]; ok || passing(file) || s.endOfGrant(file) || s.mute(file) {
		return
	}
	f, err := fact(dir, name)
	if err != nil {
		s.skip(file, err)
		return
	}
	if s.ofGrant(file, f) {
		return
	}
	if f.kind = p.kindIn(file); f.kind != BPFPin { // to read a pinned map is to read what it counts
		f.Sum = summary(dir, name, f)
	}
	s.files[file] = f
	if f.Mode&unix.S_IFMT != unix.S_IFDIR || deep == 0 || !s.near(file) {
		return
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		s.skip(file, err)
		return
	}
	in := os.NewFile(uintptr(fd), file)
	defer func() { _ = in.Close() }() // read only
	names, err := in.Readdirnames(crowd)
	if err != nil && !errors.Is(err, io.EOF) {
		s.skip(file, err)
	}
	for _, n := range names {
		s.name(fd, n, p, path.Join(file, n), deep-1)
	}
	if len(names) == crowd {
		s.skipped = append(s.skipped, fmt.Sprintf("%s: more than %d names", file, crowd))
	}
}

// endOfGrant reports the service of a grant's end timer that is still there. A
// timer that no grant has is drift; a service without one is somebody else's.
func (s *scan) endOfGrant(file string) bool {
	name, ok := strings.CutSuffix(file, ".service")
	if !ok || !strings.HasPrefix(name, "/run/systemd/transient/curfew-end-") {
		return false
	}
	_, err := s.at(name + ".timer")
	return err == nil
}

// Mark is what each record of an account that a grant gives holds. Another that
// holds it is taken away by whoever looks after those.
const Mark = `"curfew":true`

// ofGrant reports such a record, and the number that leads to one. They come and
// go with grants, and drift looks after them.
func (s *scan) ofGrant(file string, f Fact) bool {
	dir, name := path.Split(file)
	ext := path.Ext(name)
	if dir != "/run/userdb/" || ext != ".user" && ext != ".group" {
		return false
	}
	if n, err := strconv.ParseUint(strings.TrimSuffix(name, ext), 10, 32); err == nil && n >= grant.UIDMin && n <= grant.UIDMax && f.Link == path.Base(f.Link) {
		file = dir + f.Link
	}
	text, err := s.read(file, summed)
	return err == nil && strings.Contains(text, Mark)
}

// fact looks at one name.
func fact(dir int, name string) (Fact, error) {
	st, err := look(dir, name)
	if err != nil {
		return Fact{}, err
	}
	f := Fact{Mode: st.Mode, UID: st.Uid, GID: st.Gid, id: identity(st)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR: // what is done in it shows in what lies in it
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return f, err
		}
		f.Link, f.To, f.Ctime = string(buf[:n]), target(dir, name), nanos(st.Ctime)
	case unix.S_IFREG:
		f.Ino, f.Ctime, f.Size = st.Ino, nanos(st.Ctime), st.Size
	default:
		f.Ino, f.Ctime = st.Ino, nanos(st.Ctime)
	}
	return f, nil
}

// target looks at what a link leads to on the same file system.
func target(dir int, name string) *Fact {
	fd, err := openat(dir, name, unix.O_PATH, unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }() // opened to look
	st, err := look(fd, "")
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	return &Fact{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Ino: st.Ino, Ctime: nanos(st.Ctime), Size: st.Size}
}

// summary is the SHA-256 of a small regular file, or nothing where it cannot be
// read.
func summary(dir int, name string, f Fact) string {
	if f.Mode&unix.S_IFMT != unix.S_IFREG || f.Size > summed {
		return ""
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	b, err := slurp(fd, summed)
	if err != nil {
		return "" // exchanged, or grown, since
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// homes gathers what opens an account by key, in every home.
func (s *scan) homes(ctx context.Context) error {
	text, err := s.read("/etc/passwd", 16<<20)
	if err != nil {
		return fmt.Errorf("look for homes: %w", err)
	}
	dirs := map[string]bool{}
	for _, home := range parseHomes(text) {
		dirs[home] = true
	}
	for _, in := range []string{"/home", "/run/curfew/home"} { // also of accounts that come from elsewhere
		for _, name := range s.list(in) {
			dirs[path.Join(in, name)] = true
		}
	}
	for i, home := range sorted(dirs) {
		if i == families {
			s.skipped = append(s.skipped, fmt.Sprintf("homes: more than %d", families))
			break
		}
		if ctx.Err() != nil {
			return errLate
		}
		s.keys(home)
	}
	return nil
}

// parseHomes takes the homes from passwd(5).
func parseHomes(text string) []string {
	var homes []string
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) == 7 && path.IsAbs(fields[5]) && !strings.Contains(fields[5], "\x00") {
			if home := path.Clean(fields[5]); home != "/" && home != "/nonexistent" {
				homes = append(homes, home)
			}
		}
	}
	return homes
}

// keys looks into one home, which may be a hostile person's.
func (s *scan) keys(home string) {
	fd, err := s.open(home, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, unix.ELOOP) {
		if home, err = s.straight(home); err == nil {
			fd, err = s.open(home, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
		}
	}
	if err != nil {
		s.skip(home, err)
		return
	}
	defer func() { _ = unix.Close(fd) }() // opened to look
	in, err := openat(fd, ".ssh", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_XDEV)
	if err != nil {
		s.skip(home+"/.ssh", err)
		return
	}
	defer func() { _ = unix.Close(in) }() // opened to look
	for _, name := range keyFiles {
		s.name(in, name, place{kind: AuthorizedKeys}, path.Join(home, ".ssh", name), 0)
	}
}

// straight follows a link in a path's first name: /home is one on some hosts.
func (s *scan) straight(file string) (string, error) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(file, "/"), "/")
	f, err := fact(s.fd, first)
	if err != nil {
		return file, err
	}
	if f.Link == "" {
		return file, unix.ELOOP
	}
	return path.Join("/", f.Link, rest), nil
}
