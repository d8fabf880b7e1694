package remains

import (
	"errors"
	"fmt"
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

// Own looks for what is the account's own where it would run again or lie
// about. It takes a moment, and walks no folder: Look does that. A folder by
// the account's name is somebody else's among jobs and mail, where files
// alone count. Skipped are folders of other machines.
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
		for _, name := range v.listStraight(p.dir) {
			f, there, err := v.ownAt(path.Join(p.dir, name), p.kind)
			if there && f.ID.UID == s.UID {
				found = append(found, f)
			}
			errs = append(errs, err)
		}
	}
	return found, v.skipped(), errors.Join(append(errs, v.close())...)
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

// listStraight names what is in a folder that no link leads to.
func (v *view) listStraight(dir string) []string {
	if fd, err := v.open(dir, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS); err != nil || unix.Close(fd) != nil {
		return nil
	}
	return slices.DeleteFunc(v.list(dir), func(name string) bool { return strings.ContainsRune(name, '/') })
}
