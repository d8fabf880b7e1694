package keep

import (
	"errors"
	"fmt"
	"path/filepath"
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
		at = int(s.size)
	}
	for _, p := range take {
		frames = append(frames, frame{p.seq, uint32(at + len(buf) + frameHead), uint32(len(p.entry))}) //nolint:gosec // segments are small
		buf = appendFrame(buf, p.seq, p.entry)
	}
	if o.onDisk()+int64(len(buf)) > o.quota {
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
	return nil
}

// begin makes a new last segment.
func (o *Outbox) begin(first uint64) (*segment, error) {
	if o.out != nil {
		// What it holds is synced; a failed close takes nothing away.
		_ = o.out.Close()
		o.out = nil
	}
	s := &segment{first: first, path: filepath.Join(o.dir, segmentName(first))}
	out, err := o.create(s.path)
	if err != nil {
		o.broken = true
		return nil, err
	}
	o.out, o.broken = out, false
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.segments); n > 0 {
		if last := o.segments[n-1]; last.first == first {
			o.segments = o.segments[:n-1] // it was empty, and is written over
		} else {
			last.frames = nil // read again when it is sent
		}
	}
	o.segments = append(o.segments, s)
	return s, nil
}

func (o *Outbox) last() *segment {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.segments) == 0 {
		return nil
	}
	return o.segments[len(o.segments)-1]
}

func (o *Outbox) onDisk() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var n int64
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
		if p.seal {
			o.seals.at = p.seq
		}
	}
	o.durable = take[len(take)-1].seq
	o.pending = slices.Delete(o.pending, 0, len(take))
}
