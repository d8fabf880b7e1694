package cast

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	h := Header{Version: 2, Width: 80, Height: 24, Timestamp: 1700000000, Title: "ana under g-a", Env: map[string]string{"TERM": "xterm"}}
	events := []Event{
		{0, Output, "<b>&\x1b[1m\"\\\u2028é"},
		{1500 * time.Millisecond, Resize, "100x30"},
		Gap(2*time.Second, 77, "no room"),
		{3 * time.Second, Input, "ls\r"},
		Gap(4*time.Second, 5, "no room"),
	}
	text := string(h.Bytes())
	for _, e := range events {
		text += string(e.Bytes())
	}
	if want := "[1.500000, \"r\", \"100x30\"]\n"; !strings.Contains(text, want) || strings.Contains(text, `\u003c`) {
		t.Errorf("%s", text)
	}
	got, read, err := Read(strings.NewReader(text))
	if err != nil || got.Width != 80 || got.Title != h.Title || len(read) != len(events) {
		t.Fatalf("%+v %v %v", got, read, err)
	}
	for i, e := range events {
		if read[i] != e {
			t.Errorf("%+v, not %+v", read[i], e)
		}
	}
	if n := Lost(read); n != 82 {
		t.Errorf("%d bytes are missing", n)
	}
	if n := Lost([]Event{{0, Output, Gap(0, 9, "").Data}}); n != 0 {
		t.Error("a session told of a gap by itself")
	}
}

func TestWhatIsNoRecordingIsRefused(t *testing.T) {
	head := string(Header{Version: 2}.Bytes())
	for name, text := range map[string]string{
		"nothing": "", "another version": `{"version":1}` + "\n", "no header": "[1, \"o\", \"x\"]\n", "half a line": head + "[1, \"o\"",
		"a time before the beginning": head + "[-1, \"o\", \"x\"]\n", "a time beyond all": head + "[1e300, \"o\", \"x\"]\n",
		"too many parts": head + "[1, \"o\", \"x\", 2]\n", "a number for a text": head + "[1, \"o\", 2]\n",
	} {
		if _, _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	if n := Whole([]byte("one\ntwo\nthr")); n != 8 {
		t.Errorf("whole up to %d", n)
	}
}

func TestACharacterThatTwoReadsShareIsOne(t *testing.T) {
	for _, c := range []struct {
		name  string
		parts []string
		want  []string
	}{
		{"whole text passes", []string{"aé", "b"}, []string{"aé", "b"}},
		{"the beginning waits for the rest", []string{"a\xe2\x82", "\xacb"}, []string{"a", "€b"}},
		{"four bytes, one by one", []string{"\xf0", "\x9f", "\x98", "\x80"}, []string{"", "", "", "😀"}},
		{"what is no character does not wait", []string{"a\xff", "b"}, []string{"a\xff", "b"}},
	} {
		var s Stream
		for i, p := range c.parts {
			if got := s.Take([]byte(p)); got != c.want[i] {
				t.Errorf("%s: part %d: %q", c.name, i, got)
			}
		}
		if rest := s.Rest(); rest != "" {
			t.Errorf("%s: %q is left", c.name, rest)
		}
	}
}

func TestOnlyWhatShowsIsLetThrough(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"text", "plain é 漢\r\n\ttab\b", "plain é 漢\r\n\ttab\b"},
		{"colours", "\x1b[1;31mred\x1b[0m\x1b[38;5;7m\x1b[38:2::1:2:3m", "\x1b[1;31mred\x1b[0m\x1b[38;5;7m\x1b[38:2::1:2:3m"},
		{"moves and erasing", "\x1b[2J\x1b[10;5H\x1b[K\x1b7\x1b8\x1bM", "\x1b[2J\x1b[10;5H\x1b[K\x1b7\x1b8\x1bM"},
		{"the alternate screen", "\x1b[?1049h\x1b[?25l", "\x1b[?1049h\x1b[?25l"},
		{"a question for the terminal's name", "a\x1b[c\x1b[>c\x1b[=0cb", "ab"},
		{"a question for the cursor's place", "a\x1b[6n\x1b[?6nb", "ab"},
		{"a report of its title", "a\x1b[21tb", "ab"},
		{"a window's size", "a\x1b[8;1;1tb", "ab"},
		{"a title", "a\x1b]0;evil\x07b", "ab"},
		{"a title that ends otherwise", "a\x1b]2;evil\x1b\\b", "ab"},
		{"the clipboard", "a\x1b]52;c;ZXZpbA==\x07b", "ab"},
		{"a link", "\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\", "here"},
		{"a device's string", "a\x1bP+q544e\x1b\\b", "ab"},
		{"a program's command", "a\x1b_evil\x1b\\\x1b^evil\x1b\\\x1bXevil\x1b\\b", "ab"},
		{"one that never ends", "a\x1b]0;evil and all that comes", "a"},
		{"one that is broken off", "a\x1b]0;evil\x18b", "ab"},
		{"by characters of 8 bits, which not all terminals know", "a\u009b6n\u009d0;text\u009cb\u0090x\u009cc", "a6n0;textbxc"},
		{"a title that another sequence breaks off", "a\x1b]0;evil\x1b[0mseen", "a\x1b[0mseen"},
		{"a title within a title", "a\x1b]0;evil\x1b]0;evil\x07seen", "aseen"},
		{"a title within a device's string, and escapes in a row", "a\x1bPx\x1b\x1b]0;evil\x1b\x1b\\seen", "aseen"},
		{"one that never ends, and the next line", "a\x1b]0;evil\nseen", "a\nseen"},
		{"a line's end and a letter within a sequence", "a\x1b[3\nb\x1b[éc\x1b(éd\x1bée", "a\nbécédée"},
		{"a title without a number, which Linux's console does not know", "a\x1b]Rseen\x1b]P1234567seen", "aseen1234567seen"},
		{"a question that breaks off a title", "a\x1b]0;evil\x1b[6n\x1b]0;x\x1bcseen", "aseen"},
		{"keys of the mouse and the cursor", "a\x1b[?1000h\x1b[?1h\x1b[?2004hb", "ab"},
		{"other alphabets", "a\x1b(0q\x1b)Bb\x0e\x0f", "aqb"},
		{"a full reset", "a\x1bcb", "ab"},
		{"a bell, and a printer", "a\x07\x1b[5i\x1b[4ib", "ab"},
		{"a character again", "pas\x1b[bword é\x1b[3b|\x1b[1m\x1b[0b", "password éééé|\x1b[1m|"},
		{"nothing again", "\x1b[5ba\r\n\x1b[5bb", "a\r\nb"},
		{"a character more often than a row has room", "a\x1b[9999b", strings.Repeat("a", 301)},
		{"again, and something else", "a\x1b[1;2b\x1b[?1b\x1b[-1bb", "ab"},
		{"a character a million times", "a\x1b[1000000bb", "ab"},
		{"a sequence without an end", "a\x1b[" + strings.Repeat("1;", 200) + "mb", "ab"},
		{"text that runs the other way", "a\u202egpj.exe\u202cb", "agpj.exeb"},
		{"what is no character", "a\xffb", "a\uFFFDb"},
		{"an escape within a sequence", "\x1b[1\x1b[31mb", "\x1b[31mb"},
	} {
		var whole, cut Filter
		if got := whole.Safe(c.in); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
		// Wherever it is cut, as long as characters are whole.
		var b strings.Builder
		for _, r := range c.in {
			b.WriteString(cut.Safe(string(r)))
		}
		if got := b.String(); got != c.want && !strings.Contains(c.in, "\xff") {
			t.Errorf("%s, in pieces: %q", c.name, got)
		}
	}
}

func TestTextIsFoundBetweenSequences(t *testing.T) {
	var p Plain
	got := p.Text("\x1b[1mDR") + p.Text("OP\x1b[0m TABLE\r\n\x1b]0;x") + p.Text("y\x07done")
	if got != "DROP TABLE\ndone" {
		t.Errorf("%q", got)
	}
}

// What stands on the screen is found, wherever the cursor went from there.
func TestABackspaceHidesNothing(t *testing.T) {
	for _, c := range []struct{ shown, want string }{
		{"secret\b\b\b\b\b\b\r\n", "secret\n"},
		{"secret\r\n\b\b\b\b\b\b\b\bx", "secret\nx"},
		{"secret\b\b\b\b\b\b\tx", "secret\tx"},
		{"secret\b\b\b\b\b\b\x1b[Bxxxxxx", "secretxxxxxx"},
		{"secret\b\n\b\n", "secret\n\n"},
		{"N\bNA\bA\bAM\bM", "NAM"},
		{"_\bN_\bA é\bé", "NA é"},
		{"N\b_A\b_", "NA"},
		{"\bx\b", "x"},
		{"pas\x1b[bword", "password"},
	} {
		var p Plain
		if got := p.Text(c.shown); got != c.want {
			t.Errorf("%q: %q, want %q", c.shown, got, c.want)
		}
	}
}

// Whatever a session writes, what is shown holds no sequence but those that
// are let through, and what they leave is the same when it passes again.
func FuzzSafe(f *testing.F) {
	for _, s := range []string{"\x1b[31mred\x1b[m", "\x1b]52;c;eA==\x07", "\x1bP1$r\x1b\\", "\u009b6n", "a\x1b[?1049hb\x18"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var once, twice Filter
		shown := once.Safe(s)
		if !utf8.ValidString(shown) {
			t.Fatalf("%q", shown)
		}
		if again := twice.Safe(shown); again != shown {
			t.Fatalf("%q became %q", shown, again)
		}
		for i, part := range strings.Split(shown, "\x1b") {
			if i > 0 && (part == "" || !strings.ContainsRune("[78DEM", rune(part[0]))) {
				t.Fatalf("%q", shown)
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add(string(Header{Version: 2, Width: 80, Height: 24}.Bytes()) + "[1.5, \"o\", \"x\"]\n")
	f.Add("{}")
	f.Fuzz(func(t *testing.T, s string) {
		h, events, err := Read(strings.NewReader(s))
		if err != nil {
			return
		}
		text := string(h.Bytes())
		for _, e := range events {
			text += string(e.Bytes())
		}
		if _, again, err := Read(strings.NewReader(text)); err != nil || len(again) != len(events) {
			t.Fatalf("%v: %q", err, text)
		}
	})
}
