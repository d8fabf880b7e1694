package cast

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Filter takes out of a stream what a terminal would do more with than show
// it. It lets through text, moves of the cursor, erasing, scrolling, colours,
// the alternate screen and the cursor's visibility. All else goes: what makes a
// terminal answer, as if its reader had typed it, sets a title, a clipboard, a
// link or a key, prints or resizes. What is not known goes too.
//
// An escape sequence may begin in one part of the stream and end in the next.
// Where terminals differ on where one ends, it ends at the first: what somebody
// sees at hers is not to be hidden from who replays it, or searches in it.
type Filter struct {
	state state
	seq   []byte // of the control sequence that has begun
	last  string // the character that was shown last, on this line
}

type state int

const (
	ground  state = iota
	escape        // after ESC
	charset       // after ESC and ( ) * + : one more byte
	command       // after OSC: Linux's console knows it no longer, unless by a number
	control       // after CSI
	textual       // in OSC, DCS, SOS, PM, APC: up to ST, BEL, another sequence or the line's end
	textEsc       // in one of those, after ESC
)

const (
	maxSequence = 64  // bounds a control sequence; a longer one is dropped
	maxRepeated = 300 // characters, of one: no row that is drawn has more
)

// Safe returns what may be shown of the next part of the stream.
func (f *Filter) Safe(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		f.take(&b, r, s[i:i+n])
		i += n
	}
	return b.String()
}

func (f *Filter) take(b *strings.Builder, r rune, raw string) {
	switch {
	case r == 0x18 || r == 0x1a: // CAN and SUB end any sequence
		f.state = ground
		return
	case r == 0x1b && f.state != textual && f.state != textEsc:
		f.state = escape
		return
	}
	switch f.state {
	case ground:
		f.plain(b, r, raw)
	case escape:
		f.escaped(b, r, raw)
	case charset:
		f.broken(b, r, raw)
	case command:
		if f.broken(b, r, raw); r >= '0' && r <= '9' {
			f.begin(textual)
		}
	case control:
		f.controlled(b, r, raw)
	case textual:
		switch r {
		case 0x1b:
			f.state = textEsc
		case 0x07, 0x9c:
			f.state = ground
		case '\n': // of one that a terminal gives up after a while, as tmux does
			f.state = ground
			f.plain(b, r, raw)
		}
	case textEsc:
		switch r {
		case 0x1b:
		case '\\':
			f.state = ground
		default:
			f.escaped(b, r, raw)
		}
	}
}

// broken ends a sequence at a character of it, which shows, or moves the cursor, if
// no sequence has such a one.
func (f *Filter) broken(b *strings.Builder, r rune, raw string) {
	if f.state = ground; r < 0x20 || r > 0x7e {
		f.plain(b, r, raw)
	}
}

// plain passes what stands outside of any sequence.
func (f *Filter) plain(b *strings.Builder, r rune, raw string) {
	switch {
	case r == '\n' || r == '\r' || r == '\t' || r == '\b':
		f.last = ""
		b.WriteString(raw)
	case r == utf8.RuneError && len(raw) == 1:
		b.WriteRune(utf8.RuneError)
	case unicode.IsControl(r), bidi(r): // also what begins a sequence at some terminals, in one character
	default:
		f.last = raw
		b.WriteString(raw)
	}
}

// repeat shows the last character again, as xterm does and what is written for
// it has it do: a word would lack a letter, and a row what aligns it.
func (f *Filter) repeat(b *strings.Builder) {
	n := uint64(1)
	if len(f.seq) > 0 {
		var err error
		if n, err = strconv.ParseUint(string(f.seq), 10, 16); err != nil {
			return
		}
	}
	b.WriteString(strings.Repeat(f.last, int(min(max(n, 1), maxRepeated))))
}

// bidi reports whether the rune turns the direction of text, by which one
// thing can be made to look like another.
func bidi(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f || r == 0x061c
}

func (f *Filter) begin(s state) { f.state, f.seq = s, f.seq[:0] }

func (f *Filter) escaped(b *strings.Builder, r rune, raw string) {
	f.broken(b, r, raw)
	switch r {
	case '[':
		f.begin(control)
	case ']':
		f.begin(command)
	case 'P', 'X', '^', '_':
		f.begin(textual)
	case '(', ')', '*', '+', '-', '.', '/', '#', '%', ' ':
		f.state = charset // other alphabets would change what is read
	case '7', '8', 'D', 'E', 'M':
		b.WriteByte(0x1b)
		b.WriteRune(r)
	}
}

func (f *Filter) controlled(b *strings.Builder, r rune, raw string) {
	switch {
	case r >= 0x40 && r <= 0x7e:
		f.state = ground
		if r == 'b' {
			f.repeat(b)
			return
		}
		if len(f.seq) < maxSequence && harmless(string(f.seq), byte(r)) {
			b.WriteString("\x1b[")
			b.Write(f.seq)
			b.WriteRune(r)
		}
	case r >= 0x20 && r <= 0x3f:
		if len(f.seq) < maxSequence {
			f.seq = append(f.seq, byte(r))
		}
	default:
		f.broken(b, r, raw)
	}
}

// harmless says whether a control sequence only changes what is shown.
func harmless(params string, final byte) bool {
	if mode, private := strings.CutPrefix(params, "?"); private {
		return (final == 'h' || final == 'l') && modes[mode] || (final == 'J' || final == 'K') && numbers(mode)
	}
	return numbers(params) && strings.IndexByte("@ABCDEFGHJKLMPSTXZ`adefmrsu", final) >= 0
}

// modes of the terminal that only change what is shown: the cursor key's and
// the mouse's would change what is typed.
var modes = map[string]bool{"7": true, "12": true, "25": true, "47": true, "1047": true, "1048": true, "1049": true}

// numbers reports whether the parameters are numbers that a screen has: larger
// ones make some terminals count for a long time.
func numbers(params string) bool {
	for n := range strings.FieldsFuncSeq(params, func(r rune) bool { return r == ';' || r == ':' }) {
		if len(n) > 4 || strings.Trim(n, "0123456789") != "" {
			return false
		}
	}
	return true
}

// Plain takes every sequence out of a stream, and leaves its text. It is what
// searches look in: words that an editor painted over one another stand one
// after the other.
type Plain struct{ f Filter }

// Text is the text of the next part of the stream. A backspace takes nothing
// back: it moves the cursor, and what stands there is seen for as long as nothing
// is written over it. Where a letter is struck twice, or underlined so, there is
// one.
func (p *Plain) Text(s string) string {
	var out []byte
	var one strings.Builder
	back := 0 // backspaces in a row
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		one.Reset()
		p.f.take(&one, r, s[i:i+n])
		t := one.String()
		last, size := utf8.DecodeLastRune(out)
		struck := back == 1 && size > 0 && r >= ' '
		i += n
		switch {
		case t == "\b":
			back++
			continue
		case t == "" || t[0] == 0x1b || t == "\r":
		case struck && (r == '_' || r == last):
		case struck && last == '_':
			out = append(out[:len(out)-size], t...)
		default:
			out = append(out, t...)
		}
		back = 0
	}
	return string(out)
}
