package api

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/text/unicode/norm"

	"curfew.internal/controlplane/roster"
)

// No text is hidden from a search by what stands before it in its line, which
// has no end for as long as a program likes.
func TestWhatStandsFarBehindInALineIsFound(t *testing.T) {
	dots := strings.Repeat("é.", 150)
	for name, c := range map[string]struct {
		pieces []string
		found  []string // what each that is found begins with
	}{
		"a short line":                  {[]string{"$ cat x\nthe SECRET is\n"}, []string{"the SECRET is"}},
		"a line in pieces":              {[]string{"the SEC", "RET is", "\n"}, []string{"the SECRET is"}},
		"behind a long piece":           {[]string{strings.Repeat(dots, 20) + "Secret", "\n"}, []string{"Secret"}},
		"behind many pieces":            {append(strings.SplitAfter(strings.Repeat(dots, 20), "."), "secret!", dots, dots), []string{"secret!"}},
		"across two, behind many":       {append(strings.SplitAfter(strings.Repeat(dots, 20), "."), "sec", "ret"), []string{"secret"}},
		"byte for byte":                 {strings.Split(strings.Repeat(".", 9000)+"secret"+strings.Repeat(".", 9000), ""), []string{"secret."}},
		"twice in a line, and once":     {[]string{"secret secret\n", "x\n", "a secret\n"}, []string{"secret secret", "a secret"}},
		"a line's end is not in a text": {[]string{"sec\nret\n"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := finder{text: "secret"}
			for _, p := range c.pieces {
				f.look(time.Second, p)
			}
			f.look(time.Second, "\n")
			if len(f.found) != len(c.found) {
				t.Fatalf("found %v", f.found)
			}
			for i, want := range c.found {
				if got := f.found[i].Text; len(got) > maxLine || !strings.Contains(strings.ToLower(got), "secret") || !strings.HasPrefix(got, want) && !strings.HasPrefix(got, "é") && !strings.HasPrefix(got, ".") {
					t.Errorf("%q, want %q", got, want)
				}
			}
			if len(f.rest) > heldLine {
				t.Errorf("%d bytes are held", len(f.rest))
			}
		})
	}
}

// A text is found in whichever form of Unicode the terminal was given it, also by
// pieces, and however far behind in its line.
func TestATextIsFoundInEachFormOfItsLetters(t *testing.T) {
	const word = "Café-Zürich"
	for _, asked := range []string{word, norm.NFD.String(word)} {
		for _, given := range []string{word, norm.NFD.String(word), strings.ToUpper(norm.NFD.String(word))} {
			for _, before := range []string{"$ ", strings.Repeat(norm.NFD.String("é"), 3*heldLine)} {
				f := finder{text: roster.Letters(asked)}
				for _, letter := range before + given {
					f.look(time.Second, string(letter))
				}
				f.look(time.Second, "!\n")
				if len(f.found) != 1 || !strings.Contains(roster.Letters(f.found[0].Text), roster.Letters(word)) {
					t.Errorf("%+q, behind %d bytes, by %+q: %v", given, len(before), asked, f.found)
				}
			}
		}
	}
}

// The longest that can be asked for is found where it takes the most bytes.
func TestTheLongestTextIsFoundInItsLongestForm(t *testing.T) {
	asked := strings.Repeat("\u0390", maxLine/2) // an iota with two accents
	given := strings.Repeat("\u1fbe\u0308\u0301", maxLine/2)
	f := finder{text: roster.Letters(asked)}
	f.look(time.Second, strings.Repeat("x", heldLine-maxLine/2))
	for _, letter := range given {
		f.look(time.Second, string(letter))
	}
	f.look(time.Second, "\n")
	if len(f.found) != 1 {
		t.Errorf("%d found", len(f.found))
	}
}
