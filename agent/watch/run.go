package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"curfew.internal/bpf"
	"curfew.internal/ledger"
)

const (
	// gather is how long lies between two batches, unless there is a lot to hand
	// on: for each the disk and the control plane write.
	gather = 200 * time.Millisecond
	// settle is how long the first event waits for what mostly comes behind it:
	// the end of a short program.
	settle = 20 * time.Millisecond
	// lot is how many bytes that is: an eighth of what has to be in the ring
	// before sessions get no more than their share. The kernel wakes us then.
	lot = 256 << 10
	// auditEvery is how long lies between two looks for holes.
	auditEvery = time.Second
	// most is how many entries go to the sink at once.
	most = 1024
	// noSession keeps, among the sessions' positions, how many events without
	// a session were reported.
	noSession = 0
)

// A Sink takes entries. What it has taken without an error is kept for good;
// what it refuses, it is given again.
type Sink func(ctx context.Context, entries []ledger.Entry) error

// A follower is one run over the ring.
type follower struct {
	*Watch
	sink     Sink
	decoder  *decoder
	accounts numbers
	batch    []ledger.Entry
	pos      uint64        // where the batch ends in the ring
	handed   time.Duration // since boot, when the sink was given something last
	touched  map[uint64]bool
	taken    map[uint64]uint64 // bytes of the ring that were read of each session since the last release
	told     uint64            // events without a session that were reported
	failing  bool
}

// Run hands what labelled processes do to sink until ctx is done. Entries
// have kind, time, session, number and process; whose they are the caller
// fills in. It begins with what came while no agent was there.
func (w *Watch) Run(ctx context.Context, sink Sink) error {
	f := &follower{
		Watch: w, sink: sink, decoder: newDecoder(), accounts: numbers{},
		pos: w.ring.start(), touched: map[uint64]bool{}, taken: map[uint64]uint64{},
	}
	f.told = f.position(noSession)
	if w.Broken != "" {
		f.batch = append(f.batch, ledger.Entry{Kind: ledger.Gap, At: w.clock.Now().Wall, Text: w.Broken})
	}
	b, err := hang(w.ring.fd)
	if err != nil {
		return err
	}
	return errors.Join(f.follow(ctx, b.rung), b.close())
}

// follow reads the ring when it is time to.
func (f *follower) follow(ctx context.Context, rung <-chan struct{}) error {
	look, due := f.clock.After(auditEvery), f.clock.After(0)
	for {
		var err error
		select {
		case <-ctx.Done():
			_, err := f.drain(context.WithoutCancel(ctx))
			return err
		case <-look:
			look = f.clock.After(auditEvery)
			err = f.audit(ctx)
		case <-due:
			_, err = f.drain(ctx)
		case <-rung:
			if !f.ring.holds(f.ring.start() + lot) {
				due = f.soon(due)
				continue
			}
			_, err = f.drain(ctx)
		}
		if err != nil {
			return err
		}
		// The kernel rings for what comes from now on, and for nothing that came
		// before the ring had its room back.
		due = nil
		if f.ring.holds(f.ring.start()) {
			due = f.clock.After(gather)
		}
	}
}

// soon is when to read what the kernel rang for.
func (f *follower) soon(due <-chan time.Time) <-chan time.Time {
	if due != nil {
		return due
	}
	return f.clock.After(max(settle, f.handed+gather-f.clock.Now().Boot))
}

// audit reads the ring, and looks for holes in what came.
func (f *follower) audit(ctx context.Context) error {
	made, err := f.made()
	if err != nil {
		return err
	}
	empty, err := f.drain(ctx)
	if err != nil || !empty {
		return err
	}
	return f.look(ctx, made)
}

// made reads how many events each session has made: before the ring is
// emptied, so that what is counted has been in it.
func (f *follower) made() (map[uint64]bpf.WatchSession, error) {
	made := map[uint64]bpf.WatchSession{}
	var id uint64
	var s bpf.WatchSession
	it := f.maps.Sessions.Iterate()
	for it.Next(&id, &s) {
		made[id] = s
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return made, nil
}

// drain reads what is in the ring and hands it on. It reports false if the sink
// did not take it all: then the ring keeps it, to be tried again.
func (f *follower) drain(ctx context.Context) (bool, error) {
	for {
		more, err := f.fill(ctx)
		if err != nil {
			return false, err
		}
		if !f.deliver(ctx) {
			return false, nil
		}
		if !more {
			f.read.Store(int64(f.clock.Now().Boot))
			return true, nil
		}
	}
}

// fill reads records into the batch and reports whether there may be more.
func (f *follower) fill(ctx context.Context) (bool, error) {
	boot := f.clock.Now().BootOffset()
	for len(f.batch) < most {
		record, next, err := f.ring.read(f.pos)
		if err != nil {
			return false, err
		}
		if next == f.pos {
			return false, nil
		}
		took := next - f.pos
		f.pos = next
		if record == nil {
			continue
		}
		e, whole, err := f.decoder.read(record, boot)
		if err != nil {
			// Its number will be missed, and told as a gap.
			f.log.ErrorContext(ctx, "record passed over", "err", err)
			continue
		}
		f.taken[e.Session] += took
		if !whole || e.Session == probeSession || !f.account(e.Session).see(e.SessionSeq, e.At) {
			continue
		}
		f.touched[e.Session] = true
		f.batch = append(f.batch, e)
	}
	return true, nil
}

// account returns the session's, and begins one where the agent before us
// stopped.
func (f *follower) account(session uint64) *account {
	if a := f.accounts[session]; a != nil {
		return a
	}
	return f.accounts.open(session, f.position(session))
}

func (f *follower) position(session uint64) uint64 {
	var from uint64
	// A session without a position begins at its first event: a read that
	// fails shows as a doubled event, never as a lost one.
	_ = f.maps.Reached.Lookup(session, &from)
	return from
}

// deliver gives the batch to the sink. Only what it took is given back to the
// ring.
func (f *follower) deliver(ctx context.Context) bool {
	if len(f.batch) > 0 {
		if err := f.sink(ctx, f.batch); err != nil {
			if !f.failing {
				f.log.ErrorContext(ctx, "events are not taken: they wait in the ring", "err", err)
			}
			f.failing = true
			return false
		}
		f.failing = false
		f.batch, f.handed = nil, f.clock.Now().Boot
	}
	for session := range f.touched {
		upTo := f.told
		if session != noSession {
			upTo = f.accounts[session].upTo
		}
		if err := f.maps.Reached.Put(session, upTo); err != nil {
			f.log.WarnContext(ctx, "position of a session is not kept", "session", session, "err", err)
		}
	}
	clear(f.touched)
	f.giveBack(ctx)
	f.ring.release(f.pos)
	return true
}

// giveBack says whose bytes the ring has back. It comes before they are: killed
// in between, an agent leaves sessions a little more than their share.
func (f *follower) giveBack(ctx context.Context) {
	for session, n := range f.taken {
		var had uint64
		_ = f.maps.Given.Lookup(session, &had) // none yet
		if err := f.maps.Given.Put(session, had+n); err != nil {
			f.log.WarnContext(ctx, "a session's share of the ring is not kept", "session", session, "err", err)
		}
	}
	clear(f.taken)
}

// look finds gaps, and drops the sessions that are over and accounted for. With
// the last one goes what looks after system calls.
func (f *follower) look(ctx context.Context, made map[uint64]bpf.WatchSession) error {
	now := f.clock.Now().Wall
	counts, err := f.Counts()
	if err != nil {
		return err
	}
	if counts.Unlabelled > f.told {
		f.batch = append(f.batch, missing(counts.Unlabelled-f.told, now))
		f.told, f.touched[noSession] = counts.Unlabelled, true
	}
	var settled []uint64
	for session, n := range made {
		a := f.account(session)
		gaps := a.look(session, n, now)
		f.batch = append(f.batch, gaps...)
		if len(gaps) > 0 {
			f.touched[session] = true
		} else if a.settled(n.Made) {
			settled = append(settled, session)
		}
	}
	if !f.deliver(ctx) {
		return nil
	}
	for key := range f.decoder.argv {
		if a := f.accounts[key.session]; a == nil || key.seq <= a.upTo {
			f.decoder.drop(key)
		}
	}
	return errors.Join(f.dropOver(settled), f.rest())
}

// dropOver takes the sessions out of the maps that [Watch.Forget] named.
func (f *follower) dropOver(settled []uint64) error {
	for _, session := range settled {
		var end bpf.WatchEnd
		if err := f.maps.Ends.Lookup(session, &end); err == nil && end.Over == 0 {
			continue
		}
		if err := f.drop(session); err != nil {
			return err
		}
		delete(f.accounts, session)
	}
	return nil
}
