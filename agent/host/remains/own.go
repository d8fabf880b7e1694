package remains

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ownPlaces are folders of jobs and mail, in which a file that bears the
// account's name is the account's, and crowded ones in which its owner tells.
var (
	ownPlaces = []struct {
		kind Kind
		dir  string
		any  bool // whoever owns it: logind, which is root, makes it
	}{
		{Crontab, "/var/spool/cron/crontabs", false},
		{Crontab, "/var/spool/cron", false},
		{Mail, "/var/mail", false},
		{Mail, "/var/spool/mail", false},
		{Linger, "/var/lib/systemd/linger", true},
	}
	crowded = []struct {
		kind Kind
		dir  string
	}{
		{TempFile, "/tmp"},
		{TempFile, "/var/tmp"},
		{TempFile, "/dev/shm"},
		{AtJob, "/var/spool/cron/atjobs"},
		{AtJob, "/var/spool/at"},
	}
)

// OwnLooked is where [Host.Own] looks.
const OwnLooked = "crontab, at jobs, mail, linger; what lies directly in /tmp, /var/tmp, /dev/shm"

// Most is about how much Own finds at a time. Who removes that, and asks again,
// comes to the rest.
const Most = 10_000

// throng is how many names of a crowded folder Own looks at.
const throng = 200_000

// Own looks for what is the account's own where it would run again or lie
// about. It takes a moment, and walks no folder: Look does that. A folder by
// the account's name is somebody else's among jobs and mail, where files
// alone count. Skipped are folders of other machines, and the rest of those that
// hold too much of other people's.
func (h Host) Own(s Session) (found []Finding, skipped []string, err error) {
	if err := s.check(); err != nil {
		return nil, nil, err
	}
	v, err := h.view()
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, p := range ownPlaces {
		f, there, err := v.ownAt(path.Join(p.dir, s.Person), p.kind)
		if there && f.ID.Type == unix.S_IFREG && (p.any || f.ID.UID == s.UID) {
			found = append(found, f)
		}
		errs = append(errs, err)
	}
	for _, p := range crowded {
		got, all, err := v.ownIn(p.dir, p.kind, s.UID)
		found, errs = append(found, got...), append(errs, err)
		if !all {
			skipped = append(skipped, fmt.Sprintf("%s behind the first %d names", p.dir, throng))
		}
	}
	return found, append(v.skipped(), skipped...), errors.Join(append(errs, v.close())...)
}

// ownIn looks for what is the account's in a folder, up to about as much as is
// found at a time. Not all is that of a folder which holds too many names.
func (v *view) ownIn(dir string, kind Kind, uid uint32) (found []Finding, all bool, err error) {
	var errs []error
	left := throng
	for names, err := range v.straight(dir) {
		errs = append(errs, err)
		for _, name := range names {
			f, there, err := v.ownAt(path.Join(dir, name), kind)
			if there && f.ID.UID == uid {
				found = append(found, f)
			}
			errs = append(errs, err)
		}
		if left -= len(names); left <= 0 || len(found) >= Most {
			break
		}
	}
	return found, left > 0, errors.Join(errs...)
}

// ownAt looks at one name.
func (v *view) ownAt(file string, kind Kind) (f Finding, there bool, err error) {
	st, err := v.at(file)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
		return f, false, nil // none; or reached by a link, and looked at by its own name; or another machine's
	case err != nil:
		return f, false, fmt.Errorf("look at %s: %w", file, err)
	}
	detail := describe(Fact{Mode: st.Mode, UID: st.Uid, Size: st.Size})
	return Finding{Kind: kind, Path: file, Detail: detail, Removable: true, ID: identity(st)}, true, nil
}

// straight names what is in a folder that no link leads to, some at a time.
func (v *view) straight(dir string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		fd, err := v.open(dir, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			return // none, or reached by a link
		}
		f := os.NewFile(uintptr(fd), dir)
		defer func() { _ = f.Close() }() // read only
		for {
			names, err := f.Readdirnames(512)
			if errors.Is(err, io.EOF) {
				return
			}
			names = slices.DeleteFunc(names, func(name string) bool { return strings.ContainsRune(name, '/') })
			if !yield(names, err) || err != nil {
				return
			}
		}
	}
}
