package host

import (
	"context"
	"fmt"
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
