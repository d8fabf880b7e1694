// Package keep holds what an agent must not forget: the grants it was sent,
// how late it is, what it has still to report, and who its host is.
//
// It is the only code that writes the agent's state. It never lets an older
// set, keyring or time take the place of a newer one, and what it cannot read
// counts as no grant at all.
package keep

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// Config says where state is kept, and for whom.
type Config struct {
	Dir               string // such as /var/lib/curfew; made if missing
	Fleet, Host, Boot string // Boot is the kernel's boot id
	Roots             []ed25519.PublicKey
	Clock             clock.Clock
	Log               *slog.Logger

	// Key seals what is reported. Optional: without it nothing is sealed.
	Key ed25519.PrivateKey
	// Run is a folder in memory that outlives the agent, such as /run/curfew:
	// how many entries wait for a disk that takes nothing is written there.
	// Optional.
	Run string
	// Quota bounds the outbox on disk, in bytes. Optional; 1 GiB.
	Quota int64
	// Memory bounds what waits for a disk that takes nothing, in bytes.
	// Optional; 8 MiB.
	Memory int
	// Unwritten says to read what is kept and to write nothing, as if another
	// process had it open.
	Unwritten bool
}

// A Keep is an agent's durable state.
type Keep struct {
	Config
	outbox *Outbox
	lock   *os.File // nil: the state is another's to write

	mu    sync.Mutex // guards what follows
	state state
	held  heldRoster
	dirty bool // the state is newer than its file
	bad   error

	saveMu sync.Mutex // one writer of the mark's file

	markMu sync.Mutex // guards what follows; no disk is waited for under it
	mark   mark
	said   mark // by the control plane; zero: never
}

// Open reads what was kept. Damaged files are no reason to fail: they hold no
// grant, [Keep.Kept] says what is wrong with them, and the control plane
// sends anew. While another process has the state open, such as an agent that
// hangs, this one reads it and writes nothing: it can still take away.
func Open(c Config) (*Keep, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keep{Config: c}
	if err := k.claim(); err != nil {
		return nil, err
	}
	k.held = k.loadRoster() // before the state, which is opened under it
	k.state, k.bad = k.loadState()
	k.mark, k.said = k.loadMark(), k.readMark(saidFile)
	var err error
	if k.outbox, err = openOutbox(c, k.lock != nil); err != nil {
		return nil, errors.Join(fmt.Errorf("open outbox: %w", err), k.unlock())
	}
	return k, nil
}

// claim takes the state for this process to write, unless that is another's, or
// nobody's, to do.
func (k *Keep) claim() (err error) {
	if k.Unwritten {
		return nil
	}
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	if k.lock, err = lockFile(k.path(lockName)); err != nil {
		return fmt.Errorf("lock state: %w", err)
	}
	if k.lock == nil {
		k.Log.Warn("another agent has the state open: it is read, and nothing is written")
	}
	return nil
}

// Run writes the clock mark, and what a full disk did not take, from time to
// time, and the outbox as it fills, until ctx is done.
func (k *Keep) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.outbox.run(ctx) })
	g.Go(func() error { return k.tick(ctx) })
	return g.Wait()
}

// markEvery is the longest time of which a crash makes the mark forget.
const markEvery = 30 * time.Second

func (k *Keep) tick(ctx context.Context) error {
	var said string
	for {
		k.Trusted(k.Clock.Now())
		err := errors.Join(k.saveMark(), k.saveDirty())
		if now := fmt.Sprint(err); err != nil && now != said {
			k.Log.ErrorContext(ctx, "state is in memory only until the disk takes it", "err", err)
			said = now
		} else if err == nil {
			said = ""
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-k.Clock.After(markEvery):
		}
	}
}

// Append reports entries. What it returns nil for outlives a crash; an error
// says that entries are in memory only, or lost and counted.
func (k *Keep) Append(entries ...ledger.Entry) error { return k.outbox.Append(entries...) }

// Offer reports an entry if the disk takes it; nil says that it outlives a crash.
func (k *Keep) Offer(e ledger.Entry) error { return k.outbox.Offer(e) }

// Outbox is what is still to be sent.
func (k *Keep) Outbox() *Outbox { return k.outbox }

// Close writes what is left to write.
func (k *Keep) Close() error {
	k.Trusted(k.Clock.Now())
	return errors.Join(k.saveMark(), k.saveDirty(), k.outbox.close(), k.unlock())
}

const lockName = "lock"

// lockFile takes the lock, which ends with this process; nil if another has
// it.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK, 0o600) //nolint:gosec // a name in the agent's own folder; a lease (fcntl(2)) keeps nobody
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, f.Close()
	}
	return nil, errors.Join(err, f.Close())
}

func (k *Keep) unlock() error {
	if k.lock == nil {
		return nil
	}
	return k.lock.Close()
}

// Kept returns the grants that were kept over a restart, and what is wrong
// with the files if they are gone.
func (k *Keep) Kept() (grant.Opened, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state.opened, k.bad
}

// Versions are the revision of the set and the version of the keyring kept;
// zero if there is none.
func (k *Keep) Versions() (revision, keyring uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state.revision, k.state.ring.Version
}

func (k *Keep) path(name string) string { return filepath.Join(k.Dir, name) }
