package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// unitDirs are where packages and administrators put units; unitWords are
// others in which systemd finds what changes one (systemd.unit(5)).
var (
	unitDirs  = []string{"usr/lib/systemd/system", "etc/systemd/system"}
	unitWords = []string{"run/systemd/system", "etc/systemd/system.control", "run/systemd/system.control"}
)

// ourUnits are the files that our packages put there.
var ourUnits = []string{
	"curfew-agent.service", "curfew-join.service", "curfew-record.service", "curfew-server.service", "curfew-sweep.service", "curfew-sweep.timer", "run-curfew-home.mount",
}

// Units are the files of our units as they ought to be.
type Units struct {
	files map[string]string // content; of a link, where it leads
}

// A UnitChange is what somebody did to a unit of ours.
type UnitChange struct {
	File, What string
	Mended     bool // a file is as it was; what an administrator says of a unit stands
}

// MendUnits puts the files of our units right, and says what was changed since
// the call before. To mask, disable or override a unit is an administrator's
// word: it is told, and stands. So does what becomes of a unit that only begins
// with our name: it may be what a session left, and is to go with it. What a package manager does is what the units
// ought to be from then on; so is what the first call finds.
func (h *Host) MendUnits(ctx context.Context, u *Units) ([]UnitChange, error) {
	busy := h.packaging()
	now := h.units()
	if u.files == nil || busy || h.packaging() {
		u.files = now
		return nil, nil
	}
	var changes []UnitChange
	var errs []error
	for _, file := range slices.Sorted(maps.Keys(u.files)) {
		was := u.files[file]
		is, there := now[file]
		if there && is == was {
			continue
		}
		c := UnitChange{File: "/" + file, What: "was changed or removed", Mended: u.packaged(file)}
		if c.Mended {
			if err := renameio.WriteFile(h.path(file), []byte(was), 0o644, renameio.IgnoreUmask()); err != nil {
				errs = append(errs, fmt.Errorf("put %s right: %w", file, err))
				continue
			}
		} else if delete(u.files, file); there {
			u.files[file] = is
		}
		changes = append(changes, c)
	}
	for _, file := range slices.Sorted(maps.Keys(now)) {
		if _, known := u.files[file]; !known {
			u.files[file] = now[file]
			changes = append(changes, UnitChange{File: "/" + file, What: "was put there"})
		}
	}
	if slices.ContainsFunc(changes, func(c UnitChange) bool { return c.Mended }) {
		errs = append(errs, h.reloadUnits(ctx))
	}
	return changes, errors.Join(errs...)
}

// packaged says whether that is the file of a unit of ours itself: neither one
// that is laid over a package's, nor a link.
func (u *Units) packaged(file string) bool {
	name := filepath.Base(file)
	if !slices.Contains(ourUnits, name) || strings.HasPrefix(u.files[file], leadsTo) {
		return false
	}
	_, beneath := u.files[filepath.Join(unitDirs[0], name)]
	return filepath.Dir(file) == unitDirs[0] || filepath.Dir(file) == unitDirs[1] && !beneath
}

// leadsTo begins what stands for a link.
const leadsTo = "-> "

// units reads the files. One that cannot be read counts as empty.
func (h *Host) units() map[string]string {
	files := map[string]string{}
	for _, dir := range slices.Concat(unitDirs, unitWords) {
		// Once, and not once for each kind of name: hundreds of others lie there.
		for _, name := range h.names(dir) {
			for _, file := range h.ofUnits(dir, name) {
				if content, ok := unitText(h.path(file)); ok {
					files[file] = content
				}
			}
		}
	}
	return files
}

// ofUnits is what of a name in a folder of units is of ours: itself, which may
// be a link, what is in it, or those in it that want ours.
func (h *Host) ofUnits(dir, name string) []string {
	file, begin := filepath.Join(dir, name), ""
	var all []string
	if strings.HasPrefix(name, "curfew-") || strings.HasPrefix(name, "run-curfew-") {
		all = append(all, file)
	}
	switch {
	case strings.HasSuffix(name, ".wants"):
		begin = "curfew-"
	case len(all) == 0 || !strings.HasSuffix(name, ".d"):
		return all
	}
	for _, inside := range h.names(file) {
		if strings.HasPrefix(inside, begin) {
			all = append(all, filepath.Join(file, inside))
		}
	}
	return all
}

// names are those in a folder; none where there is no such folder. A pipe of that
// name is none to wait at.
func (h *Host) names(dir string) []string {
	d, err := os.OpenFile(h.path(dir), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	defer d.Close() //nolint:errcheck // it is only read
	names, _ := d.Readdirnames(-1)
	return names
}

// unitText is a file's content, or where a link leads.
func unitText(file string) (content string, ok bool) {
	if to, err := os.Readlink(file); err == nil {
		return leadsTo + to, true
	}
	info, err := os.Lstat(file)
	if err != nil || !info.Mode().IsRegular() {
		return "", false
	}
	b, _ := os.ReadFile(file) //nolint:gosec // a unit's
	return string(b), true
}

// packageLocks are held while a package manager changes files.
var packageLocks = []string{"var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/rpm/.rpm.lock", "usr/lib/sysimage/rpm/.rpm.lock"}

// packaging says whether one does.
func (h *Host) packaging() bool {
	return slices.ContainsFunc(packageLocks, func(name string) bool {
		f, err := os.OpenFile(h.path(name), os.O_RDONLY|unix.O_NONBLOCK, 0) // it may be a pipe
		if err != nil {
			return false
		}
		lock := unix.Flock_t{Type: unix.F_RDLCK}
		err = unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock)
		return errors.Join(err, f.Close()) == nil && lock.Type == unix.F_WRLCK
	})
}

// reloadUnits has systemd read its units again.
func (h *Host) reloadUnits(ctx context.Context) error {
	if h.Root != "/" {
		return nil // systemd is the machine's own
	}
	c, err := systemd.NewSystemdConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("ask systemd: %w", err)
	}
	defer c.Close()
	if err := c.ReloadContext(ctx); err != nil {
		return fmt.Errorf("have systemd read its units again: %w", err)
	}
	return nil
}
