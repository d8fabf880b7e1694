package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"curfew.internal/controlplane/archive"
	"curfew.internal/controlplane/fleet"
	"curfew.internal/controlplane/roster"
	"curfew.internal/controlplane/store"
	"curfew.internal/ledger"
)

// terminals keeps recordings: what hosts signed in the database, and what they
// show in files.
type terminals struct {
	*store.Store
	archive.Folder
	now     func() time.Time
	changed func(host string) // what is watched there
	quota   int64             // for the recordings of one host, in bytes

	mu      sync.Mutex                // guards what follows
	watched map[string]map[uint64]int // by host and session: how many look on
}

// KeepTerminal keeps a segment: its data first, so that nothing is vouched for
// that is not there.
func (t *terminals) KeepTerminal(ctx context.Context, host string, statement, packed []byte) error {
	s, err := t.Statement(ctx, host, statement)
	if err != nil {
		return refused(err)
	}
	if len(s.Digest) == 0 { // it says that the recording ended
		return refused(unlessErased(t.KeepSegment(ctx, s, statement, len(packed), func() error { return nil })))
	}
	if err := t.room(ctx, s, len(packed)); err != nil {
		return err
	}
	if err = t.keepData(ctx, s, statement, packed); err == nil {
		return nil
	}
	// A host could fill the disk beyond its quota with what nothing vouches for,
	// also by hanging up just then.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropWithin)
	defer cancel()
	return refused(errors.Join(unlessErased(err), t.drop(ctx, s.Digest)))
}

func (t *terminals) keepData(ctx context.Context, s ledger.Segment, statement, packed []byte) error {
	for range keepTries {
		data, err := t.Put(s.Digest, packed)
		if err != nil {
			return err
		}
		if !s.Holds(data) {
			return archive.ErrDigest
		}
		err = t.KeepSegment(ctx, s, statement, len(packed), func() error { return t.Has(s.Digest) })
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.New("the file of a segment goes again and again")
}

// drop deletes a file that no recording shows. Where the folder does not answer,
// as on a network, it waits here, and not in the turn of a change.
func (t *terminals) drop(ctx context.Context, digest []byte) error {
	_ = t.Has(digest)
	return t.IfUnshown(ctx, digest, func() error { return t.Remove(digest) })
}

// keepTries is how often data is put back that was deleted with another recording
// before it was vouched for.
const keepTries = 3

// dropWithin is how long it may take to delete what nothing vouches for.
const dropWithin = 10 * time.Second

// room refuses a segment for which its host has no room left here. What else the
// host tells is taken: its record has a room of its own.
func (t *terminals) room(ctx context.Context, s ledger.Segment, size int) error {
	taken, kept, err := t.Taken(ctx, s)
	if err != nil || kept || taken+int64(size) <= t.quota {
		return err
	}
	return fmt.Errorf("%w: recordings of %s take %d bytes at the control plane, and may take %d (terminal_quota in server.yaml)", fleet.ErrRefused, s.Host, taken, t.quota)
}

// unlessErased leaves it at what was taken once, and whose time is over.
func unlessErased(err error) error {
	if errors.Is(err, store.ErrErased) {
		return nil
	}
	return err
}

// refused tells what a host may not hand in from what we could not keep.
func refused(err error) error {
	if errors.Is(err, store.ErrStatement) || errors.Is(err, archive.ErrDigest) {
		return errors.Join(fleet.ErrRefused, err)
	}
	return err
}

// segmentsAtOnce is how many segments are looked up at a time.
const segmentsAtOnce = 200

// endedFor is how long a host is told of a session that somebody ended: no
// grant is longer.
const endedFor = 31 * 24 * time.Hour

// Sessions is what a host is to know of its sessions.
func (t *terminals) Sessions(ctx context.Context, host string) (roster.Sessions, error) {
	ended, err := t.EndedSessions(ctx, host, t.now().Add(-endedFor))
	v := roster.Sessions{Ended: ended}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.watched[host] {
		v.Watched = append(v.Watched, id)
	}
	slices.Sort(v.Watched)
	return v, err
}

// clear deletes the files of recordings that are to be forgotten. One that is
// cut off is gone on with by the next.
func (t *terminals) clear(ctx context.Context) error {
	for {
		all, err := t.Erasing(ctx)
		if err != nil || len(all) == 0 {
			return err
		}
		for _, v := range all {
			if err := t.clearOne(ctx, v.Host, v.ID); err != nil {
				return fmt.Errorf("delete recording %s of %s: %w", v.ID, v.Host, err)
			}
		}
	}
}

func (t *terminals) clearOne(ctx context.Context, host, id string) error {
	for after := uint64(0); ; {
		page, err := t.Segments(ctx, host, id, after, segmentsAtOnce)
		if err != nil {
			return err
		}
		for _, v := range page {
			if after = v.Number; len(v.Digest) == 0 {
				continue // it says that the recording ended
			}
			// A host that has what another's terminal showed can hand it in as
			// its own, under a role of which recordings are kept for a day.
			if err := t.drop(ctx, v.Digest); err != nil {
				return err
			}
		}
		if len(page) < segmentsAtOnce {
			return t.Erased(ctx, host, id, after)
		}
	}
}

// Watch has a host send what a session shows at once, until stop is called.
func (t *terminals) Watch(host string, session uint64) (stop func()) {
	t.add(host, session, 1)
	return func() { t.add(host, session, -1) }
}

func (t *terminals) add(host string, session uint64, n int) {
	t.mu.Lock()
	if t.watched[host] == nil {
		t.watched[host] = map[uint64]int{}
	}
	if t.watched[host][session] += n; t.watched[host][session] == 0 {
		delete(t.watched[host], session)
	}
	t.mu.Unlock()
	t.changed(host)
}
