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
	consumer, data []byte // mapped; data begins with the producer's page
	mask           uint64
	joined         []byte // a record that the ring's end parts
}

func openRing(m *ebpf.Map) (*ring, error) {
	page, size := os.Getpagesize(), int(m.MaxEntries())
	consumer, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the ring's position: %w", err)
	}
	// The kernel offers the data twice in a row, so that no record is parted by
	// the end. We take it once: all that is mapped counts as our memory.
	data, err := unix.Mmap(m.FD(), int64(page), page+size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the ring: %w", err), unix.Munmap(consumer))
	}
	return &ring{consumer: consumer, data: data, mask: uint64(size) - 1}, nil //nolint:gosec // a size
}

func (r *ring) close() error {
	return errors.Join(unix.Munmap(r.consumer), unix.Munmap(r.data))
}

// start is where the oldest record that was not given back begins.
func (r *ring) start() uint64 { return atomic.LoadUint64(at64(r.consumer)) }

// release gives the kernel the room up to a position back.
func (r *ring) release(to uint64) { atomic.StoreUint64(at64(r.consumer), to) }

// read returns the record at a position and where the next one begins. The
// record is valid until the next is read, or it is released. If there is none yet, next is the
// position itself; for a record that was discarded it is nil.
func (r *ring) read(pos uint64) (record []byte, next uint64, err error) {
	made := atomic.LoadUint64(at64(r.data))
	if pos >= made {
		return nil, pos, nil
	}
	data := r.data[os.Getpagesize():]
	at := pos & r.mask
	head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&data[at]))) //nolint:gosec // records are aligned to eight bytes
	if head&ringBusy != 0 {
		return nil, pos, nil
	}
	size := uint64(head &^ (ringBusy | ringDiscard))
	next = pos + (size+ringHeader+7)/8*8
	if next > made || size > r.mask {
		return nil, pos, fmt.Errorf("record of %d bytes at %d: %w", size, pos, errRing)
	}
	if head&ringDiscard != 0 {
		return nil, next, nil
	}
	return r.text(data, (at+ringHeader)&r.mask, size), next, nil
}

// text is what lies at a place in the data, and goes on at its begin.
func (r *ring) text(data []byte, at, size uint64) []byte {
	end := uint64(len(data))
	if at+size <= end {
		return data[at : at+size]
	}
	r.joined = append(append(r.joined[:0], data[at:]...), data[:at+size-end]...)
	return r.joined
}

func at64(page []byte) *uint64 {
	return (*uint64)(unsafe.Pointer(&page[0])) //nolint:gosec // the begin of a mapped page
}
