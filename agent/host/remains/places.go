package remains

import (
	"path"
	"slices"
	"strings"
)

// A place is a file or folder that decides what runs as root, or who gets in.
type place struct {
	path string
	kind Kind
	deep int // levels of folders below it that count
}

// places are in the order in which they claim what lies in two of them.
var places = []place{
	{"/etc/sudoers", SudoRule, 0},
	{"/etc/sudoers.d", SudoRule, 1},
	{"/etc/sudo.conf", SudoRule, 0},
	{"/etc/pam.conf", PAM, 0},
	{"/etc/pam.d", PAM, 1},
	{"/etc/security", PAM, 2},
	{"/usr/lib/pam.d", PAM, 1},
	{"/usr/lib/security", PAM, 1},
	{"/usr/lib64/security", PAM, 1},
	{"/usr/lib/x86_64-linux-gnu/security", PAM, 1},
	{"/usr/lib/aarch64-linux-gnu/security", PAM, 1},
	{"/etc/ssh", SSHConfig, 2},
	{"/etc/passwd", AccountFile, 0},
	{"/etc/shadow", AccountFile, 0},
	{"/etc/group", AccountFile, 0},
	{"/etc/gshadow", AccountFile, 0},
	{"/etc/subuid", AccountFile, 0},
	{"/etc/subgid", AccountFile, 0},
	{"/etc/nsswitch.conf", AccountFile, 0},
	{"/etc/userdb", AccountFile, 1},
	{"/usr/lib/userdb", AccountFile, 1},
	{"/run/host/userdb", AccountFile, 1},
	{"/run/userdb", AccountFile, 1},

	{"/etc/crontab", SystemCron, 0},
	{"/etc/anacrontab", SystemCron, 0},
	{"/etc/cron.d", SystemCron, 1},
	{"/etc/cron.hourly", SystemCron, 1},
	{"/etc/cron.daily", SystemCron, 1},
	{"/etc/cron.weekly", SystemCron, 1},
	{"/etc/cron.monthly", SystemCron, 1},
	{"/etc/cron.yearly", SystemCron, 1},
	{"/var/spool/cron/atjobs", AtJob, 1},
	{"/var/spool/cron/atspool", AtJob, 1},
	{"/var/spool/at", AtJob, 2},
	{"/var/spool/cron/crontabs", Crontab, 1},
	{"/var/spool/cron", Crontab, 1},

	{"/etc/systemd/user", UserUnit, 3},
	{"/etc/systemd", SystemUnit, 4},
	{"/run/systemd/system", SystemUnit, 3},
	{"/run/systemd/system.control", SystemUnit, 2},
	{"/run/systemd/transient", SystemUnit, 2},
	{"/run/systemd/system-generators", SystemUnit, 1},
	{"/run/systemd/system-environment-generators", SystemUnit, 1},
	{"/usr/local/lib/systemd", SystemUnit, 4},
	{"/usr/lib/systemd/system", SystemUnit, 2},
	{"/usr/lib/systemd/system-generators", SystemUnit, 1},
	{"/usr/lib/systemd/system-environment-generators", SystemUnit, 1},
	{"/usr/lib/systemd/system-shutdown", SystemUnit, 1},
	{"/usr/lib/systemd/system-sleep", SystemUnit, 1},
	{"/usr/lib/systemd/user", UserUnit, 2},
	{"/root/.config/systemd", UserUnit, 4},
	{"/var/lib/systemd/linger", Linger, 1},
	{"/etc/init.d", SystemUnit, 1},
	{"/etc/rc.local", SystemUnit, 0},
	{"/etc/rc.d", SystemUnit, 2},
	{"/etc/inittab", SystemUnit, 0},

	{"/etc/ld.so.preload", Preload, 0},
	{"/etc/ld.so.conf", Preload, 0},
	{"/etc/ld.so.conf.d", Preload, 1},
	{"/etc/ld.so.cache", Preload, 0},
	{"/etc/udev/rules.d", UdevRule, 1},
	{"/run/udev/rules.d", UdevRule, 1},
	{"/usr/lib/udev/rules.d", UdevRule, 1},
	{"/etc/modules", Module, 0},
	{"/etc/modules-load.d", Module, 1},
	{"/etc/modprobe.d", Module, 1},
	{"/usr/lib/modules-load.d", Module, 1},
	{"/usr/lib/modprobe.d", Module, 1},
	{"/run/modprobe.d", Module, 1},
	{"/etc/sysctl.conf", KernelValue, 0},
	{"/etc/sysctl.d", KernelValue, 1},
	{"/usr/lib/sysctl.d", KernelValue, 1},
	{"/run/sysctl.d", KernelValue, 1},
	{"/etc/binfmt.d", KernelValue, 1},
	{"/sys/fs/bpf", BPFPin, 2},

	{"/root/.ssh", AuthorizedKeys, 1},
	{"/root/.profile", Profile, 0},
	{"/root/.bashrc", Profile, 0},
	{"/root/.bash_profile", Profile, 0},
	{"/root/.bash_login", Profile, 0},
	{"/root/.bash_logout", Profile, 0},
	{"/root/.zshrc", Profile, 0},
	{"/root/.zshenv", Profile, 0},
	{"/root/.pam_environment", Profile, 0},
	{"/etc/profile", Profile, 0},
	{"/etc/profile.d", Profile, 1},
	{"/etc/bash.bashrc", Profile, 0},
	{"/etc/bashrc", Profile, 0},
	{"/etc/zsh", Profile, 1},
	{"/etc/environment", Profile, 0},
	{"/etc/environment.d", Profile, 1},

	{"/etc/apt/apt.conf.d", Hook, 1},
	{"/etc/dpkg/dpkg.cfg.d", Hook, 1},
	{"/etc/logrotate.conf", Hook, 0},
	{"/etc/logrotate.d", Hook, 1},
	{"/etc/update-motd.d", Hook, 1},
	{"/etc/tmpfiles.d", Hook, 1},
	{"/usr/lib/tmpfiles.d", Hook, 1},
	{"/run/tmpfiles.d", Hook, 1},
	{"/etc/network", Hook, 2},
	{"/etc/NetworkManager/dispatcher.d", Hook, 2},
	{"/etc/networkd-dispatcher", Hook, 2},
	{"/etc/dhcp", Hook, 2},
	{"/etc/kernel", Hook, 2},
	{"/etc/initramfs-tools", Hook, 3},
	{"/etc/dracut.conf.d", Hook, 1},
	{"/etc/grub.d", Hook, 1},
	{"/etc/default/grub", Hook, 0},
	{"/etc/gdb", Hook, 1},
	{"/etc/git/config", Hook, 0},
	{"/etc/gitconfig", Hook, 0},
	{"/etc/polkit-1", Policy, 3},
	{"/usr/share/polkit-1/rules.d", Policy, 1},
	{"/etc/dbus-1", Policy, 2},
	{"/usr/share/dbus-1/system-services", Policy, 1},
	{"/usr/local/bin", Program, 1},
	{"/usr/local/sbin", Program, 1},
	{"/usr/sbin/sshd", Program, 0},
	{"/usr/bin/login", Program, 0},
	{"/usr/bin/bash", Program, 0},
	{"/usr/bin/dash", Program, 0},
	{"/usr/bin/sh", Program, 0},
	{"/usr/lib/systemd/systemd", Program, 0},
	{"/boot/grub/grub.cfg", Hook, 0},
}

// keyFiles are what sshd reads in a home.
var keyFiles = []string{"authorized_keys", "authorized_keys2", "rc", "environment"}

// values are settings of the kernel that name a program it starts as root,
// loosen what it keeps from others, or can leave nothing of ours room to run.
var values = []string{
	"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/poweroff_cmd", "/sys/kernel/uevent_helper",
	"/proc/sys/fs/suid_dumpable", "/proc/sys/fs/protected_hardlinks", "/proc/sys/fs/protected_symlinks",
	"/proc/sys/kernel/yama/ptrace_scope", "/proc/sys/kernel/unprivileged_bpf_disabled",
	"/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max", "/proc/sys/kernel/sched_rt_runtime_us",
	"/proc/sys/fs/file-max", "/proc/sys/fs/nr_open", "/proc/sys/vm/max_map_count",
	"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/overcommit_ratio", "/proc/sys/vm/overcommit_kbytes", "/proc/sys/vm/min_free_kbytes",
}

// binfmt holds interpreters that the kernel starts, with the rights of a
// setuid file if it is told so.
const binfmt = "/proc/sys/fs/binfmt_misc"

// installed are files of ours in guarded places. Drift puts them back, and no
// session's end takes them.
var installed = []string{"/etc/sudoers.d/curfew", "/etc/ssh/sshd_config.d/curfew.conf"}

// kindIn is the kind of what lies in a place.
func (p place) kindIn(file string) Kind {
	if (p.kind == SystemUnit || p.kind == UserUnit) && strings.HasSuffix(file, ".timer") {
		return Timer
	}
	return p.kind
}

// counters are where at counts its jobs.
var counters = []string{"/var/spool/cron/atjobs/.SEQ", "/var/spool/at/.SEQ"}

// passing reports what everyone's coming and going changes: units without a
// command that logind and systemd make and drop for everyone who logs in, the
// ends of grants, which drift looks after, and at's counter. A folder of
// additions to one of them is nobody's coming.
func passing(file string) bool {
	if slices.Contains(counters, file) {
		return true
	}
	name, ok := strings.CutPrefix(file, "/run/systemd/transient/")
	if !ok {
		return false
	}
	for _, p := range []string{"session-*.scope", "user-*.slice", "curfew-end-*.timer"} {
		if ok, err := path.Match(p, name); ok && err == nil { // no star stands for a slash
			return true
		}
	}
	return name == "init.scope"
}
