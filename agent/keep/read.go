package keep

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"curfew.internal/canon"
	"curfew.internal/ledger"
)

const (
	nameFile  = "name"
	nameKind  = "curfew outbox 1"
	extension = ".entries"
)

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, extension) }

// openOutbox opens the outbox, or makes one. Half a frame at the end, which
// nobody was told is durable, is cut off. One that another process writes is
// left alone: what is appended here stays in memory.
func openOutbox(c Config, mine bool) (*Outbox, error) {
	o := &Outbox{
		dir: filepath.Join(c.Dir, "outbox"), host: c.Host, boot: c.Boot, clock: c.Clock, log: c.Log,
		quota: c.Quota, memory: c.Memory, create: createFile, broken: true,
		held: Folder{Dir: c.Run}, seals: sealing{key: c.Key, fleet: c.Fleet}, pendingBy: map[uint64]int64{}, by: map[uint64]int64{}, missed: map[uint64]*missed{}, offered: map[string]uint64{},
		appended: make(chan struct{}, 1), work: make(chan struct{}, 1), attempt: make(chan struct{}),
	}
	if o.quota <= 0 {
		o.quota = defaultQuota
	}
	if o.memory <= 0 {
		o.memory = defaultMemory
	}
	o.next = 1
	if !mine {
		o.closed = true
		return o, nil
	}
	if err := o.openFolder(); err != nil {
		return nil, err
	}
	if err := o.list(); err != nil {
		return nil, err
	}
	torn, err := o.findEnd()
	if err != nil {
		return nil, err
	}
	if err := o.loadName(); err != nil {
		return nil, err
	}
	if err := o.resume(); err != nil {
		return nil, err
	}
	o.takeHeld()
	if torn {
		o.queue(nobody, o.gap(ledger.Entry{Lost: 1, Text: "at least one: the host's disk lost the end of what an agent before this one wrote"}))
	}
	poke(o.appended)
	poke(o.work)
	return o, nil
}

// openFolder opens the folder of the files, and makes it where there is none.
func (o *Outbox) openFolder() error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	folder, err := os.OpenRoot(o.dir)
	if err != nil {
		return err
	}
	o.mu.Lock()
	old := o.folder
	o.folder = folder
	o.mu.Unlock()
	if old != nil {
		_ = old.Close() // it was taken away
	}
	return nil
}

func (o *Outbox) root() *os.Root {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.folder
}

// list finds the segments.
func (o *Outbox) list() error {
	files, err := os.ReadDir(o.dir) // in the order of their names, which is that of their numbers
	if err != nil {
		return err
	}
	for _, f := range files {
		digits, ok := strings.CutSuffix(f.Name(), extension)
		first, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil || first == 0 || f.Name() != segmentName(first) {
			continue
		}
		info, err := f.Info()
		if err != nil {
			return err
		}
		o.segments = append(o.segments, &segment{first: first, size: info.Size()})
	}
	return nil
}

// findEnd reads the last segment and goes on behind its last whole frame. It
// says whether the disk may have lost some that were whole.
func (o *Outbox) findEnd() (torn bool, err error) {
	if len(o.segments) == 0 {
		return false, nil
	}
	last := o.segments[len(o.segments)-1]
	b, bad := o.read(last, 0, last.size)
	last.frames = scan(b, last.first)
	o.next, last.size = last.first, 0
	if n := len(last.frames); n > 0 {
		o.next, last.size = last.frames[n-1].seq+1, last.frames[n-1].end()
	}
	o.durable = o.next - 1
	cut := int64(len(b)) - last.size
	switch {
	case cut > 0 && bad != nil:
		o.log.Error("the outbox cannot be read to its end", "err", bad)
		return true, nil
	case cut > 0:
		o.log.Warn("cut half a record off the outbox, as a crash in mid-write leaves it", "bytes", cut)
		return false, o.cut(last)
	}
	return false, nil
}

// cut takes off a segment what is behind its last whole frame. It follows no
// link out of the folder: that would cut somebody else's file.
func (o *Outbox) cut(s *segment) error {
	f, err := o.root().OpenFile(s.name(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(s.size), f.Close())
}

func (o *Outbox) loadName() error {
	b, err := os.ReadFile(filepath.Join(o.dir, nameFile))
	if err == nil {
		b, err = unseal(nameKind, b)
	}
	if err == nil {
		err = canon.Read(b, func(f canon.Field) error {
			switch f.Num {
			case 1:
				return f.Text(&o.name)
			case 2:
				return f.Uint(&o.base)
			}
			return f.Unknown()
		})
	}
	if err == nil && o.name != "" && o.base < o.next {
		return nil
	}
	// No name, or none that can be read: what is here counts anew under a new
	// one. The control plane may then hold an entry twice, but misses none.
	return o.rename()
}

// rename gives the outbox a new name, under which what is left counts from
// one. The caller holds readMu, or is alone.
func (o *Outbox) rename() error {
	o.mu.Lock()
	name, base := rand.Text(), o.durable
	if len(o.segments) > 0 {
		base = o.segments[0].first - 1
	}
	o.mu.Unlock()
	if err := o.writeName(name, base); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.name, o.base, o.kept = name, base, base
	return nil
}

func (o *Outbox) writeName(name string, base uint64) error {
	var w canon.Writer
	w.Text(1, name)
	w.Uint(2, base)
	if err := replace(filepath.Join(o.dir, nameFile), sealed(nameKind, w.Bytes()), 0o600); err != nil {
		return fmt.Errorf("name outbox: %w", err)
	}
	return nil
}

// Next returns entries after the number, in order and at least one if there
// is one, up to about so many bytes; the first of them has the number first.
// Entries that the disk lost are returned as gaps.
func (o *Outbox) Next(after uint64, most int) (first uint64, entries [][]byte, err error) {
	o.readMu.Lock()
	defer o.readMu.Unlock()
	o.mu.Lock()
	seq, durable := after+o.base+1, o.sendable()
	s, end := o.find(seq)
	o.mu.Unlock()
	if seq > durable {
		return 0, nil, nil
	}
	if s == nil {
		// Only an outbox whose files were taken away comes here.
		return after + 1, o.holes(1), nil
	}
	frames, err := o.framesOf(s)
	if err != nil {
		return 0, nil, fmt.Errorf("read outbox: %w", err)
	}
	end = min(end, durable+1)
	for size := 0; seq < end && size < most; {
		some, err := o.some(s, frames, end-seq, seq, most-size)
		if err != nil {
			return 0, nil, fmt.Errorf("read outbox: %w", err)
		}
		for _, e := range some {
			size += len(e)
		}
		entries = append(entries, some...)
		seq += uint64(len(some))
	}
	return after + 1, entries, nil
}

// some returns entries from the number on, at least one and not more than
// left: those that are there, or gaps for those that are not.
func (o *Outbox) some(s *segment, frames []frame, left, seq uint64, most int) ([][]byte, error) {
	i, ok := slices.BinarySearchFunc(frames, seq, func(f frame, seq uint64) int { return cmp.Compare(f.seq, seq) })
	if !ok {
		if i < len(frames) {
			left = min(left, frames[i].seq-seq)
		}
		return o.holes(min(left, holesAtOnce)), nil
	}
	entries, err := o.readRun(s, frames[i:], most)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return o.holes(1), nil // whole when the file was opened, and not now
	}
	return entries[:min(left, uint64(len(entries)))], nil
}

// holesAtOnce bounds what one message says of entries that the disk lost.
const holesAtOnce = 256

// holes are gaps in place of n entries.
func (o *Outbox) holes(n uint64) [][]byte {
	var all [][]byte
	for range n {
		all = append(all, o.gap(ledger.Entry{Lost: 1, Text: "the host's disk lost this record before it was sent"}))
	}
	return all
}

// find returns the segment that the number belongs to, and the number at
// which it ends; the caller holds mu.
func (o *Outbox) find(seq uint64) (*segment, uint64) {
	end := o.next
	for _, s := range slices.Backward(o.segments) {
		if s.first <= seq {
			return s, end
		}
		end = s.first
	}
	return nil, end
}

// framesOf returns what the segment holds; the caller holds readMu.
func (o *Outbox) framesOf(s *segment) ([]frame, error) {
	o.mu.Lock()
	frames := s.frames
	o.mu.Unlock()
	if frames != nil {
		return frames, nil
	}
	if o.cache != nil && o.cache.first == s.first {
		return o.cache.frames, nil
	}
	b, bad := o.read(s, 0, s.size)
	if busy(bad) {
		return nil, bad
	}
	if bad != nil {
		o.log.Error("records cannot be read back, and are told as lost", "file", s.name(), "err", bad)
	}
	o.cache = &segment{first: s.first, frames: scan(b, s.first)}
	return o.cache.frames, nil
}

// readRun reads the entries of frames that follow one another, up to about so
// many bytes. It stops at one that is not as it was written.
func (o *Outbox) readRun(s *segment, frames []frame, most int) ([][]byte, error) {
	n, size := 1, int(frames[0].size)
	for n < len(frames) && frames[n].seq == frames[n-1].seq+1 && size+int(frames[n].size) <= most {
		size += int(frames[n].size)
		n++
	}
	from := int64(frames[0].from) - frameHead
	b, bad := o.read(s, from, frames[n-1].end()-from)
	if busy(bad) {
		return nil, bad
	}
	if bad != nil {
		o.cache = nil // look again what there is
	}
	var entries [][]byte
	for _, want := range frames[:n] {
		off := int64(want.from) - frameHead - from
		seq, size, ok := readFrame(b[off:])
		if !ok || seq != want.seq || size != int(want.size) {
			break
		}
		entries = append(entries, b[off+frameHead:][:size:size])
	}
	return entries, nil
}

// Kept takes the control plane's word that it has everything up to the
// number: that is not needed again. The first word in a connection is also
// where to go on from, and has to fit what is here; if it does not, because
// one of the two was set back, the outbox begins anew: [ErrRenamed].
func (o *Outbox) Kept(upTo uint64, first bool) error {
	o.readMu.Lock()
	defer o.readMu.Unlock()
	o.mu.Lock()
	ahead := upTo+o.base > o.durable
	behind := first && len(o.segments) > 0 && upTo+o.base+1 < o.segments[0].first
	if !ahead && !behind {
		o.kept = max(o.kept, upTo+o.base)
		gone := o.drop(upTo + o.base)
		o.tellRoom(false)
		poke(o.work)
		o.mu.Unlock()
		return remove(o.root(), gone)
	}
	o.mu.Unlock()
	if err := o.rename(); err != nil {
		return err
	}
	text := "the control plane knew records of this outbox that the host no longer has: the host's disk was set back"
	if behind {
		text = "the control plane had confirmed records that it no longer has: its database was set back"
	}
	o.mu.Lock()
	o.queue(nobody, o.gap(ledger.Entry{Text: text}))
	o.mu.Unlock()
	poke(o.work)
	return ErrRenamed
}

// drop takes segments off the list that hold nothing after the number. The
// last one stays: its name says where numbers go on; and so does that with the
// last seal, on which the next follows. The caller holds mu.
func (o *Outbox) drop(upTo uint64) (gone []string) {
	if o.seals.at > 0 {
		upTo = min(upTo, o.seals.at-1)
	}
	for len(o.segments) > 1 && o.segments[1].first <= upTo+1 {
		gone = append(gone, o.segments[0].name())
		for session, n := range o.segments[0].by {
			count(o.by, session, -n)
		}
		o.segments = o.segments[1:]
	}
	return gone
}

func remove(folder *os.Root, names []string) error {
	for _, name := range names {
		if err := folder.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what was sent: %w", err)
		}
	}
	return nil
}
