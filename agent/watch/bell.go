package watch

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A bell is rung by the kernel: by the first event behind those that the ring
// has back, and each time that the ring fills by as much again.
type bell struct {
	file *os.File
	rung chan struct{} // holds one
	wait sync.WaitGroup
	err  error // of whoever waits for the kernel, once it has ended
}

// hang begins to listen for the ring of that descriptor, until close.
func hang(ring int) (*bell, error) {
	fd, err := unix.FcntlInt(uintptr(ring), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listen to the ring: %w", err)
	}
	// Only of such descriptors does Go wait for what the kernel tells of them.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("listen to the ring: %w", err), unix.Close(fd))
	}
	b := &bell{file: os.NewFile(uintptr(fd), "ring"), rung: make(chan struct{}, 1)}
	raw, err := b.file.SyscallConn()
	err = errors.Join(err, b.file.SetReadDeadline(time.Time{})) // refused where Go cannot wait for it
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen to the ring: %w", err), b.file.Close())
	}
	b.wait.Go(func() {
		// One call for all: another would forget what was told since the last.
		b.err = raw.Read(func(uintptr) bool {
			select {
			case b.rung <- struct{}{}:
			default:
			}
			return false
		})
	})
	return b, nil
}

func (b *bell) close() error {
	err := b.file.SetReadDeadline(time.Unix(1, 0)) // over: whoever waits stops
	b.wait.Wait()
	if !errors.Is(b.err, os.ErrDeadlineExceeded) {
		err = errors.Join(err, b.err)
	}
	return errors.Join(err, b.file.Close())
}
