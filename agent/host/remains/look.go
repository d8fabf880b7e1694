package remains

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of a look.
const (
	enough = 1000     // findings
	allIn  = 20 << 20 // names, where the caller says nothing
	coarse = 2e9      // ns; a file's time may lag behind the clock that grants are timed by
)

// A search is one Look.
type search struct {
	*view
	s     Session
	names int // that may still be looked at, in the folder that is walked
	found map[string]Finding
	told  map[Kind]int // a crowd of one kind hides no other
	Found
}

// add notes a finding. What is known of a path by two ways is one finding, of
// the kind that was found first.
func (l *search) add(f Finding) {
	key := string(f.Kind) + f.Path
	if strings.HasPrefix(f.Path, "/") {
		key = f.Path
	}
	if old, ok := l.found[key]; ok {
		if f.Detail != old.Detail && f.Kind != old.Kind && !f.Kind.Inert() {
			old.Detail += "; " + string(f.Kind) + ": " + f.Detail
			old.Also = append(old.Also, f.Kind)
			l.found[key] = old
		}
		return
	}
	if l.told[f.Kind]++; l.told[f.Kind] <= enough {
		l.found[key] = f
	}
}

func (l *search) looked(where string) { l.Looked = append(l.Looked, where) }

func (l *search) skip(where string, why error) {
	l.Skipped = append(l.Skipped, fmt.Sprintf("%s: %v", where, why))
}

// Look looks for what a session left. A zero before, of a session that began
// when nobody looked, leaves only times to go by. An error says that the look
// did not take place; what it could not see is in Skipped.
//
// Names that somebody moves about while they are looked at can be missed: end
// the session's processes first. A file's times follow the host's clock, so
// one that was set back hides a setuid file made then.
func (h Host) Look(ctx context.Context, before Before, s Session) (Found, error) {
	if err := s.check(); err != nil {
		return Found{}, err
	}
	v, err := h.view()
	if err != nil {
		return Found{}, err
	}
	l := &search{view: v, s: s, found: map[string]Finding{}, told: map[Kind]int{}}
	names := cmp.Or(h.Names, allIn)
	l.s.Since = s.Since.Add(-coarse)
	now, err := v.snapshot(ctx)
	if err != nil {
		l.skip("guarded places", err)
	}
	l.Skipped = append(l.Skipped, now.Skipped...)
	if now.Files != nil {
		l.compare(before, now)
	}
	l.looked("changes in sudo's, PAM's, sshd's, accounts', cron's, systemd's, udev's, the loader's and the shells' files, " +
		"keys of every home, modules, kernel settings, mounts, BPF pins")
	l.named()
	l.memory()
	for _, dir := range shared {
		l.names = names / 10 // what anybody can fill leaves time for the rest
		l.folder(ctx, dir)
	}
	l.looked("what the account owns in " + strings.Join(shared, ", "))
	for _, m := range v.mounts.local() {
		l.names = names
		l.folder(ctx, m.point)
	}
	l.looked("setuid and capability files and devices (in /dev, disks that everybody may open) since the session began, and what the account owns, on local file systems")
	if err := l.packaged(ctx); err != nil {
		l.skip("lists of packages", err)
	}
	return l.done(), v.close()
}

func (l *search) done() Found {
	for _, f := range l.found {
		l.Findings = append(l.Findings, f)
	}
	slices.SortFunc(l.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind))
	})
	for _, k := range sorted(l.told) {
		if l.told[k] > enough {
			l.skip(string(k), fmt.Errorf("more than the %d that are told", enough))
		}
	}
	l.Skipped = append(l.Skipped, l.skipped()...)
	slices.Sort(l.Skipped)
	l.Skipped = slices.Compact(l.Skipped)
	return l.Found
}

// shared are folders that everybody writes to, the ones to look at first.
var shared = []string{"/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/var/crash"}

// named looks for what bears the account's name or number.
func (l *search) named() {
	uid := strconv.FormatUint(uint64(l.s.UID), 10)
	for _, n := range []struct {
		kind Kind
		path string
		any  bool // whoever owns it: root makes it for her
	}{
		{Linger, "/var/lib/systemd/linger/" + l.s.Person, true},
		{RuntimeDir, "/run/user/" + uid, true},
		{Multiplexer, "/run/screen/S-" + l.s.Person, false},
		{Multiplexer, "/tmp/screens/S-" + l.s.Person, false},
		{Multiplexer, "/tmp/uscreens/S-" + l.s.Person, false},
		{Multiplexer, "/tmp/tmux-" + uid, false},
		{Multiplexer, "/var/tmp/tmux-" + uid, false},
		{Multiplexer, "/tmp/zellij-" + uid, false},
		{Mail, "/var/mail/" + l.s.Person, false},
		{Mail, "/var/spool/mail/" + l.s.Person, false},
	} {
		st, err := l.at(n.path)
		if err != nil || !n.any && st.Uid != l.s.UID {
			continue
		}
		f := Fact{Mode: st.Mode, UID: st.Uid, Size: st.Size}
		l.add(Finding{Kind: n.kind, Path: n.path, Detail: describe(f), Removable: true, ID: identity(st)})
	}
	l.looked("linger, user units, sockets of tmux and screen, mail, /run/user")
	l.units("/run/user/" + uid + "/systemd")
}

// at looks at one path, if no link leads there: what a link leads to has
// another name, by which it can be removed.
func (v *view) at(file string) (st unix.Statx_t, err error) {
	dir, name := path.Split(file)
	fd, err := v.open(dir, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return st, err
	}
	st, err = look(fd, name)
	return st, errors.Join(err, unix.Close(fd))
}

// There are those of the findings whose names are still there, or cannot be
// looked at.
func (h Host) There(found []Finding) (there []Finding, err error) {
	v, err := h.view()
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if _, err := v.at(f.Path); !errors.Is(err, unix.ENOENT) {
			there = append(there, f)
		}
	}
	return there, v.close()
}

// units names what a user manager still holds.
func (l *search) units(dir string) {
	for _, in := range []string{"transient", "user", "user.control"} {
		for _, name := range l.list(path.Join(dir, in)) {
			l.add(Finding{Kind: UserUnit, Path: path.Join(dir, in, name), Detail: "a unit of the account's manager"})
		}
	}
}

// memory looks for what outlives its process in the kernel.
func (l *search) memory() {
	for _, what := range []string{"shm", "sem", "msg"} {
		text, err := l.read("/proc/sysvipc/"+what, 4<<20)
		if err != nil {
			continue // a kernel without it
		}
		for _, id := range parseIPC(text, l.s.UID) {
			l.add(Finding{Kind: SharedMemory, Path: what + " " + id, Detail: "System V, of the account"})
		}
	}
	for _, name := range l.list("/dev/mqueue") {
		file := path.Join("/dev/mqueue", name)
		if st, err := l.at(file); err == nil && st.Uid == l.s.UID {
			l.add(Finding{Kind: SharedMemory, Path: file, Detail: "a message queue of the account"})
		}
	}
	l.looked("shared memory, semaphores, message queues")
}

// parseIPC takes the ids of what a uid owns or made from a file of
// /proc/sysvipc, whose first line names its columns.
func parseIPC(text string, uid uint32) []string {
	want := strconv.FormatUint(uint64(uid), 10)
	head, rest, _ := strings.Cut(text, "\n")
	columns := strings.Fields(head)
	var ids []string
	for line := range strings.Lines(rest) {
		fields := strings.Fields(line)
		if len(fields) < 2 || len(fields) != len(columns) {
			continue
		}
		for i, c := range columns {
			if (c == "uid" || c == "cuid") && fields[i] == want {
				ids = append(ids, fields[1])
				break
			}
		}
	}
	return ids
}
