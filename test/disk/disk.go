// Package disk makes a file system of its own for a test, on a disk that loses
// power and runs full.
//
// Nothing of it is played: it is an ext4 in a file, through a loop device. A cut
// is the kernel's own shutdown of a file system, by which its developers try
// what a loss of power leaves: from then on each call fails with EIO, and what was
// not synced is not there after the next mount, a rename included.
package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"curfew.internal/test/need"
)

// What linux/fs.h has, and x/sys/unix lacks: the call, and that the journal is
// not written before.
const (
	shutdown     = 0x8004587d
	withoutFlush = 2
)

// A Disk is mounted in mounts of its own, which end with the test, however it
// ends.
type Disk struct {
	Mount string // where those have it that run by In

	image string
	cmd   *exec.Cmd // keeps the mounts
	rest  io.Closer // ends it
}

// New makes a disk of so many MiB, and mounts it.
func New(t testing.TB, size int64) *Disk {
	t.Helper()
	need.Root(t)
	need.Program(t, "mkfs.ext4", "mount", "umount", "nsenter", "unshare", "bash")
	dir := t.TempDir()
	d := &Disk{Mount: filepath.Join(dir, "disk"), image: filepath.Join(dir, "image")}
	must(t, os.Mkdir(d.Mount, 0o700))
	f, err := os.Create(d.image)
	must(t, err)
	must(t, errors.Join(f.Truncate(size<<20), f.Close()))
	run(t, exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", d.image))
	d.cmd = exec.Command("unshare", "--mount", "--propagation", "private", "bash", "-c", "echo; exec cat")
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := d.cmd.StdinPipe()
	must(t, err)
	out, err := d.cmd.StdoutPipe()
	must(t, err)
	must(t, d.cmd.Start())
	d.rest = in
	t.Cleanup(func() {
		_ = d.rest.Close()
		_ = d.cmd.Wait() // its mounts go with it
	})
	_, err = bufio.NewReader(out).ReadString('\n')
	must(t, err)
	d.On(t)
	return d
}

// In is a program that sees the disk at Mount. The process is the program's own.
func (d *Disk) In(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--mount", "--target", strconv.Itoa(d.cmd.Process.Pid), "--", name}, args...)...)
}

// Path is a place on the disk for whoever does not run by In.
func (d *Disk) Path(parts ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(d.cmd.Process.Pid), "root", d.Mount}, parts...)...)
}

// Cut takes the power away: all that has files open on the disk has errors from
// now on.
func (d *Disk) Cut(t testing.TB) {
	t.Helper()
	top, err := os.Open(d.Path())
	must(t, err)
	how := uint32(withoutFlush)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, top.Fd(), shutdown, uintptr(unsafe.Pointer(&how)))
	must(t, top.Close())
	if errno != 0 {
		t.Fatalf("shut the file system down: %v", errno)
	}
}

// On mounts the disk.
func (d *Disk) On(t testing.TB) {
	t.Helper()
	run(t, d.In("mount", "-o", "loop", d.image, d.Mount))
}

// Off unmounts the disk, once those who had files open on it have ended.
func (d *Disk) Off(t testing.TB) {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		out, err := d.In("umount", d.Mount).CombinedOutput()
		if err == nil {
			return
		}
		select {
		case <-limit:
			t.Fatalf("%v: %s", err, out)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// filler is what takes the room.
const filler = "filler"

// Fill takes all room that is left, to the last block.
func (d *Disk) Fill(t testing.TB) {
	t.Helper()
	f, err := os.Create(d.Path(filler))
	must(t, err)
	end := int64(0)
	for _, size := range []int64{1 << 20, 1 << 16, 1 << 12, 1 << 10} {
		for err = nil; err == nil; {
			if err = unix.Fallocate(int(f.Fd()), 0, end, size); err == nil {
				end += size
			}
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	must(t, f.Close())
}

// Free gives the room back: the journal holds on to it until it is written.
func (d *Disk) Free(t testing.TB) {
	t.Helper()
	must(t, os.Remove(d.Path(filler)))
	top, err := os.Open(d.Path())
	must(t, err)
	must(t, errors.Join(unix.Syncfs(int(top.Fd())), top.Close()))
}

func run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
