package ledger

import (
	"fmt"

	"curfew.internal/canon"
)

// A File is where a bundle lies, which may be longer than the memory: an
// *os.File, for one.
type File interface {
	ReadAt(b []byte, at int64) (n int, err error)
}

// inMemory is a bundle that was read already.
type inMemory []byte

// ReadAt implements File.
func (m inMemory) ReadAt(b []byte, at int64) (int, error) { return copy(b, m[at:]), nil }

const (
	window  = 1 << 16 // what is read of a file at once
	maxPart = 1 << 28 // bounds what of it has to be in memory
	maxItem = 1 << 26 // the same of a record or a tape, which is there up to four times; a host tells 4 MiB at once
)

// laid is a bundle of which the head was read, and where each record and each
// tape begins. They stand one behind the other.
type laid struct {
	Bundle  // without records and tapes
	file    File
	records []int64
	tapes   []int64
	end     int64 // of what can be read

	size int64
	last int    // number of the field before
	top  []byte // the head, as it stands there
	near []byte // what was read of the file, from end on
}

// lay reads a bundle once, and holds no more of it than one part at a time.
// Beside an error it returns what stands before the place that is broken.
func lay(file File, size int64) (*laid, error) {
	l := &laid{file: file, size: size}
	var err error
	for err == nil && l.end < size {
		var part []byte
		if part, err = l.next(); err == nil {
			err = canon.Read(part, func(f canon.Field) error { return l.part(f, part) })
		}
		if err == nil {
			l.end += int64(len(part))
			l.near = l.near[len(part):]
		}
	}
	if err == nil && len(l.records)+len(l.tapes) == 0 {
		err = l.headed()
	}
	l.near, l.top = nil, nil
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return l, err
}

// next is the part that begins where the last ended.
func (l *laid) next() ([]byte, error) {
	if err := l.fill(min(canon.MaxPrefix, l.size-l.end)); err != nil {
		return nil, err
	}
	num, n, err := canon.Length(l.near)
	if err != nil {
		return nil, err
	}
	most := int64(maxPart)
	if num == 5 || num == 6 {
		most = maxItem
	}
	if n > min(most, l.size-l.end) {
		return nil, fmt.Errorf("a part of %d bytes: %w", n, canon.ErrMalformed)
	}
	if err := l.fill(n); err != nil {
		return nil, err
	}
	return l.near[:n], nil
}

// fill sees to it that so much of what comes is near.
func (l *laid) fill(n int64) error {
	if int64(len(l.near)) >= n {
		return nil
	}
	b, err := l.at(l.end, min(max(n, window), l.size-l.end))
	l.near = b
	return err
}

// at reads a stretch of the file.
func (l *laid) at(from, n int64) ([]byte, error) {
	b := make([]byte, n)
	if got, err := l.file.ReadAt(b, from); got < len(b) {
		return nil, fmt.Errorf("read byte %d and what follows: %w", from+int64(got), err)
	}
	return b, nil
}

// part takes note of one part, if it is in its canonical spelling.
func (l *laid) part(f canon.Field, raw []byte) error {
	if f.Num < l.last {
		return fmt.Errorf("field %d after field %d: %w", f.Num, l.last, canon.ErrNotCanonical)
	}
	l.last = f.Num
	var err error
	var again []byte
	switch f.Num {
	case 5:
		var r Record
		err = f.Message(r.field)
		again = r.Bytes()
	case 6:
		var t Tape
		err = f.Message(t.field)
		again = t.Bytes()
	default:
		l.top = append(l.top, raw...)
		return l.headField(f)
	}
	if err == nil && len(l.records)+len(l.tapes) == 0 {
		err = l.headed()
	}
	if err == nil {
		err = canon.Same(raw, again)
	}
	switch {
	case err != nil:
	case f.Num == 5:
		l.records = append(l.records, l.end)
	default:
		l.tapes = append(l.tapes, l.end)
	}
	return err
}

// headed reports an error unless the head is in its canonical spelling.
func (l *laid) headed() error { return canon.Same(l.top, l.head()) }

// record is the record in a place, from 0.
func (l *laid) record(i int) (Record, error) {
	end := l.end
	if len(l.tapes) > 0 {
		end = l.tapes[0]
	}
	if i+1 < len(l.records) {
		end = l.records[i+1]
	}
	var r Record
	b, err := l.at(l.records[i], end-l.records[i])
	if err == nil {
		err = canon.Read(b, func(f canon.Field) error { return f.Message(r.field) })
	}
	return r, err
}

// taped is where the tape in a place lies.
func (l *laid) taped(i int) (from, size int64) {
	end := l.end
	if i+1 < len(l.tapes) {
		end = l.tapes[i+1]
	}
	return l.tapes[i], end - l.tapes[i]
}

// tape is the tape in a place, from 0.
func (l *laid) tape(i int) (Tape, error) {
	b, err := l.at(l.taped(i))
	if err != nil {
		return Tape{}, err
	}
	return parseTape(b)
}

// ParseBundle reads a bundle. Beside an error it returns what could be read
// before the place that is broken.
func ParseBundle(file []byte) (Bundle, error) {
	l, err := lay(inMemory(file), int64(len(file)))
	b := l.Bundle
	for i := range l.records {
		r, _ := l.record(i) // it was read before
		b.Records = append(b.Records, r)
	}
	for i := range l.tapes {
		t, _ := l.tape(i) // as above
		b.Tapes = append(b.Tapes, t)
	}
	return b, err
}
