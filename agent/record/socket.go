package record

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/wire/terminal"
)

// Send sends one message, and with it files.
func Send(c *net.UnixConn, m any, files ...*os.File) error {
	b, err := terminal.Encode(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, rights, nil)
	return err
}

// Receive takes one message, and the file that came with it, if one did: two
// are more than anybody was asked for.
func Receive(c *net.UnixConn, m any) (*os.File, error) {
	b := make([]byte, terminal.MaxMessage+1)
	rights := make([]byte, unix.CmsgSpace(4*4))
	n, rn, _, _, err := c.ReadMsgUnix(b, rights)
	if err != nil {
		return nil, err
	}
	files, err := taken(rights[:rn])
	if err == nil && n == 0 {
		err = net.ErrClosed
	}
	if err == nil {
		err = terminal.Decode(b[:n], m)
	}
	if err == nil && len(files) > 1 {
		err = fmt.Errorf("%d files: %w", len(files), terminal.ErrForm)
	}
	if err != nil || len(files) == 0 {
		for _, f := range files {
			_ = f.Close() // nothing was done with it
		}
		return nil, err
	}
	return files[0], nil
}

func taken(rights []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // credentials, or what else came
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// Dial connects to a socket behind which root answers, and waits for it up to
// the patience.
func Dial(ctx context.Context, path string, patience time.Duration, k clock.Clock) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		c, err := dial(ctx, path)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-k.After(50 * time.Millisecond):
		}
	}
}

func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, err
	}
	c, ok := raw.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("no unix socket"), raw.Close())
	}
	if who, err := peer(c); err != nil || who.Uid != 0 {
		return nil, errors.Join(fmt.Errorf("who answers at %s has uid %d, not 0", path, who.Uid), err, c.Close())
	}
	return c, nil
}

// peer says who is at the other end, as the kernel took it at connect.
func peer(c *net.UnixConn) (unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return unix.Ucred{}, err
	}
	var cred *unix.Ucred
	var serr error
	err = raw.Control(func(fd uintptr) { cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, serr); err != nil {
		return unix.Ucred{}, fmt.Errorf("ask who calls: %w", err)
	}
	return *cred, nil
}

// gone reports whether the other end has hung up.
func gone(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	hung := true
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}} //nolint:gosec // a descriptor
		n, err := unix.Poll(p, 0)
		hung = err != nil || n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLRDHUP|unix.POLLERR) != 0
	})
	return err != nil || hung
}

// listen makes a socket anew, in a folder that root alone can write. Bound
// under another name and moved, it has its mode before it has its name.
func listen(path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // names in it are no secret
		return nil, fmt.Errorf("make the folder of %s: %w", path, err)
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("clear %s: %w", fresh, err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: fresh, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(fresh, mode)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen at %s: %w", path, err), l.Close())
	}
	return l, nil
}
