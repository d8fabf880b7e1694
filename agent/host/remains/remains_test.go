package remains

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"curfew.internal/agent/host/tree"
	"curfew.internal/grant"
	"curfew.internal/test/need"
)

const uid = grant.UIDMin + 7

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A world is a host below a folder of the test's.
type world struct {
	t *testing.T
	Host
	before Before
	began  time.Time
}

const (
	rootMount = "21 1 0:1 / / rw - ext4 /dev/vda rw\n"
	passwd    = "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	need.Root(t)
	w := &world{t: t, Host: Host{Root: t.TempDir()}}
	for _, d := range []string{
		"etc/sudoers.d", "etc/cron.d", "etc/systemd/system/multi-user.target.wants", "etc/pam.d", "root/.ssh", "home/bob/.ssh",
		"var/spool/cron/crontabs", "var/spool/at", "var/lib/systemd/linger", "tmp", "dev/shm", "usr/bin", "run/systemd/transient", "run/userdb",
		"var/lib/dpkg/info", "proc/sys/kernel", "srv",
	} {
		must(t, os.MkdirAll(w.path(d), 0o755))
	}
	w.write("proc/self/mountinfo", rootMount, 0o444)
	w.write("proc/modules", "ext4 1 0 - Live 0x0\n", 0o444)
	w.write("proc/sys/kernel/core_pattern", "core\n", 0o644)
	w.write("proc/sys/fs/file-max", "9223372036854775807\n", 0o644)
	w.write("etc/passwd", passwd, 0o644)
	w.write("etc/sudoers", "root ALL=(ALL) ALL\n", 0o440)
	w.write("etc/pam.d/sudo", "auth required pam_unix.so\n", 0o644)
	w.write("home/bob/.ssh/authorized_keys", "ssh-ed25519 AAAA bob\n", 0o600)
	w.write("usr/bin/su", "x", 0o755)
	must(t, os.Chmod(w.path("usr/bin/su"), 0o755|os.ModeSetuid))
	w.write("var/lib/dpkg/info/login.list", "/.\n/bin\n/bin/su\n", 0o644)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.Root, name) }

func (w *world) write(name, text string, mode os.FileMode) {
	w.t.Helper()
	must(w.t, os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	must(w.t, os.WriteFile(w.path(name), []byte(text), mode))
	must(w.t, os.Chmod(w.path(name), mode))
}

// theirs gives a file to the session's account.
func (w *world) theirs(name string) {
	w.t.Helper()
	must(w.t, os.Lchown(w.path(name), uid, uid))
}

// begin has what is there be there for a while, and takes the snapshot.
func (w *world) begin() {
	w.t.Helper()
	time.Sleep(40 * time.Millisecond) // times of files lag behind by a tick or two
	w.began = time.Now().Add(coarse - 20*time.Millisecond)
	b, err := w.Snapshot(w.t.Context())
	must(w.t, err)
	text, err := json.Marshal(b)
	must(w.t, err)
	must(w.t, json.Unmarshal(text, &w.before)) // it is kept in /run
}

func (w *world) look() Found {
	w.t.Helper()
	found, err := w.Look(w.t.Context(), w.before, Session{Person: "cfw-ana", UID: uid, Since: w.began})
	must(w.t, err)
	return found
}

// told is a look as "kind path", with a star where it can be removed.
func (w *world) told() []string {
	w.t.Helper()
	return short(w.look().Findings)
}

func short(found []Finding) []string {
	var all []string
	for _, f := range found {
		s := string(f.Kind) + " " + f.Path
		if f.Removable {
			s += " *"
		}
		all = append(all, s)
	}
	return all
}

func TestWhatASessionLeaves(t *testing.T) {
	shell := func(w *world, name string) {
		w.write(name, "#!", 0o755)
		must(w.t, os.Chmod(w.path(name), 0o755|os.ModeSetuid))
	}
	for name, c := range map[string]struct {
		do   func(w *world)
		want []string
	}{
		"nothing":        {func(*world) {}, nil},
		"a setuid shell": {func(w *world) { shell(w, "srv/sh") }, []string{"setuid /srv/sh *"}},
		"a way to a disk": {func(w *world) {
			must(w.t, unix.Mknod(w.path("srv/disk"), unix.S_IFBLK|0o666, int(unix.Mkdev(252, 4095))))
			must(w.t, unix.Mknod(w.path("srv/gone"), unix.S_IFCHR, 0)) // as an overlay has it
		}, []string{"device /srv/disk"}},
		"devices that came while she was there, and a disk that she opened": {func(w *world) {
			for name, mode := range map[string]uint32{"loop9": unix.S_IFBLK | 0o660, "fuse": unix.S_IFCHR | 0o666, "vda": unix.S_IFBLK | 0o660} {
				must(w.t, unix.Mknod(w.path("dev/"+name), mode, int(unix.Mkdev(252, 4095))))
				must(w.t, os.Chmod(w.path("dev/"+name), os.FileMode(mode&0o777)))
			}
			must(w.t, os.Chmod(w.path("dev/vda"), 0o666))
		}, []string{"device /dev/vda"}},
		"a setgid shell of hers in a shared folder": {func(w *world) {
			w.write("tmp/sh", "#!", 0o755)
			w.theirs("tmp/sh")
			must(w.t, os.Chmod(w.path("tmp/sh"), 0o755|os.ModeSetgid))
		}, []string{"temp-file /tmp/sh *"}},
		"a file with a capability": {func(w *world) {
			w.write("srv/cat", "#!", 0o755)
			must(w.t, unix.Setxattr(w.path("srv/cat"), "security.capability",
				[]byte{1, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
		}, []string{"capability /srv/cat *"}},
		"a package's file that got a new name": {func(w *world) {
			must(w.t, os.Link(w.path("usr/bin/su"), w.path("srv/su")))
		}, []string{"setuid /srv/su", "setuid /usr/bin/su"}},
		"a package that was upgraded, and a program that is none's": {func(w *world) {
			shell(w, "usr/bin/su.new")
			must(w.t, os.Rename(w.path("usr/bin/su.new"), w.path("usr/bin/su")))
			shell(w, "usr/bin/sus")
			shell(w, "var/lib/docker/overlay2/a/su")
		}, []string{"setuid /usr/bin/su", "setuid /usr/bin/sus *", "setuid /var/lib/docker/overlay2/a/su"}},
		"a program on a host that lists no packages": {func(w *world) {
			must(w.t, os.Remove(w.path("var/lib/dpkg/info/login.list")))
			shell(w, "bin/su")
			shell(w, "srv/su")
		}, []string{"setuid /bin/su", "setuid /srv/su *"}},
		"a mode that an old file got": {func(w *world) {
			must(w.t, os.Chmod(w.path("etc/passwd"), 0o666))
		}, []string{"account-file /etc/passwd"}},
		"a sudo rule": {func(w *world) { w.write("etc/sudoers.d/x", "ana ALL=ALL", 0o440) }, []string{"sudo-rule /etc/sudoers.d/x *"}},
		"a rule in an old file": {func(w *world) {
			w.write("etc/sudoers", "ana ALL=ALL", 0o440)
		}, []string{"sudo-rule /etc/sudoers"}},
		"a file written again": {func(w *world) {
			w.write("etc/pam.d/sudo", "auth required pam_unix.so\n", 0o644)
		}, []string{"pam /etc/pam.d/sudo"}},
		"a link to a rule": {func(w *world) {
			must(w.t, os.Symlink("/srv/rule", w.path("etc/sudoers.d/x")))
		}, []string{"sudo-rule /etc/sudoers.d/x *"}},
		"our own rule, put back": {func(w *world) {
			w.write("etc/sudoers.d/curfew", "@includedir /run/curfew/sudoers.d\n", 0o440)
		}, []string{"sudo-rule /etc/sudoers.d/curfew"}},
		"a file that is gone": {func(w *world) { must(w.t, os.Remove(w.path("etc/pam.d/sudo"))) }, []string{"pam /etc/pam.d/sudo"}},
		"keys": {func(w *world) {
			w.write("home/bob/.ssh/authorized_keys", "more\n", 0o600)
			w.write("root/.ssh/authorized_keys", "new\n", 0o600)
		}, []string{"authorized-keys /home/bob/.ssh/authorized_keys", "authorized-keys /root/.ssh/authorized_keys *"}},
		"units": {func(w *world) {
			w.write("etc/systemd/system/a.service", "", 0o644)
			w.write("etc/systemd/system/a.timer", "", 0o644)
			must(w.t, os.Symlink("../a.timer", w.path("etc/systemd/system/multi-user.target.wants/a.timer")))
			w.write("run/systemd/transient/run-r1.service", "", 0o644)
			w.write("run/systemd/transient/session-4.scope", "", 0o644)
			w.write("run/systemd/transient/session-4.service", "", 0o644)
		}, []string{
			"system-unit /etc/systemd/system/a.service *", "timer /etc/systemd/system/a.timer *",
			"timer /etc/systemd/system/multi-user.target.wants/a.timer *", "system-unit /run/systemd/transient/run-r1.service *",
			"system-unit /run/systemd/transient/session-4.service *",
		}},
		"additions to units of everyone's, and units of their names": {func(w *world) {
			w.write("run/systemd/transient/user@.service.d/x.conf", "", 0o644)
			w.write("run/systemd/transient/user@0.service", "", 0o644)
			w.write("run/systemd/transient/session-4.scope.d/x.conf", "", 0o644)
			w.write("run/systemd/transient/user-0.slice", "", 0o644)
			w.write("run/systemd/transient/curfew-end-g.timer", "", 0o644)
			w.write("run/systemd/system.control/cron.service.d/x.conf", "", 0o644)
			w.write("etc/systemd/system.control/cron.service.d/x.conf", "", 0o644)
		}, []string{
			"system-unit /etc/systemd/system.control *", "system-unit /etc/systemd/system.control/cron.service.d *",
			"system-unit /etc/systemd/system.control/cron.service.d/x.conf *",
			"system-unit /run/systemd/system.control *", "system-unit /run/systemd/system.control/cron.service.d *",
			"system-unit /run/systemd/system.control/cron.service.d/x.conf *",
			"system-unit /run/systemd/transient/session-4.scope.d *", "system-unit /run/systemd/transient/session-4.scope.d/x.conf *",
			"system-unit /run/systemd/transient/user@.service.d *", "system-unit /run/systemd/transient/user@.service.d/x.conf *",
			"system-unit /run/systemd/transient/user@0.service *",
		}},
		"files where packages leave theirs": {func(w *world) {
			for _, name := range []string{"tmpfiles.d/x.conf", "userdb/x.user", "sysctl.d/x.conf", "modprobe.d/x.conf", "systemd/system-environment-generators/x"} {
				w.write("usr/lib/"+name, "", 0o644)
			}
		}, []string{
			"module /usr/lib/modprobe.d *", "module /usr/lib/modprobe.d/x.conf *",
			"kernel-value /usr/lib/sysctl.d *", "kernel-value /usr/lib/sysctl.d/x.conf *",
			"system-unit /usr/lib/systemd/system-environment-generators *", "system-unit /usr/lib/systemd/system-environment-generators/x *",
			"hook /usr/lib/tmpfiles.d *", "hook /usr/lib/tmpfiles.d/x.conf *",
			"account-file /usr/lib/userdb *", "account-file /usr/lib/userdb/x.user *",
		}},
		"accounts and memberships in memory, beside those of grants": {func(w *world) {
			for name, text := range map[string]string{
				"cfw-bob.user": `{"userName":"cfw-bob","uid":70008,"curfew":true}`, "evil.user": `{"userName":"evil","uid":0}`,
				"bob:sudo.membership": "", "cfw-ana.user-privileged": `{"hashedPassword":[""]}`,
			} {
				w.write("run/userdb/"+name, text, 0o644)
			}
			must(w.t, os.Symlink("cfw-bob.user", w.path("run/userdb/70008.user")))
			must(w.t, os.Symlink("evil.user", w.path("run/userdb/70009.user")))
			must(w.t, os.Symlink("cfw-bob.user", w.path("run/userdb/0.user")))
		}, []string{
			"account-file /run/userdb/0.user *", "account-file /run/userdb/70009.user *", "account-file /run/userdb/bob:sudo.membership *",
			"account-file /run/userdb/cfw-ana.user-privileged *", "account-file /run/userdb/evil.user *",
		}},
		"programs that the kernel starts for others": {func(w *world) {
			w.write("proc/self/mountinfo", rootMount+"30 21 0:30 / /sys/fs/cgroup/rdma rw - cgroup cgroup rw,rdma\n", 0o444)
			w.write("sys/fs/cgroup/rdma/release_agent", "/srv/sh\n", 0o644)
			w.write("proc/sys/kernel/poweroff_cmd", "/srv/sh\n", 0o644)
		}, []string{
			"kernel-value /proc/sys/kernel/poweroff_cmd", "mount /sys/fs/cgroup/rdma", "kernel-value /sys/fs/cgroup/rdma/release_agent",
		}},
		"jobs": {func(w *world) {
			w.write("etc/cron.d/x", "", 0o644)
			for _, n := range []string{"var/spool/cron/crontabs/cfw-ana", "var/spool/at/a0001"} {
				w.write(n, "", 0o600)
				w.theirs(n)
			}
		}, []string{"system-cron /etc/cron.d/x *", "at-job /var/spool/at/a0001 *", "crontab /var/spool/cron/crontabs/cfw-ana *"}},
		"linger, a user manager and its units": {func(w *world) {
			w.write("var/lib/systemd/linger/cfw-ana", "", 0o644)
			w.write("run/user/70007/systemd/transient/x.service", "", 0o644)
		}, []string{
			"runtime-dir /run/user/70007 *", "user-unit /run/user/70007/systemd/transient/x.service",
			"linger /var/lib/systemd/linger/cfw-ana *",
		}},
		"sockets": {func(w *world) {
			for _, n := range []string{"tmp/tmux-70007/default", "run/screen/S-cfw-ana/1.x"} {
				must(w.t, os.MkdirAll(filepath.Dir(w.path(n)), 0o700))
				must(w.t, unix.Mknod(w.path(n), unix.S_IFSOCK|0o600, 0))
				w.theirs(filepath.Dir(n))
				w.theirs(n)
			}
		}, []string{"multiplexer /run/screen/S-cfw-ana *", "multiplexer /tmp/tmux-70007 *"}},
		"files in shared folders, and one among a stranger's": {func(w *world) {
			w.write("tmp/d/deep/f", "", 0o644)
			for _, n := range []string{"tmp/d/deep/f", "tmp/d/deep", "tmp/d"} {
				w.theirs(n)
			}
			w.write("tmp/bob/f", "", 0o644)
			w.theirs("tmp/bob/f")
			must(w.t, unix.Mkfifo(w.path("dev/shm/p"), 0o600))
			w.theirs("dev/shm/p")
			must(w.t, os.Symlink("/etc/shadow", w.path("tmp/l")))
			w.theirs("tmp/l")
			w.write("srv/work", "", 0o644)
			w.theirs("srv/work")
		}, []string{
			"temp-file /dev/shm/p *", "owned-file /srv/work *", "temp-file /tmp/bob/f *", "temp-file /tmp/d *", "temp-file /tmp/l *",
		}},
		"what the kernel holds": {func(w *world) {
			w.write("proc/modules", "ext4 1 0 - Live 0x0\nevil 1 0 - Live 0x0\n", 0o444)
			w.write("proc/sys/kernel/core_pattern", "|/tmp/x\n", 0o644)
			w.write("proc/sys/fs/file-max", "1\n", 0o644)
			w.write("proc/self/mountinfo", rootMount+"22 1 0:2 / /etc/pam.d rw - tmpfs x rw\n", 0o444)
			w.write("proc/sysvipc/shm", "key shmid perms size cpid lpid nattch uid gid cuid cgid\n0 5 600 1 1 1 0 70007 70007 0 0\n", 0o444)
		}, []string{"mount /etc/pam.d", "kernel-value /proc/sys/fs/file-max", "kernel-value /proc/sys/kernel/core_pattern", "module evil", "shared-memory shm 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.begin()
			c.do(w)
			if diff := cmp.Diff(c.want, w.told()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatWasThereIsNotTheSessions(t *testing.T) {
	w := newWorld(t)
	w.write("srv/tool", "", 0o755)
	must(t, os.Chmod(w.path("srv/tool"), 0o755|os.ModeSetuid))
	w.begin()
	if got := w.told(); got != nil {
		t.Fatal(got)
	}
	must(t, os.Chmod(w.path("srv/tool"), 0o711|os.ModeSetuid))
	if diff := cmp.Diff([]string{"setuid /srv/tool"}, w.told()); diff != "" {
		t.Error(diff)
	}
}

func TestWithNothingToCompareWithTimesAreGoneBy(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.before = Before{}
	w.write("etc/sudoers.d/x", "", 0o440)
	w.write("var/spool/at/a1", "", 0o600)
	w.theirs("var/spool/at/a1")
	found := w.look()
	if diff := cmp.Diff([]string{"sudo-rule /etc/sudoers.d/x", "at-job /var/spool/at/a1 *"}, short(found.Findings)); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(strings.Join(found.Skipped, ";"), "nobody looked") {
		t.Error(found.Skipped)
	}
}

func TestOnlySessionsOfOursAreLookedFor(t *testing.T) {
	w := newWorld(t)
	w.begin()
	for name, s := range map[string]Session{
		"root":           {"root", 0, w.began},
		"a system user":  {"www-data", 33, w.began},
		"a path":         {"../root", uid, w.began},
		"no beginning":   {"cfw-ana", uid, time.Time{}},
		"a local person": {"bob", 1000, w.began},
	} {
		if found, err := w.Look(t.Context(), w.before, s); err == nil || found.Findings != nil {
			t.Errorf("%s: %v %v", name, found, err)
		}
	}
}

// What a look cannot see it says.
func TestALookSaysWhereItDidNot(t *testing.T) {
	late, cancel := context.WithCancel(t.Context())
	cancel()
	deep := func(w *world) {
		fd, err := unix.Open(w.path("srv"), unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err)
		for range deepest + 5 {
			must(t, unix.Mkdirat(fd, "d", 0o700))
			next, err := unix.Openat(fd, "d", unix.O_PATH|unix.O_DIRECTORY, 0)
			must(t, err)
			must(t, unix.Close(fd))
			fd = next
		}
		must(t, unix.Close(fd))
	}
	for name, c := range map[string]struct {
		do   func(w *world)
		ctx  context.Context
		want string
	}{
		"no time":        {func(*world) {}, late, "the time was over"},
		"too many names": {func(w *world) { w.Names = 10 }, t.Context(), "too many names"},
		"too deep":       {deep, t.Context(), "folders deep"},
		"a server": {func(w *world) {
			w.write("proc/self/mountinfo", rootMount+"22 1 0:2 / /home rw - nfs4 srv:/home rw\n", 0o444)
		}, t.Context(), "/home (nfs4)"},
		"a program's file system on a guarded place": {func(w *world) {
			w.write("proc/self/mountinfo", rootMount+"22 1 0:2 / /etc/pam.d rw - fuse.x x rw\n", 0o444)
		}, t.Context(), "/etc/pam.d (fuse.x)"},
		"a crowd": {func(w *world) {
			for i := range crowd + 1 {
				must(t, unix.Mknod(w.path("etc/cron.d/")+"/"+string(rune('a'+i%26))+time.Duration(i).String(), unix.S_IFREG|0o644, 0))
			}
		}, t.Context(), "more than 10000 names"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.begin()
			c.do(w)
			found, err := w.Look(c.ctx, w.before, Session{Person: "cfw-ana", UID: uid, Since: w.began})
			if err != nil || !strings.Contains(strings.Join(found.Skipped, "; "), c.want) {
				t.Error(found.Skipped, err)
			}
		})
	}
}

func TestNoSearchBeyondAMount(t *testing.T) {
	w := newWorld(t)
	w.begin()
	strange := t.TempDir()
	must(t, os.WriteFile(filepath.Join(strange, "sh"), nil, 0o755))
	must(t, os.Chmod(filepath.Join(strange, "sh"), 0o755|os.ModeSetuid))
	must(t, os.Mkdir(w.path("srv/m"), 0o755))
	must(t, unix.Mount(strange, w.path("srv/m"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(w.path("srv/m"), unix.MNT_DETACH) })
	if got := w.told(); got != nil {
		t.Error(got)
	}
	must(t, os.MkdirAll(w.path("tmp/d"), 0o755))
	w.theirs("tmp/d")
	must(t, unix.Mount(strange, w.path("tmp/d"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(w.path("tmp/d"), unix.MNT_DETACH) })
	f := Finding{Kind: TempFile, Path: "/tmp/d", Removable: true}
	st, err := look(unix.AT_FDCWD, w.path("tmp/d"))
	must(t, err)
	f.ID = identity(st)
	removed, left, err := w.Remove(t.Context(), []Finding{f}, TempFile)
	must(t, err)
	if len(removed) > 0 || len(left) != 1 || !strings.Contains(left[0].Detail, tree.ErrMounted.Error()) {
		t.Error(removed, left)
	}
	if _, err := os.Stat(filepath.Join(strange, "sh")); err != nil {
		t.Error(err)
	}
}

// What every login and every job of anybody's touches tells of nobody.
func TestWhatIsInUseIsNotLeft(t *testing.T) {
	w := newWorld(t)
	used := []string{"sys/fs/bpf/curfew/ends", "var/spool/cron/atjobs/.SEQ"}
	w.write("run/systemd/transient/curfew-end-g-b.timer", "", 0o644)
	w.write("run/systemd/transient/curfew-end-g-b.service", "", 0o644)
	for _, name := range used {
		w.write(name, "", 0o600)
	}
	links := func(n string) string { return w.path("sys/fs/bpf/curfew/links-" + n) }
	must(t, os.Mkdir(links("1"), 0o700))
	w.begin()
	must(t, os.Rename(links("1"), links("2"))) // as by an agent that was started again
	for _, name := range used {
		must(t, os.Chtimes(w.path(name), time.Time{}, time.Now()))
	}
	w.write("var/spool/cron/atjobs/.SEQ", "00001", 0o600)
	for _, unit := range []string{"timer", "service"} {
		must(t, os.Remove(w.path("run/systemd/transient/curfew-end-g-b."+unit)))
		w.write("run/systemd/transient/curfew-end-g-a."+unit, "", 0o644)
	}
	if got := w.told(); got != nil {
		t.Error(got)
	}
	w.write("run/systemd/transient/curfew-end-g-x.service", "", 0o644)
	if diff := cmp.Diff([]string{"system-unit /run/systemd/transient/curfew-end-g-x.service *"}, w.told()); diff != "" {
		t.Error(diff)
	}
	must(t, os.Remove(w.path("run/systemd/transient/curfew-end-g-x.service")))
	must(t, os.Mkdir(links("9"), 0o700))
	if got := w.told(); !slices.Contains(got, "bpf-pin /sys/fs/bpf/curfew/links-9 *") {
		t.Error(got)
	}
	must(t, os.Remove(links("9")))
	w.write("sys/fs/bpf/new", "", 0o600)
	must(t, os.Rename(w.path("sys/fs/bpf/new"), w.path("sys/fs/bpf/curfew/ends")))
	if diff := cmp.Diff([]string{"bpf-pin /sys/fs/bpf/curfew/ends"}, w.told()); diff != "" {
		t.Error(diff)
	}
}
