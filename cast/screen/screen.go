// Package screen draws recordings of terminals: what stood on the screen, moment
// by moment, in rows of text of few styles.
//
// It draws what [cast.Filter] lets through and nothing else, within bounds that
// no recording can widen, and keeps nothing of what scrolled away.
package screen

import (
	"image/color"
	"slices"
	"strconv"
	"strings"
	"time"

	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"

	"curfew.internal/cast"
)

// The smallest and the largest screen that is drawn: a window may have any size
// that a program gives it. One that has none, or is too small to work in, is
// drawn as the usual one: whoever says that hers is such saw more than that.
const (
	minWidth, maxWidth, usualWidth    = 20, 300, 80
	minHeight, maxHeight, usualHeight = 8, 100, 24
)

// together is for how long what is shown is one frame.
const together = 40 * time.Millisecond

// A Span is text of one style: words of those that [style] writes.
type Span struct{ Text, Style string }

// A Frame is how the screen differs from the frame before.
type Frame struct {
	At            time.Duration
	Width, Height int
	Rows          map[int][]Span // those that are new
	X, Y          int            // of the cursor
	Hidden        bool           // it is
	Note          string         // that stands beside the recording, such as of a gap
}

// A Drawer draws one recording.
type Drawer struct {
	safe cast.Filter
	term *vt.Emulator // nil: nothing was drawn yet
	rows [][]Span     // as they were drawn
}

// Draw draws the next segment.
func (d *Drawer) Draw(h cast.Header, events []cast.Event) []Frame {
	d.resize(h.Width, h.Height)
	var frames []Frame
	for i, e := range events {
		note := ""
		switch e.Kind {
		case cast.Output:
			_, _ = d.term.WriteString(d.safe.Safe(e.Data)) // it is never closed
		case cast.Resize:
			w, h, _ := strings.Cut(e.Data, "x")
			width, werr := strconv.Atoi(w)
			height, herr := strconv.Atoi(h)
			if werr == nil && herr == nil {
				d.resize(width, height)
			}
		case cast.Marker:
			note = e.Data
		default:
			continue // what was typed is not on the screen
		}
		pause := i+1 >= len(events) || events[i+1].At-e.At >= together //nolint:gosec // it is looked at only where it is
		if note != "" || pause || len(frames) > 0 && e.At-frames[len(frames)-1].At >= together {
			frames = append(frames, d.frame(e.At, note))
		}
	}
	return frames
}

func (d *Drawer) resize(width, height int) {
	if width < minWidth {
		width = usualWidth
	}
	if height < minHeight {
		height = usualHeight
	}
	width, height = min(width, maxWidth), min(height, maxHeight)
	switch {
	case d.term == nil:
		d.term = vt.NewEmulator(width, height)
		d.term.SetScrollbackSize(0)
	case d.term.Width() != width || d.term.Height() != height:
		d.term.Resize(width, height)
	}
}

func (d *Drawer) frame(at time.Duration, note string) Frame {
	f := Frame{At: at, Width: d.term.Width(), Height: d.term.Height(), Rows: map[int][]Span{}, Hidden: d.term.CursorHidden(), Note: note}
	p := d.term.CursorPosition()
	f.X, f.Y = p.X, p.Y
	d.rows = d.rows[:min(len(d.rows), f.Height)]
	for y := range f.Height {
		row := d.row(y, f.Width)
		if y == len(d.rows) {
			d.rows = append(d.rows, nil)
		}
		if !slices.Equal(row, d.rows[y]) {
			d.rows[y], f.Rows[y] = row, row
		}
	}
	return f
}

// row is a line of the screen, without the blanks at its end.
func (d *Drawer) row(y, width int) []Span {
	row := []Span{}
	var text strings.Builder
	was := ""
	end := func() {
		if text.Len() > 0 {
			row = append(row, Span{text.String(), was})
		}
		text.Reset()
	}
	for x := 0; x < width; x++ {
		c := d.term.CellAt(x, y)
		content, now := " ", ""
		if c != nil {
			if c.Width > 1 {
				x += c.Width - 1
			}
			if c.Content != "" {
				content = c.Content
			}
			now = style(c.Style)
		}
		if now != was {
			end()
			was = now
		}
		text.WriteString(content)
	}
	end()
	if n := len(row); n > 0 && row[n-1].Style == "" {
		if row[n-1].Text = strings.TrimRight(row[n-1].Text, " "); row[n-1].Text == "" {
			row = row[:n-1]
		}
	}
	return row
}

// style is a cell's look in words: f0 to f15 for its colour and b0 to b15 for
// what is behind it, fb and bf where those are the screen's own in turn; bold,
// dim, italic, line, struck. What is concealed or blinks is shown all the same.
func style(s uv.Style) string {
	fg, bg := paint("f", s.Fg), paint("b", s.Bg)
	if s.Attrs&uv.AttrReverse != 0 {
		fg, bg = paint("f", s.Bg), paint("b", s.Fg)
		if s.Bg == nil {
			fg = "fb"
		}
		if s.Fg == nil {
			bg = "bf"
		}
	}
	words := []string{fg, bg}
	for _, a := range []struct {
		is   bool
		word string
	}{
		{s.Attrs&uv.AttrBold != 0, "bold"},
		{s.Attrs&uv.AttrFaint != 0, "dim"},
		{s.Attrs&uv.AttrItalic != 0, "italic"},
		{s.Underline != uv.UnderlineNone, "line"},
		{s.Attrs&uv.AttrStrikethrough != 0, "struck"},
	} {
		if a.is {
			words = append(words, a.word)
		}
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// paint is the colour's word; of more colours than 16 the nearest.
func paint(prefix string, c color.Color) string {
	switch c := c.(type) {
	case nil:
		return ""
	case ansi.BasicColor:
		return prefix + strconv.Itoa(int(c)&0xf)
	case ansi.IndexedColor:
		if c < 16 {
			return prefix + strconv.Itoa(int(c))
		}
	}
	best, least := 0, int64(-1)
	for i, p := range palette {
		if d := distance(c, p); least < 0 || d < least {
			best, least = i, d
		}
	}
	return prefix + strconv.Itoa(best)
}

func distance(c color.Color, p [3]uint32) int64 {
	r, g, b, _ := c.RGBA()
	var all int64
	for i, v := range []uint32{r >> 8, g >> 8, b >> 8} {
		d := int64(v) - int64(p[i])
		all += d * d
	}
	return all
}

// palette are the 16 colours as xterm has them.
var palette = [16][3]uint32{
	{0, 0, 0},
	{205, 0, 0},
	{0, 205, 0},
	{205, 205, 0},
	{0, 0, 238},
	{205, 0, 205},
	{0, 205, 205},
	{229, 229, 229},
	{127, 127, 127},
	{255, 0, 0},
	{0, 255, 0},
	{255, 255, 0},
	{92, 92, 255},
	{255, 0, 255},
	{0, 255, 255},
	{255, 255, 255},
}
