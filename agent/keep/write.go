package keep

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

var errQuota = errors.New("the outbox is as large as it may be")

// commit makes everything that is pending durable, a segment's worth at a
// time, with one sync for all who wait.
func (o *Outbox) commit() error {
	o.writeMu.Lock()
	defer o.writeMu.Unlock()
	defer o.sayHeld()
	for {
		o.mu.Lock()
		if o.closed {
			o.mu.Unlock()
			return ErrHeld
		}
		if len(o.pending) == 0 {
			o.failing, o.stuck = nil, false
			o.mu.Unlock()
			return nil
		}
		take := o.pending[:o.someOf()]
		o.mu.Unlock()

		err := o.write(take)

		o.mu.Lock()
		o.failing, o.stuck = err, false
		if err == nil {
			o.written(take)
			o.closeGap()
			o.tellRoom(false)
		}
		close(o.attempt)
		o.attempt = make(chan struct{})
		o.mu.Unlock()
		if err != nil {
			return err
		}
		poke(o.appended)
	}
}

// someOf is how many of the pending entries go into one write.
func (o *Outbox) someOf() int {
	size := 0
	for i, p := range o.pending {
		if size += frameHead + len(p.entry); size > segmentSize {
			return i + 1
		}
	}
	return len(o.pending)
}

// write puts entries into the last segment, or into a new one if that is
// full. After a write that failed nothing is known of the file's end, so that
// the next goes into a new one.
func (o *Outbox) write(take []pending) error {
	var buf []byte
	var frames []frame
	s := o.last()
	if s == nil || o.broken || s.size >= segmentSize {
		s = nil
	}
	at := 0
	if s != nil {
		if err := o.inPlace(s); err != nil {
			return fmt.Errorf("put a segment back that was taken away: %w", err)
		}
		at = int(s.size)
	}
	for _, p := range take {
		frames = append(frames, frame{p.seq, uint32(at + len(buf) + frameHead), uint32(len(p.entry))}) //nolint:gosec // segments are small
		buf = appendFrame(buf, p.seq, p.entry)
	}
	if waits := o.waits(); waits > 0 && waits+int64(len(buf)) > o.quota {
		return errQuota
	}
	if s == nil {
		var err error
		if s, err = o.begin(take[0].seq); err != nil {
			return fmt.Errorf("begin segment: %w", err)
		}
	}
	_, err := o.out.Write(buf)
	if err == nil {
		err = o.out.Sync()
	}
	if err != nil {
		o.broken = true
		return errors.Join(fmt.Errorf("write segment: %w", err), o.out.Truncate(s.size))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s.frames = append(s.frames, frames...)
	s.size += int64(len(buf))
	for _, p := range take {
		count(s.by, p.owner, frameHead+int64(len(p.entry)))
	}
	return nil
}

// begin makes a new last segment.
func (o *Outbox) begin(first uint64) (*segment, error) {
	if o.out != nil {
		// What it holds is synced; a failed close takes nothing away.
		_ = o.out.Close()
		o.out = nil
	}
	s := &segment{first: first, by: map[uint64]int64{}}
	out, err := o.newFile(s.name())
	if err != nil {
		o.broken = true
		return nil, err
	}
	o.out, o.broken, s.out = out, false, out
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.segments); n > 0 {
		if last := o.segments[n-1]; last.first == first {
			o.segments = o.segments[:n-1] // it was empty, and is written over
		} else {
			last.frames, last.out = nil, nil // read again when it is sent
		}
	}
	o.segments = append(o.segments, s)
	return s, nil
}

// newFile makes a file; and the folder, if that was taken away with all that
// was in it.
func (o *Outbox) newFile(name string) (file, error) {
	f, err := o.create(o.root(), name)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	o.mu.Lock()
	is, base := o.name, o.base
	o.mu.Unlock()
	if err := errors.Join(o.openFolder(), o.writeName(is, base)); err != nil {
		return nil, err
	}
	return o.create(o.root(), name)
}

// inPlace sees to it that the last segment's file still has its name, so that
// what is written is there for the agent after us. Where somebody took it away,
// one with the same content takes its place.
func (o *Outbox) inPlace(s *segment) error {
	is, err := o.out.Stat()
	if err != nil {
		return err
	}
	if named, err := o.root().Lstat(s.name()); err == nil && os.SameFile(is, named) {
		return nil
	}
	b := make([]byte, s.size)
	if _, err := o.out.ReadAt(b, 0); err != nil {
		return err
	}
	if err := o.root().RemoveAll(s.name()); err != nil {
		return err
	}
	out, err := o.newFile(s.name())
	if err != nil {
		return err
	}
	_, err = out.Write(b)
	if err == nil {
		err = out.Sync()
	}
	if err != nil {
		return errors.Join(err, out.Close())
	}
	old := o.out
	o.out = out
	o.mu.Lock()
	s.out = out
	o.mu.Unlock()
	_ = old.Close() // it has no name
	return nil
}

func (o *Outbox) last() *segment {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.segments) == 0 {
		return nil
	}
	return o.segments[len(o.segments)-1]
}

func (o *Outbox) waits() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.onDisk()
}

// onDisk is how many bytes there wait to be sent. What stays behind what was
// sent does not count: no word of the control plane would ever make it less,
// and under a small quota nothing was written any more. The caller holds mu.
func (o *Outbox) onDisk() (n int64) {
	if o.kept >= o.sendable() {
		return 0
	}
	for _, s := range o.segments {
		n += s.size
	}
	return n
}

// written takes entries that are on disk off what is pending; the caller
// holds mu.
func (o *Outbox) written(take []pending) {
	for _, p := range take {
		o.pendingBytes -= len(p.entry)
		count(o.pendingBy, p.owner, -int64(len(p.entry)))
		if p.seal {
			o.seals.at = p.seq
		}
	}
	o.durable = take[len(take)-1].seq
	o.pending = slices.Delete(o.pending, 0, len(take))
}
