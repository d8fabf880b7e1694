package host

import (
	"context"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/doctor"
)

// timekeepers are the units of programs that keep a clock right.
var timekeepers = []string{"systemd-timesyncd.service", "chrony.service", "chronyd.service", "ntp.service", "ntpsec.service", "ntpd.service"}

// clockFacts asks the kernel whether somebody keeps the clock right
// (adjtimex(2)): whoever does tells it.
func (h *Host) clockFacts(ctx context.Context) doctor.Clock {
	var f doctor.Clock
	var t unix.Timex // it sets nothing
	if _, err := unix.Adjtimex(&t); err == nil {
		f.Synced = t.Status&unix.STA_UNSYNC == 0
	} else if out, err := h.run(ctx, "timedatectl", "show", "--property=NTPSynchronized", "--value"); err == nil {
		f.Synced = strings.TrimSpace(out) == "yes" // the agent's unit may not ask by itself
	} else {
		f.Err = err.Error()
	}
	_, err := os.Stat(h.path("run/systemd/container"))
	f.Container = err == nil
	for _, unit := range timekeepers {
		if out, err := h.run(ctx, "systemctl", "is-active", unit); err == nil && strings.TrimSpace(out) == "active" {
			f.Service = unit
		}
	}
	return f
}

func (h *Host) roomFacts(dir string) doctor.Room {
	r := doctor.Room{Path: "/" + dir}
	var st unix.Statfs_t
	if err := unix.Statfs(h.path(dir), &st); err != nil {
		r.Err = err.Error()
		return r
	}
	size := uint64(max(st.Bsize, 0))
	r.Free, r.Total = st.Bavail*size, st.Blocks*size
	r.FreeFiles, r.Files = st.Ffree, st.Files
	return r
}

func (h *Host) unitFacts(ctx context.Context) doctor.Units {
	args := append([]string{"show", "--no-pager", "--property=Id,LoadState,ActiveState,UnitFileState,DropInPaths,NeedDaemonReload", "--"}, doctor.OurUnits...)
	out, err := h.run(ctx, "systemctl", args...)
	if err != nil {
		return doctor.Units{Err: err.Error() + ": " + strings.TrimSpace(out)}
	}
	inhabited, _ := os.ReadDir(h.path("run/curfew/home")) // none: nobody has one
	return doctor.Units{Text: out, Homes: len(inhabited) > 0}
}
