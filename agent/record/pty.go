package record

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// control calls f with the file's descriptor, and leaves its mode as it is.
func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var cerr error
	err = raw.Control(func(fd uintptr) { cerr = call(int(fd)) })
	return errors.Join(err, cerr)
}

// newTerminal makes a terminal: the end that we keep, the end that the shell
// is to have, which is owned by uid, and the name of it.
func newTerminal(uid uint32) (master, slave *os.File, name string, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, "", fmt.Errorf("make a terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	err = control(master, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		if err != nil {
			return err
		}
		name = "/dev/pts/" + strconv.Itoa(n)
		// Not by its name: that may lead elsewhere.
		s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return errno
		}
		slave = os.NewFile(s, name)
		return nil
	})
	if err == nil {
		err = control(slave, func(fd int) error {
			return errors.Join(unix.Fchown(fd, int(uid), -1), unix.Fchmod(fd, 0o620))
		})
	}
	if err != nil {
		_ = master.Close() // and with it the other end
		return nil, nil, "", fmt.Errorf("make a terminal: %w", err)
	}
	return master, slave, name, nil
}

// A person's terminal, as she handed it over.
type outer struct {
	file *os.File
	stat unix.Stat_t
	was  *unix.Termios
}

// takeOver makes the terminal ours alone: raw, since the new one does what a
// terminal does, and closed to her other programs, which could write and read
// on it past the record. It has to be the one that her login shell runs on.
func takeOver(passed *os.File, pid int, person uint32) (*outer, error) {
	o := &outer{}
	err := control(passed, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		if flags&unix.O_ACCMODE != unix.O_RDWR {
			return errors.New("it is not open for reading and writing")
		}
		if err := unix.Fstat(fd, &o.stat); err != nil {
			return err
		}
		if tty, err := controlling(pid); err != nil || o.stat.Mode&unix.S_IFMT != unix.S_IFCHR || tty != o.stat.Rdev {
			return errors.New("it is not the one that the login runs on")
		}
		if err := errors.Join(unix.Fchown(fd, 0, -1), unix.Fchmod(fd, 0o600)); err != nil {
			return err
		}
		// Opened anew, so that how we read it is no affair of hers.
		again, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		o.file = os.NewFile(uintptr(again), "terminal")
		return nil
	})
	if err == nil {
		err = control(o.file, func(fd int) error {
			o.was, err = unix.IoctlGetTermios(fd, unix.TCGETS)
			if err != nil {
				return err
			}
			return unix.IoctlSetTermios(fd, unix.TCSETS, raw(*o.was))
		})
	}
	if err != nil {
		o.giveBack(person)
		return nil, fmt.Errorf("take the terminal over: %w", err)
	}
	return o, nil
}

// giveBack makes the terminal what it was, but for one thing: it stays closed
// to the person. Her login shell may be held up so that it does not end, and
// what she left running would have the terminal to itself, past any record.
// Somebody else's, who called su, is his again.
func (o *outer) giveBack(person uint32) {
	if o.file == nil {
		return
	}
	_ = control(o.file, func(fd int) error { // it may be gone with its window
		if o.was != nil {
			_ = unix.IoctlSetTermios(fd, unix.TCSETS, o.was)
		}
		if o.stat.Uid == person {
			return nil
		}
		return errors.Join(unix.Fchown(fd, int(o.stat.Uid), -1), unix.Fchmod(fd, o.stat.Mode&0o777))
	})
	_ = o.file.Close()
}

// raw is what cfmakeraw(3) makes of it.
func raw(t unix.Termios) *unix.Termios {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return &t
}

// controlling is the device of the terminal that a process belongs to.
func controlling(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in brackets, may hold anything.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 5 {
		return 0, errors.New("stat is short")
	}
	n, err := strconv.ParseInt(fields[4], 10, 64)
	if err != nil || n <= 0 {
		return 0, errors.New("it has no terminal")
	}
	major, minor := uint32(n>>8)&0xfff, uint32(n)&0xff|uint32(n>>12)&0xfff00 //nolint:gosec // as proc(5) packs them
	return unix.Mkdev(major, minor), nil
}

// echoes reports whether a terminal shows what is typed: if not, it may be a
// password.
func echoes(master *os.File) bool {
	shown := false
	err := control(master, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		shown = err == nil && t.Lflag&unix.ECHO != 0
		return err
	})
	return err == nil && shown
}

// copySize gives one terminal the size of another's window.
func copySize(from, to *os.File) (width, height int, err error) {
	var size *unix.Winsize
	err = control(from, func(fd int) (err error) {
		size, err = unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	err = control(to, func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, size) })
	return int(size.Col), int(size.Row), err
}
