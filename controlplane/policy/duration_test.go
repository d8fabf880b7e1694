package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"curfew.internal/grant"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s":        0,
		"90s":       90 * time.Second,
		"90m":       90 * time.Minute,
		"4h":        4 * time.Hour,
		"1h30m":     90 * time.Minute,
		"1d2h3m4s":  26*time.Hour + 3*time.Minute + 4*time.Second,
		"7d":        7 * 24 * time.Hour,
		"30d":       grant.MaxDuration,
		"720h":      grant.MaxDuration,
		"29d23h60m": grant.MaxDuration,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestParseDurationRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                      "",
		"a number without its unit":    "4",
		"a unit without its number":    "h",
		"a sign":                       "-4h",
		"a plus":                       "+4h",
		"a sign inside":                "1h-30m",
		"a fraction":                   "1.5h",
		"an exponent":                  "1e9h",
		"not a number":                 "NaN",
		"for ever":                     ".inf",
		"white space":                  "4 h",
		"white space around":           " 4h",
		"a line break":                 "4h\n",
		"an underscore":                "1_0h",
		"another base":                 "0x1h",
		"other digits":                 "４h",
		"a unit twice":                 "1h1h",
		"the small unit first":         "30m1h",
		"a unit that is not ours":      "1w",
		"milliseconds":                 "1ms",
		"capitals":                     "4H",
		"one second over the longest":  "30d1s",
		"parts that are too long":      "29d25h",
		"more than 63 bits of it":      "9223372036854775808s",
		"what overflows to little":     "213503982334602d",
		"a text that goes on and on":   strings.Repeat("1h", 1000),
		"digits that go on and on":     strings.Repeat("0", 1000) + "1h1",
		"a terminal's escape sequence": "\x1b[2J",
	} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%s: %q is %v", name, text, got)
		} else if s := err.Error(); len(s) > 200 || strings.ContainsAny(s, "\n\x1b") {
			t.Errorf("%s: the error carries what it refuses: %q", name, s)
		}
	}
}

// What is written in its parts is read as their sum, and never as more than a
// grant can last.
func TestParseDurationSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, h := rapid.IntRange(0, 40).Draw(t, "d"), rapid.IntRange(0, 1000).Draw(t, "h")
		m, s := rapid.IntRange(0, 100000).Draw(t, "m"), rapid.IntRange(0, 10000000).Draw(t, "s")
		want := time.Duration(d)*24*time.Hour + time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
		got, err := ParseDuration(fmt.Sprintf("%dd%dh%dm%ds", d, h, m, s))
		if want > grant.MaxDuration {
			if err == nil {
				t.Fatalf("%v for %v", got, want)
			}
			return
		}
		if err != nil || got != want {
			t.Fatalf("%v, %v for %v", got, err, want)
		}
	})
}
