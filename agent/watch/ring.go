package watch

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Each record has eight bytes before it: length with two flags, and a word
// for the kernel.
const (
	ringHeader  = 8
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
)

var errRing = errors.New("the ring does not hold together")

// A ring reads the kernel's ring buffer. Unlike the reader of cilium/ebpf it
// gives the kernel its room back only when it is told to: so that what was
// read and not yet kept is still there for the next agent.
type ring struct {
	fd                 int
	consumer, producer []byte // mapped pages, each with a position
	size               uint64
	window             []byte // mapped: what lies at from
	from               uint64
	joined             []byte // a record that the end of the ring, or of a window, parts
}

// windowSize is how much of the ring is mapped at a time: all that is mapped
// counts as our memory.
const windowSize = 1 << 20

func openRing(m *ebpf.Map) (*ring, error) {
	page := os.Getpagesize()
	consumer, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the ring's position: %w", err)
	}
	producer, err := unix.Mmap(m.FD(), int64(page), page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the ring's other position: %w", err), unix.Munmap(consumer))
	}
	r := &ring{fd: m.FD(), consumer: consumer, producer: producer, size: uint64(m.MaxEntries())}
	if _, err := r.view(0); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *ring) close() error {
	err := errors.Join(unix.Munmap(r.consumer), unix.Munmap(r.producer))
	if r.window != nil {
		err = errors.Join(err, unix.Munmap(r.window))
	}
	return err
}

// view is what lies at a place in the data, up to where its window ends. It
// takes the place of what was viewed before.
func (r *ring) view(at uint64) ([]byte, error) {
	span := min(windowSize, r.size)
	if from := at / span * span; r.window == nil || r.from != from {
		// After the two positions; the ring's sizes are powers of two.
		window, err := unix.Mmap(r.fd, int64(2*os.Getpagesize())+int64(from), int(span), unix.PROT_READ, unix.MAP_SHARED) //nolint:gosec // within the ring
		if err != nil {
			return nil, fmt.Errorf("map the ring: %w", err)
		}
		old := r.window
		r.window, r.from = window, from
		if old != nil {
			if err := unix.Munmap(old); err != nil {
				return nil, fmt.Errorf("unmap the ring: %w", err)
			}
		}
	}
	return r.window[at-r.from:], nil
}

// start is where the oldest record that was not given back begins.
func (r *ring) start() uint64 { return atomic.LoadUint64(at64(r.consumer)) }

// release gives the kernel the room up to a position back.
func (r *ring) release(to uint64) { atomic.StoreUint64(at64(r.consumer), to) }

// holds reports whether more was put into the ring than up to a position.
func (r *ring) holds(pos uint64) bool { return r.made() > pos }

// made is where the next record will begin.
func (r *ring) made() uint64 { return atomic.LoadUint64(at64(r.producer)) }

// read returns the record at a position and where the next one begins. The
// record is valid until the next is read, or it is released. If there is none yet, next is the
// position itself; for a record that was discarded it is nil.
func (r *ring) read(pos uint64) (record []byte, next uint64, err error) {
	made := r.made()
	if pos >= made {
		return nil, pos, nil
	}
	at := pos % r.size
	data, err := r.view(at)
	if err != nil {
		return nil, pos, err
	}
	head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&data[0]))) //nolint:gosec // records are aligned to eight bytes
	if head&ringBusy != 0 {
		return nil, pos, nil
	}
	size := uint64(head &^ (ringBusy | ringDiscard))
	next = pos + (size+ringHeader+7)/8*8
	if next > made || size >= r.size {
		return nil, pos, fmt.Errorf("record of %d bytes at %d: %w", size, pos, errRing)
	}
	if head&ringDiscard != 0 {
		return nil, next, nil
	}
	record, err = r.text(at+ringHeader, size)
	return record, next, err
}

// text is what lies at a place in the data, and goes on at its begin.
func (r *ring) text(at, size uint64) ([]byte, error) {
	part, err := r.view(at % r.size)
	if err != nil || size <= uint64(len(part)) {
		return part[:min(size, uint64(len(part)))], err
	}
	r.joined = r.joined[:0]
	for size > 0 && err == nil {
		n := min(size, uint64(len(part)))
		r.joined = append(r.joined, part[:n]...)
		at, size = at+n, size-n
		part, err = r.view(at % r.size)
	}
	return r.joined, err
}

func at64(page []byte) *uint64 {
	return (*uint64)(unsafe.Pointer(&page[0])) //nolint:gosec // the begin of a mapped page
}
