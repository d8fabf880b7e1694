package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"curfew.internal/cast"
	"curfew.internal/clock"
)

// When a segment is cut: at a size, or after a time, which is short while
// somebody looks on.
const (
	segmentBytes = 512 << 10
	segmentTime  = 30 * time.Second
	firstTime    = time.Second // so that it is known, and can be watched
	watchedTime  = 400 * time.Millisecond
	defaultQuota = 1 << 30
	shareOfSpool = 4       // one person's recordings may take a fourth of the quota
	lookBytes    = 1 << 20 // after so many the room is looked at, whatever the time
)

// ErrFull means that there is no room for what is to be recorded.
var ErrFull = errors.New("no room for the recording")

// A tape is one recording as it is written.
type tape struct {
	dir     string
	quota   int64
	clock   clock.Clock
	started clock.Reading
	title   string
	term    string

	toDisk chan whole    // segments to seal, and files to sync
	done   chan struct{} // closed when the disk has all of them

	mu            sync.Mutex // guards what follows
	usage         usage
	grown         int64    // bytes since the room was looked at
	file          *os.File // of the segment that grows; nil: none does
	number        uint64   // its number, or that of the next
	size          int64
	began         time.Duration // since boot
	sized         bool          // what follows is the window's
	width, height int
	lost          uint64 // bytes that no marker tells of yet
	why           string // they are lost
	full          bool
	dirty         bool
}

// whole is a file for the disk; sealed, when nothing is added to it any more.
type whole struct {
	file   *os.File
	sealed uint64 // its number; 0: it still grows
}

func newTape(dir string, u usage, quota int64, k clock.Clock) *tape {
	if quota <= 0 {
		quota = defaultQuota
	}
	t := &tape{
		dir: dir, usage: u, quota: quota, clock: k, started: k.Now(), number: 1,
		toDisk: make(chan whole, 16), done: make(chan struct{}),
	}
	t.measure()
	return t
}

// measure sees whether there is room; the caller holds mu, or is alone.
func (t *tape) measure() {
	all, hers := t.usage.look()
	t.full, t.grown = all >= t.quota || hers >= t.quota/shareOfSpool, 0
}

// run brings to disk what is written, beside those who write.
func (t *tape) run() {
	defer close(t.done)
	for w := range t.toDisk {
		// A sync that fails is not tried again: what the file holds is read
		// before it is signed for.
		_ = w.file.Sync()
		if w.sealed > 0 {
			_ = w.file.Close()
			_ = os.Rename(filepath.Join(t.dir, segmentName(w.sealed, partExt)), filepath.Join(t.dir, segmentName(w.sealed, castExt)))
		}
	}
}

// since is how long the recording has been going on.
func (t *tape) since() time.Duration { return t.clock.Now().Boot - t.started.Boot }

// add writes an event down. What finds no room is counted, and told where
// there is room again.
func (t *tape) add(kind, data string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full {
		t.lose(data, "no room on the host")
		return ErrFull
	}
	err := t.begin()
	if err == nil && t.lost > 0 {
		if err = t.write(cast.Gap(t.since(), t.lost, t.why)); err == nil {
			t.lost = 0
		}
	}
	if err == nil {
		err = t.write(cast.Event{At: t.since(), Kind: kind, Data: data})
	}
	if err != nil {
		t.full = true // until the next look
		t.lose(data, err.Error())
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	if t.size >= segmentBytes {
		t.cut()
	}
	if t.grown >= lookBytes {
		t.measure()
	}
	return nil
}

func (t *tape) lose(data, why string) {
	t.lost += uint64(len(data))
	t.why = why
}

// begin makes sure that there is a segment to write to; the caller holds mu.
func (t *tape) begin() error {
	if t.file != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(t.dir, segmentName(t.number, partExt)), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	t.file, t.size, t.began = f, 0, t.clock.Now().Boot
	h := cast.Header{Version: 2, Width: t.width, Height: t.height, Timestamp: t.started.Wall.Unix(), Title: t.title}
	if t.term != "" {
		h.Env = map[string]string{"TERM": t.term}
	}
	if err := t.put(h.Bytes()); err != nil {
		t.file = nil
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return nil
}

func (t *tape) write(e cast.Event) error { return t.put(e.Bytes()) }

// put writes a line, whole or not at all.
func (t *tape) put(line []byte) error {
	n, err := t.file.Write(line)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, t.file.Truncate(t.size))
		}
		return err
	}
	t.size += int64(n)
	t.grown += int64(n)
	t.dirty = true
	return nil
}

// cut ends the segment that grows; the caller holds mu.
func (t *tape) cut() {
	if t.file == nil {
		return
	}
	t.toDisk <- whole{t.file, t.number}
	t.file, t.dirty = nil, false
	t.number++
}

// resize notes the size of the window.
func (t *tape) resize(width, height int) error {
	t.mu.Lock()
	same := t.width == width && t.height == height
	first := !t.sized
	t.sized, t.width, t.height = true, width, height
	t.mu.Unlock()
	if same || first {
		return nil
	}
	return t.add(cast.Resize, fmt.Sprintf("%dx%d", width, height))
}

// look cuts what is due, brings to disk what is not there yet, and sees
// whether there is room.
func (t *tape) look() {
	_, err := os.Stat(filepath.Join(t.dir, watchedName))
	watched := err == nil
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full || t.grown > 0 { // else nobody would gain from a look
		t.measure()
	}
	age := t.clock.Now().Boot - t.began
	switch {
	case t.file == nil:
	case age >= segmentTime || t.number == 1 && age >= firstTime || watched && age >= watchedTime:
		t.cut()
	case t.dirty && len(t.toDisk) == 0:
		t.dirty = false
		t.toDisk <- whole{file: t.file}
	}
}

// end seals the last segment, and says why it is the last.
func (t *tape) end(e End) error {
	t.mu.Lock()
	t.cut()
	e.At, e.Lost = t.clock.Now().Wall, t.lost
	t.mu.Unlock()
	close(t.toDisk)
	<-t.done
	return writeJSON(filepath.Join(t.dir, endName), e)
}
