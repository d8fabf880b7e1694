package host

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// moduleDirs are those that PAM loads from, as distributions have them.
var moduleDirs = []string{"lib/*/security", "usr/lib/*/security", "lib/security", "lib64/security", "usr/lib/security", "usr/lib64/security"}

// Places are the files that decide who gets in here and by which the agent
// lives: its units, sudo's, PAM's and sshd's, as far as they are there, those
// first that matter most.
func (h *Host) Places() []string {
	var own []string
	names := []string{
		"etc/sudoers", "etc/sudoers.d", "etc/sudo.conf", "usr/bin/sudo", "usr/lib/sudo", "usr/libexec/sudo",
		"etc/pam.d", "etc/pam.conf", "etc/security", "etc/nsswitch.conf", "etc/ssh/sshd_config", "etc/ssh/sshd_config.d",
		"run/userdb", "usr/bin/curfew-agent", "usr/libexec/curfew-agent", "usr/sbin/sshd",
	}
	for _, dir := range unitDirs {
		for _, unit := range ownUnits {
			names = append(names, filepath.Join(dir, unit), filepath.Join(dir, unit+".d"))
		}
	}
	for _, name := range names {
		own = append(own, h.path(name))
	}
	if group, ok := groupOf("self"); ok {
		own = append(own, h.path("sys/fs/cgroup", group)) // who freezes it stops us
		own = append(own, h.controls(filepath.Dir(group))...)
	}
	if group, ok := groupOf("1"); ok {
		own = append(own, h.controls(group)...) // and the first process, who starts us
	}
	// Last, for there can be any number of these, and room for so many only.
	for _, pattern := range append(slices.Clone(moduleDirs), filepath.Join(timersDir, timerPrefix+"*")) {
		found, _ := filepath.Glob(h.path(pattern)) // the patterns are good
		own = append(own, found...)
	}
	return own
}

// ownUnits are the names of our units. Others can make any number of such that
// only begin like them.
var ownUnits = []string{
	"curfew-agent.service", "curfew-record.service", "curfew-sweep.service", "curfew-sweep.timer", "curfew-join.service", "curfew-server.service",
	"run-curfew-home.mount",
}

// controls are the files by which a group and those above it are frozen, killed
// and held short; a process may be moved there. The root has no such
// (cgroups(7)).
func (h *Host) controls(group string) []string {
	var own []string
	for dir := group; dir != "."; dir = filepath.Dir(dir) {
		files, _ := os.ReadDir(h.path("sys/fs/cgroup", dir)) // one that is gone holds nobody
		for _, f := range files {
			if !f.IsDir() && f.Name() != "cgroup.procs" && f.Name() != "cgroup.threads" {
				own = append(own, h.path("sys/fs/cgroup", dir, f.Name()))
			}
		}
	}
	return own
}

// Witnessed are the folders in which it is told who opens a file for writing:
// they decide what runs here, for whom, and who gets in.
func (h *Host) Witnessed() []string {
	var all []string
	for _, name := range []string{
		"etc", "root", "boot", "usr/bin", "usr/sbin", "usr/local", "usr/lib/systemd", "usr/lib/modules",
		"var/spool/cron", "var/spool/at", "run/systemd/system", "run/systemd/transient",
	} {
		all = append(all, h.path(name))
	}
	return all
}

// groupOf is a process's control group (cgroups(7)), but for the root.
func groupOf(pid string) (string, bool) {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup")) //nolint:gosec // the kernel's own
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		if group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/"); ok && group != "" {
			return group, true
		}
	}
	return "", false
}
