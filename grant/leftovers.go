package grant

import (
	"fmt"
	"slices"
	"strings"
)

// leftovers are the kinds of what a session may leave on a host and a role
// may have removed, whoever owns it. What is the account's own always goes.
var leftovers = []string{
	"at-job", "authorized-keys", "capability", "crontab", "hook", "linger", "module", "owned-file", "pam", "policy", "preload",
	"profile", "program", "setuid", "ssh-config", "sudo-rule", "system-cron", "system-unit", "timer", "udev-rule", "user-unit",
}

// Leftovers lists the kinds of leftovers that a role may have removed.
func Leftovers() []string { return slices.Clone(leftovers) }

// CheckLeftover reports whether a role may have leftovers of the kind removed.
func CheckLeftover(kind string) error {
	if !slices.Contains(leftovers, kind) {
		return fmt.Errorf("%.40q is no kind of leftovers that can be removed: there are %s", kind, strings.Join(leftovers, ", "))
	}
	return nil
}

// checkRemove holds the kinds to one spelling.
func (r Role) checkRemove() error {
	for i, kind := range r.Remove {
		if err := CheckLeftover(kind); err != nil {
			return err
		}
		if i > 0 && r.Remove[i-1] >= kind {
			return fmt.Errorf("kinds of leftovers are sorted and each named once, unlike %s", kind)
		}
	}
	return nil
}
