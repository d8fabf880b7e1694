package canon

import (
	"errors"
	"testing"
	"time"
)

func TestReadRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"a field after a later one":      {0x10, 1, 0x08, 1},
		"a group":                        {0x0b, 0x0c},
		"a fixed 64":                     {0x09, 0, 0, 0, 0, 0, 0, 0, 0},
		"a cut tag":                      {0x80},
		"a cut varint":                   {0x08, 0x80},
		"a length beyond the end":        {0x0a, 5, 1},
		"a field number of zero":         {0x00, 0},
		"a length over what memory has":  {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"a varint of more than 64 bits":  {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"an integer where a text stands": {0x0a, 1, 'x', 0x0a},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Read(b, func(Field) error { return nil }); err == nil {
				t.Error("taken")
			}
		})
	}
}

func TestFieldKinds(t *testing.T) {
	var w Writer
	w.Uint(1, 1<<40)
	w.Text(2, "x")
	var u32 uint32
	var s string
	var at time.Time
	err := Read(w.Bytes(), func(f Field) error {
		if f.Num == 1 {
			if f.Text(&s) == nil || f.Uint32(&u32) == nil || f.Seconds(&at) == nil {
				t.Error("a large integer was taken for something else")
			}
			return nil
		}
		if f.Uint32(&u32) == nil || f.Bool(new(bool)) == nil {
			t.Error("a text was taken for an integer")
		}
		return f.Unknown()
	})
	if !errors.Is(err, ErrUnknownField) {
		t.Error(err)
	}
}

// What is read part by part is cut where Read would.
func TestLength(t *testing.T) {
	var w Writer
	w.Uint(1, 1<<40)
	w.Blob(2, make([]byte, 300))
	w.Text(100, "x")
	rest := w.Bytes()
	for _, want := range []struct {
		num    int
		length int64
	}{{1, 7}, {2, 303}, {100, 4}} {
		num, n, err := Length(rest[:min(len(rest), MaxPrefix)])
		if err != nil || num != want.num || n != want.length {
			t.Fatalf("field %d of %d bytes, %v, want %v", num, n, err, want)
		}
		rest = rest[n:]
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "a cut tag": {0x80}, "a cut integer": {0x08, 0x80}, "no length": {0x0a}, "a group": {0x0b, 1}, "a fixed 32": {0x0d, 1, 1, 1, 1},
		"a length that no file has": {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		if _, n, err := Length(b); err == nil {
			t.Errorf("%s: %d", name, n)
		}
	}
}
