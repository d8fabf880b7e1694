package host

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// elevate are the services that give another account's rights.
var elevate = []string{"sudo", "sudo-i", "su", "su-l"}

// Barred says whether enforce mode refuses a call of the service by somebody
// without a grant, and whether this host is in it. The rule is the module's
// (pammod): root may, whatever its name, and the break-glass group.
func (h *Host) Barred(ctx context.Context, service, caller string) (barred, enforced bool, err error) {
	w, was, err := h.Wiring()
	if err != nil || !was {
		return false, false, err
	}
	if !slices.Contains(elevate, service) || caller == "" || caller == "root" {
		return false, w.Enforce, nil
	}
	line, found, err := h.getent(ctx, "passwd", caller)
	if err != nil {
		return false, w.Enforce, err
	}
	if fields := strings.Split(line, ":"); found && len(fields) > 2 && fields[2] == "0" {
		return false, w.Enforce, nil
	}
	if w.Breakglass == "" {
		return true, w.Enforce, nil
	}
	group, found, err := h.getent(ctx, "group", w.Breakglass)
	if err != nil || !found {
		return true, w.Enforce, err
	}
	out, err := h.run(ctx, "id", "-G", "--", caller)
	if err != nil {
		return false, w.Enforce, fmt.Errorf("groups of %s: %w", caller, err)
	}
	fields := strings.Split(group, ":")
	return len(fields) < 3 || !slices.Contains(strings.Fields(out), fields[2]), w.Enforce, nil
}

// Elevation is who may use sudo and su without a grant: nobody is barred on a
// host that is not wired.
type Elevation struct {
	Wired   bool
	Wiring  Wiring
	Members []string // of the break-glass group, sorted
}

// Elevation says how it is now.
func (h *Host) Elevation(ctx context.Context) (Elevation, error) {
	w, was, err := h.Wiring()
	e := Elevation{Wired: was, Wiring: w}
	if err != nil || w.Breakglass == "" {
		return e, err
	}
	group, found, err := h.getent(ctx, "group", w.Breakglass)
	if err != nil || !found {
		return e, err
	}
	fields := strings.Split(strings.TrimSpace(group), ":")
	if len(fields) < 4 {
		return e, fmt.Errorf("group %s: %d fields", w.Breakglass, len(fields))
	}
	e.Members = strings.FieldsFunc(fields[3], func(r rune) bool { return r == ',' })
	// Whose first group it is, the group does not say.
	accounts, err := os.ReadFile(h.path("etc/passwd"))
	for line := range strings.Lines(string(accounts)) {
		if a := strings.Split(line, ":"); len(a) > 3 && a[3] == fields[2] {
			e.Members = append(e.Members, a[0])
		}
	}
	slices.Sort(e.Members)
	e.Members = slices.Compact(e.Members)
	return e, err
}

// WiringFile says how the host was wired.
func (h *Host) WiringFile() string { return h.path(wiringFile) }
