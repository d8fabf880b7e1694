package main

import (
	"strings"
	"testing"

	"curfew.internal/cast"
	"curfew.internal/ledger"
)

// Who replays in a smaller window than it was shown in is told that there may
// be more.
func TestASmallerWindowIsTold(t *testing.T) {
	for _, c := range []struct {
		name          string
		width, height int // of whoever replays
		told          string
	}{
		{"as large", 120, 40, ""},
		{"less wide", 119, 40, "in 120 columns and 30 rows: in this window, of 119 and 40,"},
		{"less high, after it grew", 120, 39, "in 100 columns and 40 rows: in this window, of 120 and 39,"},
		{"no terminal", 0, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, err strings.Builder
			s := &show{out: &out, err: &err, window: func() (int, int) { return c.width, c.height }}
			data := append(cast.Header{Version: 2, Width: 120, Height: 30}.Bytes(), cast.Event{Kind: cast.Output, Data: "shown"}.Bytes()...)
			data = append(data, cast.Event{Kind: cast.Resize, Data: "100x40"}.Bytes()...)
			for range 2 {
				if err := s.segment(t.Context(), part{ledger.Segment{Number: 1}, data}); err != nil {
					t.Fatal(err)
				}
			}
			if !strings.Contains(err.String(), c.told) || strings.Count(err.String(), "\n") != min(len(c.told), 1) || out.String() != "shownshown" {
				t.Errorf("%q, %q", err.String(), out.String())
			}
		})
	}
}
