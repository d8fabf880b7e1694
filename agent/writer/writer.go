// Package writer names the process that touched a file last.
//
// It hears of changes from the kernel (fanotify(7)) and says whose they were.
// It watches folders that it is told of, holds nobody up, and never says what
// was changed: for that one looks at the file.
package writer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/ledger"
)

// Kernel knows of processes what cannot be read from /proc, or no more.
type Kernel interface {
	LabelOf(pid int) (session uint64, ok bool, err error)
	// Gone is a process that has exited, with its session; 0: it had none.
	Gone(pid int) (p ledger.Process, session uint64, ok bool)
}

// A Writer is a process that touched a file, and the session that it was of;
// 0: of none.
type Writer struct {
	Process ledger.Process
	Session uint64
}

// Ours says that we started it. Who is of a session says nothing of us, nor who
// is gone and had its numbers from a namespace of its own.
func (w Writer) Ours() bool {
	return w.Session == 0 && w.Process.PPID == uint32(os.Getpid()) //nolint:gosec // a pid
}

// recent is how long a writer is remembered: whoever asks later asks about
// another change.
const recent = 5 * time.Second

// most bounds what is remembered.
const most = 1024

type touch struct {
	Writer
	at time.Duration // since boot
}

// Writers hears of the folders that are marked. Nil hears of nothing.
type Writers struct {
	kernel Kernel
	clock  clock.Clock
	fd     int

	mu    sync.Mutex        // guards what follows
	dirs  map[string]string // folders by the handle that the kernel names them by
	last  map[string]touch  // by file
	buf   [64 << 10]byte
	close bool
}

// Open asks the kernel for it, which takes CAP_SYS_ADMIN: others are not told
// whose a change was.
func Open(k Kernel, c clock.Clock) (*Writers, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_REPORT_DFID_NAME|unix.FAN_REPORT_PIDFD, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("ask the kernel who writes (fanotify, Linux 5.15): %w", err)
	}
	return &Writers{kernel: k, clock: c, fd: fd, dirs: map[string]string{}, last: map[string]touch{}}, nil
}

// Close stops the hearing.
func (w *Writers) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.close = true
	return unix.Close(w.fd)
}

// changes are what touches a folder: itself, and the files in it.
const changes = unix.FAN_MODIFY | unix.FAN_ATTRIB | unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO |
	unix.FAN_DELETE_SELF | unix.FAN_MOVE_SELF | unix.FAN_ONDIR | unix.FAN_EVENT_ON_CHILD

// handleFID is AT_HANDLE_FID of name_to_handle_at(2).
const handleFID = 0x200

// Mark has the folder heard of from here on. To mark one twice is to mark it
// once; one that was made anew has to be marked again.
func (w *Writers) Mark(dir string) error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.close {
		return os.ErrClosed
	}
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		// As on overlayfs: a name that opens nothing will do (Linux 6.5).
		handle, _, err = unix.NameToHandleAt(unix.AT_FDCWD, dir, handleFID)
	}
	if err != nil {
		return fmt.Errorf("name %s to the kernel: %w", dir, err)
	}
	if err := unix.FanotifyMark(w.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_ONLYDIR, changes, unix.AT_FDCWD, dir); err != nil {
		return fmt.Errorf("mark %s: %w", dir, err)
	}
	maps.DeleteFunc(w.dirs, func(_, have string) bool { return have == dir })
	w.dirs[key(handle.Type(), handle.Bytes())] = dir
	return nil
}

func key(kind int32, handle []byte) string { return fmt.Sprintf("%d %x", kind, handle) }

// Take says who touched the file last, or the folder that it lies in, if that
// was of late and not we. It is said once.
func (w *Writers) Take(file string) (Writer, bool) {
	if w == nil || file == "" {
		return Writer{}, false
	}
	w.Hear()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range []string{file, filepath.Dir(file)} {
		t, ok := w.last[name]
		delete(w.last, name)
		if ok && w.clock.Now().Boot-t.at < recent {
			return t.Writer, true
		}
	}
	return Writer{}, false
}

// Hear takes in what the kernel has to tell. The sooner it is called after a
// change, the more is known of a process that exits.
func (w *Writers) Hear() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.close {
		n, err := unix.Read(w.fd, w.buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return // EAGAIN: nothing more
		}
		w.take(w.buf[:n])
	}
}

// take goes through what one read gave.
func (w *Writers) take(b []byte) {
	const fixed = unix.FAN_EVENT_METADATA_LEN
	for len(b) >= fixed {
		var m unix.FanotifyEventMetadata
		if _, err := binary.Decode(b, binary.NativeEndian, &m); err != nil {
			return
		}
		size := int(m.Event_len)
		if size < fixed || size > len(b) || m.Vers != unix.FANOTIFY_METADATA_VERSION {
			return
		}
		if m.Mask&unix.FAN_Q_OVERFLOW != 0 {
			clear(w.last) // whose the last change was is not known any more
		}
		file, pidfd := w.infos(b[fixed:size])
		if file != "" && m.Pid > 0 && int(m.Pid) != os.Getpid() {
			w.remember(file, int(m.Pid), pidfd)
		}
		if pidfd >= 0 {
			_ = unix.Close(pidfd) // nothing was written to it
		}
		b = b[size:]
	}
}

// infos reads what follows an event: the folder with the name in it, and a
// descriptor of the process. A folder that is not marked has no name.
func (w *Writers) infos(b []byte) (file string, pidfd int) {
	const head = 4 // type, padding, length
	pidfd = -1
	for len(b) >= head {
		kind, size := b[0], int(binary.NativeEndian.Uint16(b[2:]))
		if size < head || size > len(b) {
			break
		}
		switch body := b[head:size]; kind {
		case unix.FAN_EVENT_INFO_TYPE_PIDFD:
			if len(body) >= 4 {
				pidfd = int(int32(binary.NativeEndian.Uint32(body))) //nolint:gosec // it is signed
			}
		case unix.FAN_EVENT_INFO_TYPE_DFID_NAME:
			file = w.name(body)
		}
		b = b[size:]
	}
	return file, pidfd
}

// name reads the file system's id (eight bytes), a handle (its length, its
// type and it) and a name.
func (w *Writers) name(b []byte) string {
	const before = 16
	if len(b) < before {
		return ""
	}
	size, kind := int(binary.NativeEndian.Uint32(b[8:])), int32(binary.NativeEndian.Uint32(b[12:])) //nolint:gosec // it is signed
	if size > len(b)-before {
		return ""
	}
	dir, ok := w.dirs[key(kind, b[before:before+size])]
	name := unix.ByteSliceToString(b[before+size:])
	if !ok {
		return ""
	}
	return filepath.Join(dir, name)
}

func (w *Writers) remember(file string, pid, pidfd int) {
	writer, ok := w.living(pid, pidfd)
	if !ok {
		writer.Process, writer.Session, ok = w.kernel.Gone(pid)
		if writer.Process.PID != uint32(pid) { //nolint:gosec // a pid
			writer.Process.PPID = 0 // one of another namespace, where that number is somebody else's
		}
	}
	if !ok {
		writer = Writer{Process: ledger.Process{PID: uint32(pid)}} //nolint:gosec // a pid
	}
	if len(w.last) >= most {
		clear(w.last)
	}
	w.last[file] = touch{writer, w.clock.Now().Boot}
}

// Note remembers who changed what goes by a name that is no watched file's, as
// the kernel told somebody else: a process, now or of late. 0 is forgotten to be
// anybody.
func (w *Writers) Note(name string, pid int) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if pid <= 0 {
		delete(w.last, name)
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		fd = -1 // it is gone
	}
	w.remember(name, pid, fd)
	if fd >= 0 {
		_ = unix.Close(fd) // nothing was written to it
	}
}

// living reads what a process is. Only the descriptor says that it was still
// that process when it was read, and not the next one of its number.
func (w *Writers) living(pid, pidfd int) (Writer, bool) {
	p, err := read(pid)
	if err != nil || pidfd < 0 {
		return Writer{}, false
	}
	session, _, err := w.kernel.LabelOf(pid)
	if err != nil {
		return Writer{}, false
	}
	if unix.PidfdSendSignal(pidfd, syscall.Signal(0), nil, 0) != nil {
		return Writer{}, false
	}
	return Writer{p, session}, true
}
