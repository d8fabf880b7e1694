package remains

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// compare tells what differs in the guarded places since before, and what
// there is the session's own.
func (l *search) compare(before, now Before) {
	renewed := linksIn(now) == 1
	for _, file := range sorted(now.Files) {
		f := now.Files[file]
		detail := l.changed(before, file, f)
		if detail == "" || renewed && links(file) && f.UID == 0 || file == path.Join("/var/lib/systemd/linger", l.s.Person) { // told by its name
			continue
		}
		_, was := before.Files[file]
		fresh := before.Files != nil && !was || f.UID == l.s.UID && f.Mode&unix.S_IFMT != unix.S_IFDIR
		l.add(Finding{Kind: f.kind, Path: file, Detail: detail, Removable: fresh && !slices.Contains(installed, file), ID: f.id})
	}
	if before.Files == nil {
		l.skip("guarded places", errors.New("nobody looked at them before the session, so times are all there is to go by"))
		return
	}
	for _, file := range sorted(before.Files) {
		if _, is := now.Files[file]; !is && (!renewed || !links(file)) {
			l.add(Finding{Kind: kindOf(file), Path: file, Detail: "gone since the session began"})
		}
	}
	l.kernel(before, now)
}

// linksIn counts the folders in which an agent holds its programs' links. Each
// has a new one, and takes away those before: one more is somebody else's.
func linksIn(b Before) int {
	n := 0
	for file := range b.Files {
		if links(file) {
			n++
		}
	}
	return n
}

func links(file string) bool {
	ok, err := path.Match("/sys/fs/bpf/curfew/links-*", file)
	return ok && err == nil
}

// changed says how a file in a guarded place differs, or nothing.
func (l *search) changed(before Before, file string, f Fact) string {
	old, was := before.Files[file]
	detail := ""
	switch {
	case before.Files == nil:
		if f.Ctime >= l.s.Since.UnixNano() {
			detail = "changed since the session began: " + describe(f)
		}
	case !was:
		detail = "new since the session began: " + describe(f)
	default:
		if f.kind == BPFPin {
			old.Ctime = f.Ctime // of a pin, which every user of it touches
		}
		detail = difference(old, f)
	}
	if detail == "" && f.UID == l.s.UID {
		return "theirs: " + describe(f)
	}
	return detail
}

// kernel tells what differs in what the kernel holds.
func (l *search) kernel(before, now Before) {
	for _, m := range now.Modules {
		if !slices.Contains(before.Modules, m) {
			l.add(Finding{Kind: Module, Path: m, Detail: "loaded since the session began"})
		}
	}
	for _, name := range sorted(now.Values) {
		if was, is := before.Values[name], now.Values[name]; was != is {
			l.add(Finding{Kind: KernelValue, Path: name, Detail: fmt.Sprintf("%q, before the session %q", brief(is), brief(was))})
		}
	}
	for _, point := range sorted(now.Mounts) {
		if is := now.Mounts[point]; before.Mounts[point] != is {
			l.add(Finding{Kind: Mount, Path: point, Detail: "mounted since the session began: " + is})
		}
	}
}

func brief(s string) string { return s[:min(len(s), 80)] }

func describe(f Fact) string {
	text := fmt.Sprintf("mode %o, owner %d", f.Mode&0o7777, f.UID)
	switch f.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		text = "a folder, " + text
	case unix.S_IFLNK:
		text = "a link to " + f.Link
	case unix.S_IFREG:
		text += fmt.Sprintf(", %d bytes", f.Size)
	}
	return text
}

// difference says what changed, or nothing.
func difference(was, is Fact) string {
	var what []string
	say := func(differs bool, text string) {
		if differs {
			what = append(what, text)
		}
	}
	say(was.Mode&unix.S_IFMT != is.Mode&unix.S_IFMT, "kind")
	say(was.Mode&^unix.S_IFMT != is.Mode&^unix.S_IFMT, fmt.Sprintf("mode from %o to %o", was.Mode&0o7777, is.Mode&0o7777))
	say(was.UID != is.UID, fmt.Sprintf("owner from %d to %d", was.UID, is.UID))
	say(was.GID != is.GID, fmt.Sprintf("group from %d to %d", was.GID, is.GID))
	say(was.Link != is.Link, "where it leads, now to "+is.Link)
	touched := was.Ctime != is.Ctime || was.Ino != is.Ino
	same := was.Sum != "" && was.Sum == is.Sum
	say(was.Sum != is.Sum || was.Size != is.Size || touched && !same && is.Mode&unix.S_IFMT == unix.S_IFREG, "content")
	if was.To != nil && is.To != nil && was.Link == is.Link {
		say(*was.To != *is.To, "what it leads to")
	} else {
		say((was.To == nil) != (is.To == nil), "whether it leads to a file")
	}
	if len(what) > 0 {
		return "changed since the session began: " + strings.Join(what, ", ")
	}
	if touched {
		return "written since the session began, with the same content"
	}
	return ""
}

// kindOf is the kind of a path by the place that it lies in.
func kindOf(file string) Kind {
	for _, p := range places {
		if under(file, p.path) {
			return p.kindIn(file)
		}
	}
	return AuthorizedKeys // the only files of homes that are looked at
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02 15:04:05 MST") }
