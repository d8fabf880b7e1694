package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"curfew.internal/clock"
	"curfew.internal/ledger"
)

// beat is how often the ring is emptied. The kernel does not wake us for each
// record: that would cost more than the record.
const beat = 20 * time.Millisecond

// Run empties the ring until ctx is done and hands entries to sink, in
// batches. Records that came while no agent was there are read first.
func (w *Watch) Run(ctx context.Context, c clock.Clock, sink func([]ledger.Entry)) error {
	ring, err := ringbuf.NewReader(w.objs.Ring)
	if err != nil {
		return fmt.Errorf("open ring: %w", err)
	}
	t := c.Now()
	r, g := newReader(t.BootOffset()), newGaps()
	var rec ringbuf.Record
	for ctx.Err() == nil {
		ring.SetDeadline(c.Now().Wall.Add(beat))
		entries, err := w.drain(ring, &rec, r, c.Now().Wall)
		if err != nil {
			return errors.Join(err, ring.Close())
		}
		now := c.Now()
		r.offset = now.BootOffset()
		entries = append(entries, r.overdue(now.Wall)...)
		w.number(g, entries, now.Wall)
		entries = append(entries, g.overdue(now.Wall)...)
		if len(entries) > 0 {
			sink(entries)
			w.position(g, entries)
		}
	}
	return ring.Close()
}

// drain reads until the deadline.
func (w *Watch) drain(ring *ringbuf.Reader, rec *ringbuf.Record, r *reader, now time.Time) ([]ledger.Entry, error) {
	var entries []ledger.Entry
	for len(entries) < 4096 {
		err := ring.ReadInto(rec)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return entries, nil
		}
		if err != nil {
			return entries, fmt.Errorf("read ring: %w", err)
		}
		got, err := r.read(rec.RawSample, now)
		if err != nil {
			return entries, err
		}
		entries = append(entries, got...)
	}
	return entries, nil
}

// number feeds the hole finder. A session that we have not met begins where
// the agent before us stopped.
func (w *Watch) number(g *gaps, entries []ledger.Entry, now time.Time) {
	for _, e := range entries {
		if !g.known(e.Session) {
			var upto uint64
			err := w.objs.ReadUpto.Lookup(e.Session, &upto)
			if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				w.log.Warn("position of a session is not known", "err", err)
			}
			g.start(e.Session, upto)
		}
		g.see(e.Session, e.SessionSeq, now)
	}
}

// position writes down how far each session was handed on.
func (w *Watch) position(g *gaps, entries []ledger.Entry) {
	done := map[uint64]bool{}
	for _, e := range entries {
		if done[e.Session] {
			continue
		}
		done[e.Session] = true
		upto := g.upto[e.Session]
		if err := w.objs.ReadUpto.Put(e.Session, upto); err != nil {
			w.log.Warn("position of a session is not kept", "err", err)
		}
	}
}
