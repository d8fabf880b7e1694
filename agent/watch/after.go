package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
)

// after tells what labelled processes do to the names of files that matter,
// and where they send datagrams.
var after = refuser{"after-", "", bpf.LoadAfter}

// needed is how much of what [mover] does has to be done and told. What it
// sends by IPv6 is more, where this kernel has that.
const needed = 7

// proveAfter shows that the kernel tells changes of names and datagrams: what
// a labelled child of ours does beside our pins, and sends to this machine, has
// to be told, each once. The compiler may have put a function into the one that
// calls it: then a program at it loads, attaches, and never runs. All or none:
// programs that do not all tell are taken away.
func (w *Watch) proveAfter() error {
	if w.after == nil {
		return nil
	}
	var did, told uint64
	for range tries {
		var err error
		if did, told, err = w.tells(); err != nil {
			return fmt.Errorf("self-test of names and datagrams: %w", err)
		}
		if did >= needed && told == did {
			return nil
		}
	}
	w.log.Warn("the kernel took the programs that tell renames, links and datagrams, and they do not tell each", "did", did, "told", told)
	errs := []error{w.after.close()}
	w.after = nil
	pins, err := filepath.Glob(filepath.Join(w.dir, after.dir+"*"))
	errs = append(errs, err)
	for _, name := range pins {
		errs = append(errs, os.RemoveAll(name))
	}
	return errors.Join(errs...)
}

// tells is how much the child did, and how much of that was told.
func (w *Watch) tells() (did, told uint64, err error) {
	var names moves
	for i := range names {
		if names[i], err = unix.BytePtrFromString(filepath.Join(w.dir, fmt.Sprintf("self-test-%d", i))); err != nil {
			return 0, 0, err
		}
	}
	if err := w.Guard(probeSession, false); err != nil {
		return 0, 0, err
	}
	four := &unix.RawSockaddrInet4{Family: unix.AF_INET, Port: discard, Addr: [4]byte{127, 0, 0, 1}}
	six := &unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: discard, Addr: [16]byte{15: 1}}
	status, err := stage(func(read, write int) (int, unix.Errno) { return mover(read, write, &names, four, six) },
		func(pid int) error { return w.label(pid, -1, probeSession, 0) })
	runtime.KeepAlive(names)
	var s bpf.WatchSession
	err = errors.Join(err, w.maps.Sessions.Lookup(uint64(probeSession), &s), w.drop(probeSession))
	if !status.Exited() {
		return 0, 0, err
	}
	// That it exited is told as well.
	return uint64(status.ExitStatus()), s.Made - 1, err //nolint:gosec // not negative
}

// discard is a port, as it is on the wire, that nobody has to listen at.
const discard = 9 << 8

// moves are the names that the child works with.
type moves [4]*byte

// mover makes a clone of this process that waits until the pipe has no writer,
// changes names, sends datagrams, and exits with the number of things that it
// did and that are to be told. As with [puppet], it does nothing but these
// calls.
//
//go:norace
//go:nosplit
func mover(read, write int, names *moves, four *unix.RawSockaddrInet4, six *unix.RawSockaddrInet6) (pid int, errno unix.Errno) {
	var b [1]byte
	here := uintptr(unix.AT_FDCWD & (1<<64 - 1))
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || child != 0 {
		return int(child), errno
	}
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(write), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(read), uintptr(unsafe.Pointer(&b)), 1) //nolint:gosec // on our stack
	did := uintptr(0)
	link, other, third, folder := uintptr(unsafe.Pointer(names[0])), uintptr(unsafe.Pointer(names[1])), uintptr(unsafe.Pointer(names[2])), uintptr(unsafe.Pointer(names[3])) //nolint:gosec // the caller keeps them
	if _, _, errno = unix.RawSyscall(unix.SYS_SYMLINKAT, link, here, link); errno == 0 {
		did++
	}
	if _, _, errno = unix.RawSyscall6(unix.SYS_LINKAT, here, link, here, other, 0, 0); errno == 0 {
		did++
	}
	if _, _, errno = unix.RawSyscall6(unix.SYS_RENAMEAT2, here, other, here, third, 0, 0); errno == 0 {
		did++
	}
	if _, _, errno = unix.RawSyscall(unix.SYS_UNLINKAT, here, third, 0); errno == 0 {
		did++
	}
	if _, _, errno = unix.RawSyscall(unix.SYS_UNLINKAT, here, link, 0); errno == 0 {
		did++
	}
	_, _, _ = unix.RawSyscall(unix.SYS_MKDIRAT, here, folder, 0o700)
	if _, _, errno = unix.RawSyscall(unix.SYS_UNLINKAT, here, folder, unix.AT_REMOVEDIR); errno == 0 {
		did++
	}
	fd, _, _ := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM, 0)
	if _, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b)), 1, 0, uintptr(unsafe.Pointer(four)), unix.SizeofSockaddrInet4); errno == 0 { //nolint:gosec // as above
		did++
	}
	fd, _, _ = unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if _, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b)), 1, 0, uintptr(unsafe.Pointer(six)), unix.SizeofSockaddrInet6); errno == 0 { //nolint:gosec // as above
		did++
	}
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, did, 0, 0)
	}
}
