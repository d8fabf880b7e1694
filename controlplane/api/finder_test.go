package api

import (
	"strings"
	"testing"
	"time"
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
