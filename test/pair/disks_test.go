package pair

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"curfew.internal/test/disk"
	"curfew.internal/wire/invite"
)

// disks are a fleet whose server, on SQLite, and whose agent have a disk each.
type disks struct {
	*world
	server, host *disk.Disk
	agent        *teller
	crasher      crasher
}

// faults are what befalls the disks, in turns.
var faults = []struct {
	name string
	do   func(*disks, *testing.T)
}{
	{"server's power", (*disks).serverPower},
	{"host's power", (*disks).hostPower},
	{"server's disk gives errors", (*disks).serverErrors},
	{"host's disk gives errors", (*disks).hostErrors},
	{"server's disk full", (*disks).serverFull},
	{"both powers", (*disks).bothPowers},
	{"server killed with its disk full", (*disks).killedWhenFull},
	{"host's disk full", (*disks).hostFull},
}

// Disks lose their power in the middle of writes, give errors, and run full.
// Nothing that either side said it had kept is missing then: the agent of what
// it told, the server of what it acknowledged and the agent deleted.
func TestDisksThatFail(t *testing.T) {
	d := newDisks(t)
	d.agent = d.crasher.start(t)
	deaths := map[string]int{}
	// Each at least once, however slow the machine.
	for i, begun := 0, time.Now(); i < len(faults) || time.Since(begun) < *crashFor; i++ {
		d.hear(t)
		fault := faults[i%len(faults)]
		fault.do(d, t)
		deaths[fault.name]++
	}
	d.agent.kill(t)
	d.crasher.From = d.agent.said + 1
	d.whole(t, d.crasher, deaths)
}

func newDisks(t *testing.T) *disks {
	t.Helper()
	d := &disks{world: &world{dir: t.TempDir()}, server: disk.New(t, 256), host: disk.New(t, 64)}
	w := d.world
	must(t, os.Mkdir(filepath.Join(w.dir, "policy"), 0o700))
	w.a = w.plane(t, "a")
	w.a.in, w.b = d.server.In, w.a
	out, err := w.a.in(program(t, "curfew-server"), "init", "--config", w.a.config, "--fleet", "lab", "--url", "https://"+w.a.people,
		"--admin", "ada", "--data-dir", filepath.Join(d.server.Mount, "data"), "--policy-dir", filepath.Join(w.dir, "policy"),
		"--root-key", filepath.Join(w.dir, "root.key"), "--listen", w.a.people, "--agents", w.a.agents, "--ops", w.a.ops).Output()
	must(t, err)
	w.start(t, w.a)
	code, err := invite.Parse(invite.Person, string(out[:len(out)-1]))
	must(t, err)
	w.pin = code.CA
	w.ada = w.enrol(t, w.a, "ada", code)
	d.crasher = crasher{Dir: d.host.Path("agent"), Ports: []string{w.a.agents}, From: 1}
	must(t, os.Mkdir(d.crasher.Dir, 0o700))
	w.joined(t, d.crasher)
	return d
}

// hear lets the agent tell for as long as chance says.
func (d *disks) hear(t *testing.T) {
	t.Helper()
	if !d.agent.hear(t, 1+rand.IntN(150)) {
		t.Fatal("the agent ended by itself")
	}
}

// again has another agent go on from where the last one was said to be.
func (d *disks) again(t *testing.T) {
	t.Helper()
	d.agent.kill(t)
	d.crasher.From = max(d.crasher.From, d.agent.said+1)
	d.host.Off(t)
	d.host.On(t)
	d.agent = d.crasher.start(t)
	d.agent.said = d.crasher.From - 1
}

// back starts the server on what its disk has.
func (d *disks) back(t *testing.T) {
	t.Helper()
	d.a.kill()
	d.server.Off(t)
	d.server.On(t)
	d.start(t, d.a)
}

// halt stops a program between two instructions, as a loss of power does with
// all of them. With atRest no call of it is under way, either: what Linux answers
// to a sync during which the file system is shut down may be that it was done.
func halt(t *testing.T, p *os.Process, atRest bool) {
	t.Helper()
	must(t, p.Signal(syscall.SIGSTOP))
	if !atRest {
		return
	}
	until(t, "all threads stand still", func() bool {
		all, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid))
		must(t, err)
		for _, file := range all {
			b, err := os.ReadFile(file)
			// What stands between the brackets is the program's name.
			if i := bytes.LastIndexByte(b, ')'); err != nil || i < 0 || !bytes.HasPrefix(b[i:], []byte(") T")) {
				return false
			}
		}
		return len(all) > 0
	})
}

func (d *disks) serverPower(t *testing.T) {
	t.Helper()
	halt(t, d.a.cmd.Process, false)
	d.server.Cut(t)
	d.back(t)
}

func (d *disks) hostPower(t *testing.T) {
	t.Helper()
	halt(t, d.agent.cmd.Process, false)
	d.host.Cut(t)
	d.again(t)
}

func (d *disks) bothPowers(t *testing.T) {
	t.Helper()
	halt(t, d.a.cmd.Process, false)
	halt(t, d.agent.cmd.Process, false)
	d.server.Cut(t)
	d.host.Cut(t)
	d.back(t)
	d.again(t)
}

// serverErrors: the agent goes on, and the server has nothing but errors.
func (d *disks) serverErrors(t *testing.T) {
	t.Helper()
	halt(t, d.a.cmd.Process, true)
	d.server.Cut(t)
	must(t, d.a.cmd.Process.Signal(syscall.SIGCONT))
	d.hear(t)
	d.back(t)
}

// hostErrors: the agent says that it holds what it is told, and is killed.
func (d *disks) hostErrors(t *testing.T) {
	t.Helper()
	halt(t, d.agent.cmd.Process, true)
	d.host.Cut(t)
	must(t, d.agent.cmd.Process.Signal(syscall.SIGCONT))
	d.hear(t)
	d.again(t)
}

func (d *disks) serverFull(t *testing.T) {
	t.Helper()
	d.server.Fill(t)
	d.hear(t)
	d.server.Free(t)
}

func (d *disks) killedWhenFull(t *testing.T) {
	t.Helper()
	d.server.Fill(t)
	d.hear(t)
	d.a.kill()
	d.hear(t)
	d.server.Free(t)
	d.start(t, d.a)
}

// hostFull: what is told then waits in memory until there is room.
func (d *disks) hostFull(t *testing.T) {
	t.Helper()
	d.host.Fill(t)
	d.hear(t)
	d.host.Free(t)
}
