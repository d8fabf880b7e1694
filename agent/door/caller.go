package door

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// A Caller is the process that knocks, as the kernel took it at connect.
type Caller struct {
	PID int
	UID uint32
	FD  int // a pidfd: names the process whatever becomes of its pid; -1 before Linux 6.5. Closed when the decider is back
}

// caller says who is at the other end.
func caller(c *net.UnixConn) (Caller, error) {
	p := Caller{FD: -1}
	raw, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	var cred *unix.Ucred
	var serr error
	err = raw.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, serr); err != nil {
		return p, fmt.Errorf("ask who calls: %w", err)
	}
	if cred.Pid <= 0 {
		return p, errors.New("caller's process cannot be seen from here")
	}
	p.PID, p.UID = int(cred.Pid), cred.Uid
	err = raw.Control(func(fd uintptr) {
		p.FD, serr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	})
	if errors.Is(serr, unix.ENOPROTOOPT) {
		p.FD, serr = -1, nil
	}
	if err := errors.Join(err, serr); err != nil {
		p.FD = -1
		return p, fmt.Errorf("hold on to process %d: %w", p.PID, err)
	}
	return p, nil
}

// Gone reports whether the process has ended, so that its pid may be
// another's by now.
func (p Caller) Gone() bool {
	if p.FD == -1 {
		return false
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.FD), Events: unix.POLLIN}}, 0) //nolint:gosec // a descriptor
	return err == nil && n > 0
}

func (p Caller) close() {
	if p.FD != -1 {
		_ = unix.Close(p.FD) // nothing was written to it
	}
}
