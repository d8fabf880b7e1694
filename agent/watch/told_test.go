package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
	"curfew.internal/ledger"
	"curfew.internal/test/need"
)

func TestWhatALabelledTreeDoesIsTold(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	b := &book{}
	defer run(t, w, b)()
	const session = 0x1001
	sh := script(t, "#!/bin/sh -u\nexit 7\n")
	dir := filepath.Dir(sh)
	s := shell(t, `cd `+dir+`; ./script 'a b' '' ''; (setsid sh -c '/bin/true doubly; /bin/true forked' &) ; setsid nohup /bin/sleep 0.01 ; /bin/kill -9 $$`)
	stranger := shell(t, `/bin/true stranger`)
	s.grow(t, w, session)
	stranger.say(t)
	_, _ = s.Wait(), stranger.Wait()
	until(t, "end of the shell", func() bool { return len(b.where(ledger.Exit, pid(s.Process.Pid))) == 1 })
	until(t, "last child", func() bool { return len(b.where(ledger.Exec, argv("/bin/true", "forked"))) == 1 })

	if got := b.where(ledger.Exec, argv("/bin/true", "stranger")); len(got) > 0 {
		t.Errorf("a process without a label was told: %v", got)
	}
	for _, words := range [][]string{{"/bin/true", "doubly"}, {"/bin/sleep", "0.01"}} {
		if got := b.where(ledger.Exec, argv(words...)); len(got) != 1 || got[0].Session != session {
			t.Errorf("exec of %q was told %d times", words, len(got))
		}
	}
	scripts := b.where(ledger.Exec, argv("/bin/sh", "-u", "./script", "a b", "", ""))
	if len(scripts) != 1 {
		t.Fatalf("script: %d execs of %+v", len(scripts), b.where(ledger.Exec, nil))
	}
	p := scripts[0].Process
	exe, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(exe, &st); err != nil {
		t.Fatal(err)
	}
	if p.Path != exe || p.Inode != st.Ino || p.Device != st.Dev || int(p.Links) != int(st.Nlink) || p.Cwd != dir ||
		int(p.PPID) != s.Process.Pid || p.Comm != "script" || scripts[0].Text != "started as ./script" {
		t.Errorf("script: %+v, %q, want %s %+v", p, scripts[0].Text, exe, st)
	}
	exits := b.where(ledger.Exit, pid(int(p.PID)))
	if len(exits) != 1 || exits[0].Process.ExitCode != 7 || exits[0].Process.Signal != 0 || exits[0].Process.Lasted <= 0 {
		t.Errorf("exit of the script: %+v", exits)
	}
	if e := b.where(ledger.Exit, pid(s.Process.Pid))[0]; e.Process.Signal != 9 {
		t.Errorf("exit of the shell: %+v", e.Process)
	}
	seen := map[uint64]bool{}
	for _, e := range b.all() {
		if e.Session == session {
			seen[e.SessionSeq] = true
		}
	}
	for n := range uint64(len(seen)) {
		if !seen[n+1] {
			t.Errorf("number %d is missing of %d", n+1, len(seen))
		}
	}
}

func TestTheWholeArgvIsTold(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	b := &book{}
	defer run(t, w, b)()
	const session = 0x1003
	s := python(t, `
import ctypes, os, subprocess
input()
words = ["/bin/true"] + ["%06d" % i + "x" * 9000 for i in range(210)] + [""]
subprocess.run(words)
if os.fork() == 0:
    none = (ctypes.c_char_p * 1)(None)
    ctypes.CDLL(None).execve(b"/bin/true", none, none)
os.wait()
os.posix_spawn("/bin/true", [b"/bin/true", b"\xff\xfe", "é".encode()], {}) and os.wait()
for n in (4095-10, 4096-10, 4097-10): subprocess.run(["/bin/true", "y" * (n-1)])
`)
	s.grow(t, w, session)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	until(t, "end", func() bool { return len(b.where(ledger.Exit, pid(s.Process.Pid))) == 1 })
	long := b.where(ledger.Exec, func(e ledger.Entry) bool { return len(e.Process.Argv) == 212 })
	if len(long) != 1 || long[0].Process.ArgvCut != 0 || long[0].Process.Argv[210] != "000209"+strings.Repeat("x", 9000) ||
		long[0].Process.Argv[211] != "" {
		t.Errorf("%d execs with 212 arguments", len(long))
	}
	for _, words := range [][]string{{""}, {"/bin/true", `\xff\xfe`, "é"}} {
		if got := b.where(ledger.Exec, argv(words...)); len(got) != 1 {
			t.Errorf("argv %q: %d execs", words, len(got))
		}
	}
	for _, n := range []int{4085, 4086, 4087} {
		if got := b.where(ledger.Exec, argv("/bin/true", strings.Repeat("y", n-1))); len(got) != 1 {
			t.Errorf("argv of %d bytes: %d execs", n+10, len(got))
		}
	}
}

func TestWhatHasNoNameIsTold(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	b := &book{}
	defer run(t, w, b)()
	deep := t.TempDir()
	for range 60 {
		deep = filepath.Join(deep, "a-directory")
	}
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	s := python(t, `
import os, subprocess
input()
fd = os.memfd_create("hidden", 0)
os.write(fd, open("/bin/true", "rb").read())
subprocess.run(["memory"], executable="/proc/self/fd/%d" % fd, pass_fds=[fd])
subprocess.run(["/bin/true", "deep"], cwd="`+deep+`")
subprocess.run(["/bin/true", "dev"], cwd="/dev")
`)
	s.grow(t, w, 0x1005)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	until(t, "end", func() bool { return len(b.where(ledger.Exit, pid(s.Process.Pid))) == 1 })
	got := b.where(ledger.Exec, argv("memory"))
	if len(got) != 1 || got[0].Process.Links != 0 || got[0].Process.Path != "/memfd:hidden" {
		t.Errorf("memfd: %+v", got)
	}
	for word, cwd := range map[string]string{"deep": deep, "dev": "/dev"} {
		if got := b.where(ledger.Exec, argv("/bin/true", word)); len(got) != 1 || got[0].Process.Cwd != cwd {
			t.Errorf("cwd: want %s: %+v", cwd, got[0].Process)
		}
	}
}

func TestAChangeOfIDsIsTold(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	b := &book{}
	defer run(t, w, b)()
	s := python(t, `
import os, threading
input()
stop = threading.Event()
threads = [threading.Thread(target=stop.wait) for _ in range(8)]
[x.start() for x in threads]
os.setresgid(70001, 70002, 70003)
os.setresuid(70004, 70005, 70004)
os.seteuid(70004)
stop.set()
`)
	s.grow(t, w, 0x1007)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	until(t, "end", func() bool { return len(b.where(ledger.Exit, pid(s.Process.Pid))) == 1 })
	var own bpf.WatchIds
	if err := readIDs(os.Getpid(), &own); err != nil || own.Caps == 0 {
		t.Fatal(own, err)
	}
	want := []ledger.IDs{
		{UID: 0, EUID: 0, GID: 0, EGID: 0, Caps: own.Caps},
		{UID: 0, EUID: 0, GID: 70001, EGID: 70002, Caps: own.Caps},
		{UID: 70004, EUID: 70005, GID: 70001, EGID: 70002},
		{UID: 70004, EUID: 70004, GID: 70001, EGID: 70002},
	}
	got := b.where(ledger.SetID, nil)
	if len(got) != len(want)-1 {
		t.Fatalf("%d changes of ids: %+v", len(got), got)
	}
	for i, e := range got {
		if e.Process.OldIDs != want[i] || e.Process.IDs != want[i+1] {
			t.Errorf("change %d: %+v to %+v", i, e.Process.OldIDs, e.Process.IDs)
		}
	}
}

func TestThreadsAreTheirProcess(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	b := &book{}
	defer run(t, w, b)()
	const session = 0x1009
	// The thread is there before the label is, and it is the thread that
	// execs: it takes the place of the leader, who had the label.
	s := python(t, `
import os, threading
def act():
    input()
    os.spawnl(os.P_WAIT, "/bin/true", "/bin/true", "by-thread")
    os.execl("/bin/sh", "sh", "-c", "/bin/true after; exit 3")
x = threading.Thread(target=act)
x.start()
print("up", flush=True)
x.join()
`)
	s.hear(t)
	s.grow(t, w, session)
	if err := s.Wait(); err == nil {
		t.Fatal("the shell did not exit with 3")
	}
	until(t, "end", func() bool { return len(b.where(ledger.Exit, pid(s.Process.Pid))) == 1 })
	for _, word := range []string{"by-thread", "after"} {
		if got := b.where(ledger.Exec, argv("/bin/true", word)); len(got) != 1 || got[0].Session != session {
			t.Errorf("%s: %+v", word, got)
		}
	}
	if e := b.where(ledger.Exit, pid(s.Process.Pid))[0]; e.Process.ExitCode != 3 {
		t.Errorf("exit: %+v", e.Process)
	}
}

func TestPidsAreThoseOfTheOwnNamespace(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	b := &book{}
	defer run(t, w, b)()
	s := shell(t, `exec unshare --pid --fork --mount-proc sh -c '/bin/true inner; :'`)
	s.grow(t, w, 0x100b)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	until(t, "exec", func() bool { return len(b.where(ledger.Exec, argv("/bin/true", "inner"))) == 1 })
	if p := b.where(ledger.Exec, argv("/bin/true", "inner"))[0].Process; p.PID != 2 || p.PPID != 1 {
		t.Errorf("pid %d, ppid %d", p.PID, p.PPID)
	}
}
