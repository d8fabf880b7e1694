// Package canon writes and reads the one canonical byte form of a message.
//
// The form is a subset of the protobuf wire format
// (https://protobuf.dev/programming-guides/encoding/): fields in ascending
// order, shortest varints, zero values left out, no unknown fields. It never
// guesses: bytes that this package would not have written itself are refused,
// so that a signed message has one reading and one spelling.
package canon

import (
	"bytes"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Reasons for which bytes are refused.
var (
	ErrMalformed    = errors.New("malformed message")
	ErrUnknownField = errors.New("unknown field")
	ErrNotCanonical = errors.New("not in canonical form")
)

// A Writer collects fields. The caller writes them in ascending order.
type Writer struct{ b []byte }

// Bytes returns what was written.
func (w *Writer) Bytes() []byte { return w.b }

// Uint writes an unsigned integer; zero is left out.
func (w *Writer) Uint(field int, v uint64) {
	if v == 0 {
		return
	}
	w.b = protowire.AppendTag(w.b, protowire.Number(field), protowire.VarintType) //nolint:gosec // field numbers are constants of ours
	w.b = protowire.AppendVarint(w.b, v)
}

// Bool writes true as 1; false is left out.
func (w *Writer) Bool(field int, v bool) {
	if v {
		w.Uint(field, 1)
	}
}

// Blob writes bytes; an empty slice is left out.
func (w *Writer) Blob(field int, v []byte) {
	if len(v) > 0 {
		w.Item(field, v)
	}
}

// Text writes a string; an empty one is left out.
func (w *Writer) Text(field int, v string) {
	if v != "" {
		w.text(field, v)
	}
}

func (w *Writer) text(field int, v string) {
	w.b = protowire.AppendTag(w.b, protowire.Number(field), protowire.BytesType) //nolint:gosec // as in Uint
	w.b = protowire.AppendString(w.b, v)
}

// Item writes one element of a repeated field, empty or not.
func (w *Writer) Item(field int, v []byte) {
	w.b = protowire.AppendTag(w.b, protowire.Number(field), protowire.BytesType) //nolint:gosec // as in Uint
	w.b = protowire.AppendBytes(w.b, v)
}

// Texts writes a repeated string field in the order given.
func (w *Writer) Texts(field int, vs []string) {
	for _, v := range vs {
		w.text(field, v)
	}
}

// Seconds writes an instant as whole seconds since 1970 UTC; the zero time is
// left out.
func (w *Writer) Seconds(field int, t time.Time) {
	if !t.IsZero() {
		w.Uint(field, uint64(t.Unix())) //nolint:gosec // an instant before 1970 becomes huge, and every reader refuses it
	}
}

// Nanos writes an instant as nanoseconds since 1970 UTC; the zero time is
// left out.
func (w *Writer) Nanos(field int, t time.Time) {
	if !t.IsZero() {
		w.Uint(field, uint64(t.UnixNano()))
	}
}

// A Field is one field of a message that is being read.
type Field struct {
	Num   int
	kind  protowire.Type
	u     uint64
	b     []byte
	later *bool // fields of a later version are passed over, and told here
}

// Read calls each for every field of b in turn. Each returns ErrUnknownField
// (by [Field.Unknown]) for a number that it does not know.
func Read(b []byte, each func(Field) error) error { return read(b, nil, each) }

// ReadLater is Read for what a later version may have written: it passes over
// fields that each does not know, in messages within as well, and reports
// whether there were any. It is for what tells, and never for what permits.
func ReadLater(b []byte, each func(Field) error) (later bool, err error) {
	err = read(b, &later, each)
	return later, err
}

func read(b []byte, later *bool, each func(Field) error) error {
	last := 0
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("field tag: %w", ErrMalformed)
		}
		b = b[n:]
		f := Field{Num: int(num), kind: kind, later: later}
		if f.Num < last {
			return fmt.Errorf("field %d after field %d: %w", f.Num, last, ErrNotCanonical)
		}
		last = f.Num
		switch kind {
		case protowire.VarintType:
			f.u, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.b, n = protowire.ConsumeBytes(b)
		case protowire.Fixed32Type, protowire.Fixed64Type, protowire.StartGroupType, protowire.EndGroupType:
			n = -1
		default:
			n = -1
		}
		if n < 0 {
			return fmt.Errorf("field %d: %w", f.Num, ErrMalformed)
		}
		b = b[n:]
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

// MaxPrefix is how many bytes tell how long a field is.
const MaxPrefix = 20

// Length is that of the field which b begins with, and which may go on behind
// b's end; num is its number. For what is too long for the memory: of the rest, b has to hold up to
// [MaxPrefix] bytes.
func Length(b []byte) (num int, length int64, err error) {
	field, kind, tag := protowire.ConsumeTag(b)
	if tag < 0 {
		return 0, 0, fmt.Errorf("field tag: %w", ErrMalformed)
	}
	v, n := protowire.ConsumeVarint(b[tag:])
	if n < 0 || kind != protowire.VarintType && kind != protowire.BytesType || v > 1<<62 && kind == protowire.BytesType {
		return 0, 0, fmt.Errorf("length of a field: %w", ErrMalformed)
	}
	if kind == protowire.VarintType {
		v = 0
	}
	return int(field), int64(tag+n) + int64(v), nil
}

// Unknown is the error for a field whose number the reader does not know; under
// [ReadLater] there is none.
func (f Field) Unknown() error {
	if f.later != nil {
		*f.later = true
		return nil
	}
	return fmt.Errorf("field %d: %w", f.Num, ErrUnknownField)
}

// Uint puts the field's integer into to.
func (f Field) Uint(to *uint64) error {
	if f.kind != protowire.VarintType {
		return fmt.Errorf("field %d is not an integer: %w", f.Num, ErrMalformed)
	}
	*to = f.u
	return nil
}

// Uint32 puts the field's integer into to if it fits.
func (f Field) Uint32(to *uint32) error {
	var v uint64
	if err := f.Uint(&v); err != nil {
		return err
	}
	if v > 1<<32-1 {
		return fmt.Errorf("field %d is over 32 bits: %w", f.Num, ErrMalformed)
	}
	*to = uint32(v)
	return nil
}

// Bool puts the field's truth into to.
func (f Field) Bool(to *bool) error {
	var v uint64
	if err := f.Uint(&v); err != nil {
		return err
	}
	*to = v == 1
	return nil
}

// Blob puts a copy of the field's bytes into to.
func (f Field) Blob(to *[]byte) error {
	if err := f.bytes(); err != nil {
		return err
	}
	*to = bytes.Clone(f.b)
	return nil
}

func (f Field) bytes() error {
	if f.kind != protowire.BytesType {
		return fmt.Errorf("field %d is not bytes: %w", f.Num, ErrMalformed)
	}
	return nil
}

// Text puts the field's string into to; it has to be valid UTF-8.
func (f Field) Text(to *string) error {
	if err := f.bytes(); err != nil {
		return err
	}
	if !utf8.Valid(f.b) {
		return fmt.Errorf("field %d is not UTF-8: %w", f.Num, ErrMalformed)
	}
	*to = string(f.b)
	return nil
}

// Texts appends the field's string to to.
func (f Field) Texts(to *[]string) error {
	var s string
	if err := f.Text(&s); err != nil {
		return err
	}
	*to = append(*to, s)
	return nil
}

// maxSeconds is 9999-12-31: later instants have no agreed text form, and
// sudoers could not carry them.
const maxSeconds = 253402300799

// Seconds puts the field's instant into to.
func (f Field) Seconds(to *time.Time) error {
	var v uint64
	if err := f.Uint(&v); err != nil {
		return err
	}
	if v > maxSeconds {
		return fmt.Errorf("field %d is no instant before the year 10000: %w", f.Num, ErrMalformed)
	}
	*to = time.Unix(int64(v), 0).UTC()
	return nil
}

// Nanos puts the field's instant into to.
func (f Field) Nanos(to *time.Time) error {
	var v uint64
	if err := f.Uint(&v); err != nil {
		return err
	}
	if v > 1<<63-1 {
		return fmt.Errorf("field %d is out of range: %w", f.Num, ErrMalformed)
	}
	*to = time.Unix(0, int64(v)).UTC()
	return nil
}

// Message reads the field's bytes as a message of its own.
func (f Field) Message(each func(Field) error) error {
	if err := f.bytes(); err != nil {
		return err
	}
	if err := read(f.b, f.later, each); err != nil {
		return fmt.Errorf("in field %d: %w", f.Num, err)
	}
	return nil
}

// Same reports an error unless again, what the reader would write, is the
// very bytes that it read.
func Same(read, again []byte) error {
	if !bytes.Equal(read, again) {
		return ErrNotCanonical
	}
	return nil
}
