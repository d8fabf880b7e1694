// Package vm runs machines of their own kernel for tests, emulated, beside the
// control plane and the people of a lab.
//
// What a lab's hosts share with the machine, a guest has for itself: kernel,
// clock, power. It changes nothing of the machine but its own folders and
// namespaces, which go with the lab. It is for tests alone.
package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"curfew.internal/test/lab"
)

// A Kind of guest is what it begins with.
type Kind struct {
	Suite  string            // of test/lab
	Kernel string            // of versions
	LSM    bool              // BPF programs may refuse
	Files  map[string]string // files of this machine, by where they are on its disk
}

// A Guest is a machine on the network of a fleet.
type Guest struct {
	Name string
	Kind
	fleet   *lab.Lab
	kernels string // what was fetched
	dir     string
	address string

	cmd  *exec.Cmd
	gone chan struct{} // closed when cmd has ended
	line net.Conn

	mu      sync.Mutex
	asked   int
	waiting map[int]chan answer
}

type question struct {
	ID     int
	Script string
	Input  []byte
}

type answer struct {
	ID   int
	Out  string
	Code int
}

// New makes a guest's disk and its place in the network. It does not run yet.
func New(ctx context.Context, f *lab.Lab, name string, kind Kind) (*Guest, error) {
	kernels, err := fetched(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	root, err := lab.RootOf(ctx, os.Stderr, kind.Suite)
	if err != nil {
		return nil, err
	}
	all := filepath.Join(f.Dir(), "vm", kind.Suite)
	if _, err := os.Stat(filepath.Join(all, "disk")); err != nil {
		if err := build(ctx, all, kernels, root, kind.Files); err != nil {
			return nil, err
		}
	}
	g := &Guest{Name: name, Kind: kind, fleet: f, kernels: kernels, dir: filepath.Join(all, name)}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", filepath.Join(all, "disk"), g.path("disk")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the disk: %w: %s", err, out)
	}
	if g.address, err = f.Join(ctx, name); err != nil {
		return nil, err
	}
	out, err := f.In(ctx, name, "sh", "-c", `set -e
ip addr flush dev eth0; ip link add br0 type bridge; ip link set eth0 master br0
ip tuntap add tap0 mode tap; ip link set tap0 master br0; ip link set tap0 up; ip link set br0 up`).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("network of %s: %w: %s", name, err, out)
	}
	return g, nil
}

func (g *Guest) path(name string) string { return filepath.Join(g.dir, name) }

// mac is the guest's own: QEMU gives the same one to each.
func (g *Guest) mac() string {
	mac := "52:54"
	for part := range strings.SplitSeq(g.address, ".") {
		n, _ := strconv.Atoi(part) // the lab gives addresses of four numbers
		mac += fmt.Sprintf(":%02x", n)
	}
	return mac
}

func (g *Guest) args() []string {
	lsm := "landlock,lockdown,yama"
	if g.LSM {
		lsm += ",bpf"
	}
	all := filepath.Dir(g.dir)
	share := filepath.Join(g.kernels, "qemu/usr/share")
	line := strings.Join([]string{
		"console=ttyS0 quiet mitigations=off nokaslr no_timer_check panic=-1 net.ifnames=0 systemd.show_status=no",
		"lsm=" + lsm, "lab.address=" + g.address, "systemd.hostname=" + g.Name,
	}, " ")
	return []string{
		"-L", share + "/qemu", "-L", share + "/seabios",
		"-M", "q35", "-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max", "-m", "512", "-smp", "1", "-nodefaults", "-no-user-config",
		"-no-reboot", "-display", "none", "-serial", "file:" + g.path("console"), "-serial", "unix:" + g.path("tty") + ",server=on,wait=off", "-rtc", "base=utc,clock=host",
		"-kernel", filepath.Join(g.kernels, "linux-"+g.Kernel+".vmlinuz"), "-initrd", filepath.Join(all, "initrd-"+g.Kernel), "-append", line,
		"-drive", "file=" + g.path("disk") + ",if=none,id=d0,format=raw,cache=writeback", "-device", "virtio-blk-pci,drive=d0",
		"-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n0,romfile=,mac=" + g.mac(),
		"-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "socket,id=lab,path=" + g.path("line") + ",server=on,wait=off", "-device", "virtserialport,chardev=lab,name=lab.0",
	}
}

// patience is how long an emulated machine may take to start.
const patience = 3 * time.Minute

// Start gives the guest power and waits until its systemd says that all is
// well.
func (g *Guest) Start(ctx context.Context) error {
	if g.cmd != nil {
		return fmt.Errorf("start %s: it runs", g.Name)
	}
	log, err := os.OpenFile(g.path("qemu"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the emulator has its own
	// Not bound to ctx: it runs until the power is cut.
	g.cmd = g.fleet.In(context.WithoutCancel(ctx), g.Name, filepath.Join(g.kernels, "qemu/usr/bin/qemu-system-x86_64"), g.args()...)
	g.cmd.Stdout, g.cmd.Stderr = log, log
	if err := g.cmd.Start(); err != nil {
		g.cmd = nil
		return fmt.Errorf("start %s: %w", g.Name, err)
	}
	g.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan struct{}) {
		_ = cmd.Wait() // how it ended shows on the console
		close(gone)
	}(g.cmd, g.gone)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := g.up(ctx); err != nil {
		console, _ := os.ReadFile(g.path("console"))
		said, _ := os.ReadFile(g.path("qemu"))
		return fmt.Errorf("start %s: %w; console: %s; emulator: %s", g.Name, err, tail(console), tail(said))
	}
	return nil
}

func (g *Guest) up(ctx context.Context) error {
	err := lab.Until(ctx, "the serial line", func() (err error) {
		g.line, err = new(net.Dialer).DialContext(ctx, "unix", g.path("line"))
		return err
	})
	if err != nil {
		return err
	}
	hello := make(chan answer, 1)
	g.mu.Lock()
	g.waiting = map[int]chan answer{0: hello}
	g.mu.Unlock()
	go g.listen(g.line) // until the line is cut
	select {
	case <-hello:
	case <-g.gone:
		return errors.New("it ended in its start")
	case <-ctx.Done():
		return errors.New("nobody speaks at its serial line")
	}
	state, err := g.Sh(ctx, "systemctl is-system-running --wait")
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute) // the time to start may be over
		defer cancel()
		failed, _ := g.Sh(ctx, "systemctl --failed --no-legend; systemctl list-jobs --no-pager; journalctl -b -n 60 --no-pager -o short-monotonic")
		return fmt.Errorf("it is %s: %w: %s", strings.TrimSpace(state), err, failed)
	}
	return nil
}

// listen hands out answers until the line is cut.
func (g *Guest) listen(line io.Reader) {
	in := bufio.NewReader(line)
	for {
		text, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var a answer
		if json.Unmarshal(text, &a) != nil {
			continue // half a line of a boot that was cut short
		}
		g.mu.Lock()
		if c := g.waiting[a.ID]; c != nil {
			c <- a
			delete(g.waiting, a.ID)
		}
		g.mu.Unlock()
	}
}

// Sh runs a script as root, in no login, and returns what it printed.
func (g *Guest) Sh(ctx context.Context, script string) (string, error) {
	return g.Feed(ctx, "", script)
}

// Feed runs a script with something on its standard input.
func (g *Guest) Feed(ctx context.Context, input, script string) (string, error) {
	answered := make(chan answer, 1)
	g.mu.Lock()
	g.asked++
	q := question{ID: g.asked, Script: script, Input: []byte(input)}
	g.waiting[q.ID] = answered
	b, err := json.Marshal(q)
	if err == nil {
		_, err = g.line.Write(append(b, '\n'))
	}
	g.mu.Unlock()
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", g.Name, err)
	}
	select {
	case a := <-answered:
		if a.Code != 0 {
			return a.Out, fmt.Errorf("on %s: code %d: %s", g.Name, a.Code, strings.TrimSpace(a.Out))
		}
		return a.Out, nil
	case <-g.gone:
		console, _ := os.ReadFile(g.path("console"))
		return "", fmt.Errorf("on %s: it is off: %s; console: %s", g.Name, script, tail(console))
	case <-ctx.Done():
		return "", fmt.Errorf("on %s: %w: %s", g.Name, ctx.Err(), script)
	}
}

// PowerOff takes the power away: what the guest's kernel had not written to
// its disk is gone.
func (g *Guest) PowerOff() error {
	if g.cmd == nil {
		return nil
	}
	err := g.cmd.Process.Signal(syscall.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-g.gone
	if g.line != nil {
		_ = g.line.Close()
	}
	g.cmd, g.line = nil, nil
	return err
}
