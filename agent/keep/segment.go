package keep

import (
	"encoding/binary"
	"hash/crc32"
)

// A segment file is frames one after another: length of the entry (4 bytes),
// CRC-32C of number and entry (4), number (8), all little-endian, and the
// entry. Numbers ascend.
const frameHead = 16

// maxEntry bounds one entry, and with it what a damaged length can ask for: an
// exec has all the arguments that the kernel takes, and the control plane takes
// messages of 4 MiB.
const maxEntry = 3 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A frame says where an entry lies in its segment.
type frame struct {
	seq  uint64
	from uint32 // of the entry, past its head
	size uint32
}

func (f frame) end() int64 { return int64(f.from) + int64(f.size) }

func appendFrame(b []byte, seq uint64, entry []byte) []byte {
	head := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entry))) //nolint:gosec // at most maxEntry
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = append(b, entry...)
	binary.LittleEndian.PutUint32(b[head+4:], crc32.Checksum(b[head+8:], castagnoli))
	return b
}

// readFrame reads the frame at b's beginning.
func readFrame(b []byte) (seq uint64, size int, ok bool) {
	if len(b) < frameHead {
		return 0, 0, false
	}
	n := binary.LittleEndian.Uint32(b)
	if n == 0 || n > maxEntry || int(n) > len(b)-frameHead {
		return 0, 0, false
	}
	size = int(n)
	if crc32.Checksum(b[8:frameHead+size], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(b[8:]), size, true
}

// scan finds the frames of a segment whose first number is first. Where the
// file is damaged it looks for the next whole frame: one bad sector does not
// cost what lies behind it.
func scan(b []byte, first uint64) []frame {
	var found []frame
	next := first
	for off := 0; off+frameHead < len(b); {
		// A frame takes more than its head, so numbers cannot run ahead of
		// the bytes: this keeps the search from checking every sum.
		if seq := binary.LittleEndian.Uint64(b[off+8:]); seq < next || seq-first > uint64(off/frameHead) {
			off++
			continue
		}
		seq, size, ok := readFrame(b[off:])
		if !ok {
			off++
			continue
		}
		found = append(found, frame{seq, uint32(off + frameHead), uint32(size)}) //nolint:gosec // segments are small
		next = seq + 1
		off += frameHead + size
	}
	return found
}
