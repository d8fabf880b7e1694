package keep

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Lock waits until this process is the one that holds the host to its grants,
// or ctx is done. Letting go, or dying, lets the next one in.
func Lock(ctx context.Context, file string) (release func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // sshd and nss read in it as other users
		return nil, fmt.Errorf("lock %s: %w", file, err)
	}
	// Root can have whoever opens it wait, by a lease (fcntl(2)).
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600) //nolint:gosec // a name of our own
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		select {
		case <-ctx.Done():
			_ = f.Close() // nothing was written
			return nil, fmt.Errorf("another agent holds %s: %w", file, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
