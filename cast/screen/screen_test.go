package screen

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/cast"
)

func out(ms int, text string) cast.Event {
	return cast.Event{At: time.Duration(ms) * time.Millisecond, Kind: cast.Output, Data: text}
}

// last is the screen after all frames, as text.
func last(frames []Frame) string {
	rows := map[int]string{}
	height := 0
	for _, f := range frames {
		height = f.Height
		for y, row := range f.Rows {
			rows[y] = ""
			for _, s := range row {
				rows[y] += s.Text
			}
		}
	}
	var b strings.Builder
	for y := range height {
		b.WriteString(rows[y] + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

func TestWhatStandsOnTheScreen(t *testing.T) {
	for _, c := range []struct{ name, shown, want string }{
		{"lines", "one\r\ntwo", "one\ntwo"},
		{"a line that is too long goes on in the next", "0123456789abcdefghijklm", "0123456789abcdefghij\nklm"},
		{"what scrolled away is gone", "1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8\r\n9", "2\n3\n4\n5\n6\n7\n8\n9"},
		{"an editor that goes back and writes over", "hello\x1b[1;1HJ\x1b[2;3Hx", "Jello\n  x"},
		{"what was erased", "hello\x1b[1;3H\x1b[K", "he"},
		{"the other screen, and back", "shell\x1b[?1049h\x1b[2J\x1b[Heditor\x1b[?1049l", "shell"},
		{"wide characters", "漢字!", "漢字!"},
		{"what answers, titles and links is not there", "a\x1b[6n\x1b]0;title\x07\x1b[cb\x1b]8;;http://x\x1b\\c", "abc"},
		{"a screen that is scrolled in part", "1\r\n2\r\n3\x1b[2;3r\x1b[3;1H\n4\x1b[r", "1\n3\n4"},
		{"a letter again", "pas\x1b[bword", "password"},
		{"letters that are put in between", "ad\x1b[1;2H\x1b[2@bc", "abcd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Drawer
			if got := last(d.Draw(cast.Header{Width: 20, Height: 8}, []cast.Event{out(0, c.shown)})); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestFramesAreWhatChanges(t *testing.T) {
	var d Drawer
	frames := d.Draw(cast.Header{Width: 30, Height: 10}, []cast.Event{
		out(0, "\x1b[31mred\x1b[0m "), out(10, "\x1b[1;7mturned with all that is\x1b[0m\x1b[11G"), // one moment
		out(500, "\r\n\x1b[38;2;250;0;5;44mx"),
		{At: 600 * time.Millisecond, Kind: cast.Input, Data: "typed"},
		{At: 700 * time.Millisecond, Kind: cast.Marker, Data: "a gap"},
		{At: time.Second, Kind: cast.Resize, Data: "20x8"},
		out(2000, "\x1b[?25l"),
	})
	want := []Frame{
		{At: 10 * time.Millisecond, Width: 30, Height: 10, X: 10, Rows: map[int][]Span{0: {{"red", "f1"}, {" ", ""}, {"turned with all that is", "fb bf bold"}}}},
		{At: 500 * time.Millisecond, Width: 30, Height: 10, X: 1, Y: 1, Rows: map[int][]Span{1: {{"x", "f9 b4"}}}},
		{At: 700 * time.Millisecond, Width: 30, Height: 10, X: 1, Y: 1, Rows: map[int][]Span{}, Note: "a gap"},
		{At: time.Second, Width: 20, Height: 8, X: 1, Y: 1, Rows: map[int][]Span{0: {{"red", "f1"}, {" ", ""}, {"turned with all ", "fb bf bold"}}}},
		{At: 2 * time.Second, Width: 20, Height: 8, X: 1, Y: 1, Rows: map[int][]Span{}, Hidden: true},
	}
	if diff := cmp.Diff(want, frames); diff != "" {
		t.Error(diff)
	}
	// The next segment goes on from there.
	if next := d.Draw(cast.Header{Width: 20, Height: 8}, []cast.Event{out(3000, "y")}); len(next) != 1 || len(next[0].Rows) != 1 {
		t.Errorf("%+v", next)
	}
}

// What is shown is drawn, also where the window is said to have no size, or one
// that hides it from who replays it, and from nobody else.
func TestAWindowThatIsTooSmallHidesNothing(t *testing.T) {
	shown := out(100, "\x1b[2J\x1b[3;5Hcat /etc/shadow\r\nroot:x")
	for _, size := range [][2]int{{0, 0}, {1, 1}, {80, 1}, {1, 24}, {19, 7}} {
		for name, events := range map[string][]cast.Event{
			"from the beginning": {shown},
			"later":              {{Kind: cast.Resize, Data: fmt.Sprintf("%dx%d", size[0], size[1])}, shown},
		} {
			h := cast.Header{Width: 80, Height: 24}
			if len(events) == 1 {
				h.Width, h.Height = size[0], size[1]
			}
			var d Drawer
			if got, want := last(d.Draw(h, events)), "\n\n    cat /etc/shadow\nroot:x"; got != want {
				t.Errorf("%v %s: %q", size, name, got)
			}
		}
	}
}

// No recording makes a screen that is larger, or that takes long to draw.
func TestARecordingIsDrawnWithinBounds(t *testing.T) {
	var d Drawer
	frames := d.Draw(cast.Header{Width: 1 << 30, Height: 1 << 30}, []cast.Event{
		{Kind: cast.Resize, Data: "999999999x999999999"}, {Kind: cast.Resize, Data: "-1x0"}, {Kind: cast.Resize, Data: "x"},
	})
	for _, f := range frames {
		if f.Width > maxWidth || f.Height > maxHeight || f.Width < minWidth || f.Height < minHeight {
			t.Errorf("%d columns, %d rows", f.Width, f.Height)
		}
	}
	for _, final := range "@ABCDEFGHJKLMPSTXZ`abdefmrsu" {
		d = Drawer{}
		d.Draw(cast.Header{Width: 80, Height: 24}, []cast.Event{out(0, strings.Repeat(fmt.Sprintf("x\x1b[9999%c\x1b[999999999%[1]c\x1b[9999;9999%[1]c", final), 2000))})
	}
}

func FuzzDraw(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m\r\n\x1b[2;1H漢\x1b[?1049h\x1b[5;2r\x1b[99L\x1b[3@", uint16(80), uint16(24), uint16(3))
	f.Add("e\u0301\u200d\U0001f468\x1b[1P\x1b[4M\x1bM\x1bD\x1b7\x1b8", uint16(2), uint16(1), uint16(1))
	f.Fuzz(func(t *testing.T, text string, width, height, cut uint16) {
		var d Drawer
		i := min(int(cut), len(text))
		frames := d.Draw(cast.Header{Width: int(width), Height: int(height)}, []cast.Event{
			out(0, text[:i]), {Kind: cast.Resize, Data: fmt.Sprintf("%dx%d", height, width)}, out(1000, text[i:]),
		})
		for _, f := range frames {
			for y, row := range f.Rows {
				for _, s := range row {
					if y >= f.Height || strings.ContainsAny(s.Text, "\x1b\n\r\a\u202e") {
						t.Fatalf("row %d of %d: %q", y, f.Height, s.Text)
					}
				}
			}
		}
	})
}
