package host

import (
	"context"
	"slices"
	"strings"

	"curfew.internal/agent/host/remains"
)

// environment is what systemd gives all that it starts: whoever sets LD_PRELOAD
// there (systemctl(1), set-environment) has a part in it until the next boot, and
// no file tells of that.
const environment = "environment of what systemd starts"

// environment reads it, one variable a line.
func (h *Host) environment(ctx context.Context) (text string, err error) {
	if h.Root != "/" {
		return "", nil // systemd is the machine's own
	}
	return h.output(ctx, "systemctl", "show-environment")
}

// set names the variables that differ, and not what they hold: that may be a
// secret.
func set(before, now string) []remains.Finding {
	was, is := slices.Collect(strings.Lines(before)), slices.Collect(strings.Lines(now))
	var names []string
	for _, line := range append(lacking(is, was), lacking(was, is)...) {
		if name, _, ok := strings.Cut(line, "="); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []remains.Finding{{
		Kind: remains.SystemUnit, Path: environment,
		Detail: "changed since the session began: " + strings.Join(names, ", "),
	}}
}

func lacking(lines, others []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return slices.Contains(others, l) })
}
