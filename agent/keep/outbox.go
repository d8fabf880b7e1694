package keep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"curfew.internal/clock"
	"curfew.internal/ledger"
)

// What can become of an entry that is not on disk yet.
var (
	ErrHeld = errors.New("entries are in memory only, until the disk takes them")
	ErrLost = errors.New("no room for entries, neither on disk nor in memory: they are counted as a gap")
	ErrFull = errors.New("the disk has no room for an entry now, and whoever offers it has it still")
)

// ErrRenamed means that numbers of the outbox and of the control plane do not
// go together any more: the outbox has a new name, under which everything
// that is left counts from one.
var ErrRenamed = errors.New("outbox begins anew under another name")

const (
	segmentSize = 1 << 20
	// patience is how long Append waits for the disk; enforcement waits with
	// it.
	patience = time.Second
	// retryEvery is how often a disk that refused is tried again.
	retryEvery = time.Second

	defaultQuota  = 1 << 30
	defaultMemory = 8 << 20
)

// An Outbox is the queue of entries that the control plane has not got yet.
// Entries are numbered from one, without holes.
type Outbox struct {
	dir        string
	host, boot string
	clock      clock.Clock
	log        *slog.Logger
	quota      int64
	memory     int
	create     func(dir *os.Root, name string) (file, error)

	appended chan struct{} // holds one when there is something new to send
	work     chan struct{} // holds one when there is something new to write

	writeMu  sync.Mutex // one writer; guards out, broken and saidHeld
	out      file       // of the last segment; nil before the first write
	broken   bool       // the last segment may end in half a frame
	held     Folder     // in memory: what waits for the disk is counted there
	saidHeld uint64     // what it says

	readMu sync.Mutex // one reader or remover
	cache  *segment   // the sealed segment that was read last

	mu           sync.Mutex // guards what follows; no disk is waited for under it
	folder       *os.Root   // the files' own, whatever is mounted over it
	name         string
	base         uint64     // number on disk less number on the wire
	segments     []*segment // by number; never empty after the first write
	next         uint64     // number of the next entry
	durable      uint64     // last number on disk
	kept         uint64     // last that the control plane says it has, as numbered on disk
	pending      []pending
	pendingBytes int
	pendingBy    map[uint64]int64   // the same, of each owner
	by           map[uint64]int64   // bytes that wait of each owner, on disk as well, since this agent began
	missed       map[uint64]*missed // what of each session was not taken
	lost         uint64             // entries that memory had no room for, since the last gap
	lostSince    time.Time          // when the first of them was
	owed         uint64             // entries of an agent before this one, whose gap is pending
	offered      map[string]uint64  // numbers of what was offered and the disk has not yet, by receipt
	attempt      chan struct{}      // closed after the next write, done or not
	failing      error              // why the last write did not happen
	stuck        bool               // the last write has been going on too long
	seals        sealing
	running      bool // run writes
	closed       bool // nothing is written any more
}

type pending struct {
	seq   uint64
	entry []byte
	seal  bool
	owner uint64
}

// A segment is one file.
type segment struct {
	first  uint64
	size   int64
	by     map[uint64]int64 // of that, what each owner has
	frames []frame          // of the last segment, and of the one in the cache
	out    file             // of the last segment, once it is written: it can be read where its name is gone
}

func (s *segment) name() string { return segmentName(s.first) }

// A file is what a segment is written to.
type file interface {
	io.ReaderAt
	io.WriteCloser
	Stat() (os.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

func createFile(dir *os.Root, name string) (file, error) {
	f, err := dir.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err // not f: a nil *os.File is no nil file
	}
	return f, syncNames(dir)
}

// syncNames is [durable.Names] of a folder that is open.
func syncNames(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return fmt.Errorf("sync names: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// Name tells this outbox from an earlier one of the host.
func (o *Outbox) Name() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.name
}

// Appended delivers after entries were made durable.
func (o *Outbox) Appended() <-chan struct{} { return o.appended }

// Writing says why entries are not on disk now.
func (o *Outbox) Writing() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.failing != nil:
		return fmt.Errorf("%w: %w", ErrHeld, o.failing)
	case o.stuck || o.closed:
		return ErrHeld
	case !o.roomy():
		return errQuota
	}
	return nil
}

// A LostError is an [ErrLost] that says of which sessions more was lost than
// was told before: zero stands for any.
type LostError struct{ Of []uint64 }

func (e *LostError) Error() string { return ErrLost.Error() }

// Unwrap makes it an [ErrLost].
func (e *LostError) Unwrap() error { return ErrLost }

// Append puts entries at the end, and waits until the disk has them, but not
// long: who enforces does not hang on a disk.
func (o *Outbox) Append(entries ...ledger.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	var lost *LostError
	o.mu.Lock()
	for _, e := range entries {
		if taken, begun := o.put(e); !taken {
			if lost == nil {
				lost = &LostError{}
			}
			lost.Of = append(lost.Of, begun...)
		}
	}
	last, running := o.along()
	o.mu.Unlock()
	if err := o.reach(last, running); lost == nil {
		return err
	}
	return lost
}

// Offer puts an entry at the end as [Outbox.Append] does, if there is room and the
// disk takes it. If not, or not soon, nothing is missing: it is offered again, and
// what has the same receipt is put once.
func (o *Outbox) Offer(e ledger.Entry) error {
	key, need := string(e.Receipt), frameHead+int64(len(e.Bytes()))
	o.mu.Lock()
	number, waits := o.offered[key]
	if !waits {
		if o.failing != nil || o.stuck || o.closed || !o.fits(share(e.Kind), owner(e), need) {
			o.mu.Unlock()
			return ErrFull
		}
		o.put(e)
		number = o.next - 1
		o.offered[key] = number
	}
	_, running := o.along()
	o.mu.Unlock()
	err := o.reach(number, running)
	if err == nil {
		o.mu.Lock()
		delete(o.offered, key)
		o.mu.Unlock()
	}
	return err
}

// along seals what was put, if somebody is there to write it, and says what to
// wait for. The caller holds mu.
func (o *Outbox) along() (last uint64, running bool) {
	if o.running {
		o.sealAlong()
	}
	return o.next - 1, o.running
}

// reach has what was put written, and waits for it.
func (o *Outbox) reach(last uint64, running bool) error {
	if !running {
		// Before and after the life of the writer, whoever appends writes.
		_ = o.commit() // wait says what came of it
	}
	poke(o.work)
	return o.wait(last)
}

// wait returns once the disk has the entry of the number, or why it has not.
func (o *Outbox) wait(seq uint64) error {
	enough := o.clock.After(patience)
	for {
		o.mu.Lock()
		done, err, written := o.durable >= seq, o.failing, o.attempt
		hopeless := o.stuck || o.closed
		o.mu.Unlock()
		switch {
		case done:
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", ErrHeld, err)
		case hopeless:
			return ErrHeld
		}
		select {
		case <-written:
		case <-enough:
			o.mu.Lock()
			o.stuck = o.durable < seq
			o.mu.Unlock()
			return ErrHeld
		}
	}
}

// put numbers an entry, and reports whether there was room for it; if not, also
// whose record begins to miss something. The caller holds mu.
func (o *Outbox) put(e ledger.Entry) (taken bool, begun []uint64) {
	b := e.Bytes()
	if len(b) > maxEntry {
		b = o.gap(ledger.Entry{
			Grant: e.Grant, Person: e.Person, Session: e.Session, SessionSeq: e.SessionSeq, Lost: 1,
			Text: fmt.Sprintf("an entry of %d bytes is more than the record takes", len(b)),
		})
	}
	need := frameHead + int64(len(b))
	switch of := share(e.Kind); {
	case o.fits(of, owner(e), need):
	case of != wholeShare:
		return false, o.miss(e, need)
	default:
		if o.lost++; o.lost == 1 {
			o.lostSince, begun = e.At, []uint64{nobody}
		}
		return false, begun
	}
	o.closeGap()
	o.tellBefore(e)
	o.queue(owner(e), b)
	return true, nil
}

// closeGap says, before anything else is said, how much is missing here.
func (o *Outbox) closeGap() {
	if o.lost == 0 {
		return
	}
	b := o.gap(ledger.Entry{Lost: o.lost, Since: o.lostSince, Text: "neither disk nor memory of the host had room"})
	o.lost = 0
	o.queue(nobody, b)
}

func (o *Outbox) queue(owner uint64, b []byte) {
	o.enqueue(pending{o.next, b, false, owner})
	o.noteOpen(b)
}

func (o *Outbox) enqueue(p pending) {
	o.pending = append(o.pending, p)
	o.pendingBytes += len(p.entry)
	count(o.pendingBy, p.owner, int64(len(p.entry)))
	count(o.by, p.owner, frameHead+int64(len(p.entry)))
	o.next++
}

func (o *Outbox) gap(e ledger.Entry) []byte { return o.gapAt(e, o.clock.Now().Wall) }

func (o *Outbox) gapAt(e ledger.Entry, at time.Time) []byte {
	e.Kind, e.At, e.Host, e.Boot = ledger.Gap, at, o.host, o.boot
	return e.Bytes()
}

// run writes what is appended until ctx is done.
func (o *Outbox) run(ctx context.Context) error {
	o.setRunning(true)
	defer o.setRunning(false)
	var said string
	var due <-chan time.Time
	for {
		err := o.commit()
		due = o.toSeal(due)
		var retry <-chan time.Time
		if err != nil {
			retry = o.clock.After(retryEvery)
			if err.Error() != said {
				o.log.ErrorContext(ctx, "records are in memory only until the disk takes them", "err", err)
			}
			said = err.Error()
		} else if said != "" {
			o.log.InfoContext(ctx, "records are on disk again")
			said = ""
		}
		select {
		case <-ctx.Done():
			o.sealNow()
			return errors.Join(context.Cause(ctx), o.commit())
		case <-due:
			o.sealNow()
			due = nil
		case <-o.work:
			if err != nil { // what is new does not make the disk larger
				select {
				case <-ctx.Done():
				case <-retry:
				}
			}
		case <-retry:
		}
	}
}

func (o *Outbox) setRunning(is bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running = is
}

// close writes what is left; what is appended later stays in memory.
func (o *Outbox) close() error {
	o.mu.Lock()
	o.tellRoom(true)
	o.mu.Unlock()
	o.sealNow()
	err := o.commit()
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.writeMu.Lock()
	defer o.writeMu.Unlock()
	if o.out != nil {
		err = errors.Join(err, o.out.Close())
		o.out, o.broken = nil, true
	}
	return err
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
