package watch

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/ledger"
	"curfew.internal/test/need"
)

// openAt opens with a folder in which it is told who writes.
func openAt(t *testing.T, seen string) *Watch {
	t.Helper()
	w, err := Open(Config{
		PinDir: pins(t), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Clock: clock.System{},
		Places: func() []Place { return []Place{{Path: seen, Seen: true}} },
	})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return w
}

func TestWhatALabelledProcessDoesToOthersIsTold(t *testing.T) {
	need.Root(t)
	seen, other := t.TempDir(), t.TempDir()
	w := openAt(t, seen)
	defer closeIt(t, w)
	b := &book{}
	defer run(t, w, b)()
	s := python(t, `
import ctypes, os, socket, struct
input()
seen, other = "`+seen+`", "`+other+`"
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    r = libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    if r < 0: raise OSError(ctypes.get_errno(), str(args))
    return r
os.makedirs(seen + "/deep/er")
open(seen + "/deep/er/file", "w").close()
open(seen + "/deep/er/file").close()
os.close(os.open(seen + "/deep", os.O_TMPFILE | os.O_WRONLY))
handle, mount = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136), ctypes.c_int()
call(303, -100, (seen + "/deep/er/file").encode(), handle, ctypes.byref(mount), 0)
os.close(call(304, os.open(seen, os.O_RDONLY), handle, os.O_WRONLY))
open(other + "/file", "w").close()
open("/proc/self/mem", "r+b", 0).close()
peer = socket.create_server(("127.0.0.1", 0)); port = peer.getsockname()[1]
for a in (("127.0.0.1", port), ("127.0.0.1", 1)):
    try: socket.create_connection(a)
    except OSError: pass
six = socket.create_server(("::1", 0), family=socket.AF_INET6)
socket.create_connection(six.getsockname()[:2])
dual = socket.socket(socket.AF_INET6); dual.connect(("::ffff:127.0.0.1", port))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(("127.0.0.2", 53))
for name in (other + "/sock", "\0abstract-curfew"):
    l = socket.socket(socket.AF_UNIX); l.bind(name); l.listen()
    c = socket.socket(socket.AF_UNIX); c.connect(name)
kept = open(other + "/file")
child = os.fork()
if child == 0:
    import time; time.sleep(60); os._exit(0)
call(101, 0x4206, child, 0, 0)
local = ctypes.create_string_buffer(b"x")
iov = struct.pack("QQ", ctypes.addressof(local), 1)
call(311, child, iov, 1, iov, 1, 0)
pidfd = os.pidfd_open(child)
call(438, pidfd, kept.fileno(), 0)
call(438, pidfd, u.fileno(), 0)
socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
socket.socket(socket.AF_INET6, socket.SOCK_RAW, 255)
socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
call(272, 0x20000)
call(165, b"none", b"/", None, 0x44000, None)
call(165, b"tmpfs", other.encode(), b"tmpfs", 0, None)
call(166, other.encode(), 2)
code = ctypes.create_string_buffer(bytes([0xb7,0,0,0,0,0,0,0, 0x95,0,0,0,0,0,0,0]))
gpl = ctypes.create_string_buffer(b"GPL")
attr = struct.pack("IIQQIIQI", 1, 2, ctypes.addressof(code), ctypes.addressof(gpl), 0, 0, 0, 0) + struct.pack("I16s", 0, b"told")
call(321, 5, attr, len(attr))
call(425, 4, ctypes.create_string_buffer(256))
os.kill(child, 9)
print(child, port, six.getsockname()[1], flush=True)
`)
	s.grow(t, w, 0x4001)
	line, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	until(t, "end", func() bool { return len(b.where(ledger.Exit, pid(s.Process.Pid))) == 1 })
	var child, port, six int
	if _, err := fmt.Sscan(line, &child, &port, &six); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range b.all() {
		if e.Kind == ledger.Connect || e.Kind == ledger.Open || e.Kind == ledger.Act {
			got = append(got, e.Kind.String()+" "+e.Object+" | "+e.Text)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(seen+"/deep/er/file", &st); err != nil {
		t.Fatal(err)
	}
	want := []string{
		fmt.Sprintf("open %s/deep/er/file | opened %[1]s/deep/er/file for writing: device %d:%d, inode %d", seen, unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino),
		"open " + seen + "/deep/#", "open " + seen + "/deep/er/file | ",
		"open /proc/" + fmt.Sprint(s.Process.Pid) + "/mem | ",
		fmt.Sprintf("connect tcp://127.0.0.1:%d | began a connection to tcp://127.0.0.1:%[1]d", port),
		"connect tcp://127.0.0.1:1 | began a connection to tcp://127.0.0.1:1",
		fmt.Sprintf("connect tcp://[::1]:%d | ", six), fmt.Sprintf("connect tcp://127.0.0.1:%d | ", port), "connect udp://127.0.0.2:53 | ",
		"connect unix:" + other + "/sock | ", "connect unix:@abstract-curfew | ",
		fmt.Sprintf("act process %d | ptrace: traces process %[1]d", child), fmt.Sprintf("act process %d | wrote to the memory of process %[1]d", child),
		fmt.Sprintf("act process %d | took a descriptor of process %[1]d: %s/file, device ", child, other), fmt.Sprintf("act process %d | took a descriptor of process %[1]d: ", child),
		"act raw socket | raw socket: made one of protocol 1, ", "act raw socket | raw socket: made one of protocol 255, ", "act raw socket | raw socket: made one of packets, ",
		"act / | mount: none at /, flags 0x44000 (as its memory had it afterwards)", "act " + other + " | mount: tmpfs at " + other, "act " + other + " | umount: " + other,
		"act told | bpf: loaded a program told", "act io_uring | io_uring: made a ring",
	}
	for i := range max(len(want), len(got)) {
		if i >= len(got) || i >= len(want) || !strings.HasPrefix(got[i], want[i]) {
			t.Fatalf("deed %d: got\n%s\nwant\n%s", i, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestChosenVariablesAreToldAndNoOthers(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	b := &book{}
	defer run(t, w, b)()
	long := strings.Repeat("l", 3000)
	tests := []struct {
		word string
		env  []string
		want []string
		cut  uint64
	}{
		{"few", []string{"PGPASSWORD=secret", "LD_PRELOAD=/x.so", "PATH=/bin", "LDAP=no", "SUDO_USER=ana", "PATHS=no", "SSH_ORIGINAL_COMMAND=a b"}, []string{"LD_PRELOAD=/x.so", "PATH=/bin", "SUDO_USER=ana", "SSH_ORIGINAL_COMMAND=a b"}, 0},
		{"none", []string{"A=LD_PRELOAD=x"}, nil, 0},
		{"long", []string{"LD_A=" + long, "LD_B=" + long, "PATH=/c"}, []string{"LD_A=" + long, "PATH=/c"}, 3006},
		{"longer-than-a-piece", []string{"X=" + strings.Repeat("y", 9000) + "LD_PRELOAD=no", "LD_PRELOAD=" + strings.Repeat("z", 5000), "PATH=/d"}, []string{"PATH=/d"}, 4096},
		{"many", append(slices.Repeat([]string{"N=1"}, 9000), "LD_PRELOAD=/late.so"), nil, 808*4 + 20},
	}
	for i, tt := range tests {
		text, err := json.Marshal(tt.env)
		if err != nil {
			t.Fatal(err)
		}
		s := python(t, `
import json, os
input()
os.execve("/bin/true", ["true", "`+tt.word+`"], dict(e.split("=", 1) if not e.startswith("N=") else (str(i), "1") for i, e in enumerate(json.loads('''`+string(text)+`'''))))
`)
		s.grow(t, w, 0x4011+uint64(i))
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
		until(t, "exec of "+tt.word, func() bool { return len(b.where(ledger.Exec, argv("true", tt.word))) == 1 })
		p := b.where(ledger.Exec, argv("true", tt.word))[0].Process
		if !slices.Equal(p.Env, tt.want) || (p.EnvCut == 0) != (tt.cut == 0) {
			t.Errorf("%s: %q, cut %d", tt.word, p.Env, p.EnvCut)
		}
	}
}

func TestPrivilegeWithoutAGrantIsTold(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	b := &book{}
	defer run(t, w, b)()
	dir, err := os.MkdirTemp("/var/tmp", "curfew-gain-") //nolint:usetesting // who is not root has to get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "python")
	exe, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"cp " + exe + " " + program + " && chmod 4755 " + program, "cp " + exe + " " + program + "-cap && setcap cap_setuid=ep " + program + "-cap",
	} {
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", command, err, out)
		}
	}
	login := func(text string) *tree {
		return python(t, `
import os, subprocess
input()
open("/proc/self/loginuid", "w").write("1879048193")
os.setgroups([]); os.setresgid(1879048193, 1879048193, 1879048193); os.setresuid(1879048193, 1879048193, 1879048193)
`+text)
	}
	stays := login(`
subprocess.run(["/bin/true", "unprivileged"])
subprocess.run(["unshare", "-Ur", "/bin/true", "own-namespace"])
`)
	setuid := login(`subprocess.run(["` + program + `", "-c", "import os, subprocess; os.setresuid(0, 0, 0); subprocess.run(['/bin/true', 'further'])"])`)
	caps := login(`subprocess.run(["` + program + `-cap", "-c", "import os, subprocess; os.setresuid(0, 0, 0); subprocess.run(['/bin/true', 'further'])"])`)
	root := python(t, "import os, subprocess\ninput()\nopen('/proc/self/loginuid', 'w').write('0')\nos.setresuid(1879048193, 1879048193, 0); os.seteuid(0)\nsubprocess.run(['/bin/true', 'root'])\n")
	// As the service manager does on the way to the user's own one.
	keeps := python(t, `
import ctypes, os
input()
open("/proc/self/loginuid", "w").write("1879048193")
ctypes.CDLL(None).prctl(8, 1, 0, 0, 0) # PR_SET_KEEPCAPS
os.setgroups([]); os.setresgid(1879048193, 1879048193, 1879048193); os.setresuid(1879048193, 1879048193, 1879048193)
os.execv("/bin/true", ["true", "kept"])
`)
	// System calls are looked after as long as somebody has a label.
	if err := w.Label(plant(t, "/bin/sleep", "1000").Process.Pid, -1, 0x4009, 0); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*tree{stays, keeps, setuid, caps, root} {
		s.say(t)
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	ours := func(e ledger.Entry) bool {
		return e.Process.Login == 1879048193 || slices.Contains(e.Process.Argv, "root")
	}
	until(t, "both gains", func() bool { return len(b.where(ledger.Privilege, ours)) >= 2 })
	got := b.where(ledger.Privilege, ours)
	if len(got) != 2 {
		t.Fatalf("%d gains: %+v", len(got), got)
	}
	for i, want := range []string{program, program + "-cap"} {
		p := got[i].Process
		if p.Argv[0] != want || p.OldIDs.UID != 1879048193 || got[i].Text != "privilege gained without a grant, by exec: login uid 1879048193" || got[i].Session != strangers {
			t.Errorf("%+v %+v", got[i], p)
		}
	}
	if first, second := got[0].Process, got[1].Process; first.IDs.UID != 1879048193 || first.IDs.EUID != 0 || second.IDs.EUID != 1879048193 || second.IDs.Caps != 1<<unix.CAP_SETUID {
		t.Errorf("%+v, %+v", first.IDs, second.IDs)
	}
}
