package roster

import (
	"testing"

	"golang.org/x/text/unicode/norm"
)

func TestLettersAreTheSameHoweverTheyWereWritten(t *testing.T) {
	for text, want := range map[string]string{
		"Grep":                "grep",
		"CAFÉ zürich":         "café zürich",
		"\u1e96":              "\u1e96", // its capital has no composed form
		"H\u0331":             "\u1e96",
		"\u0130":              "i", // a capital I with a dot
		"한국":                  "한국",
		"a\u0323\u0307":       "\u1ea1\u0307",
		"\u212b":              "å", // the sign for Ångström
		"\xff no text \u0301": "\ufffd no text \u0301",
	} {
		for form, written := range map[string]string{"as it stands": text, "composed": norm.NFC.String(text), "decomposed": norm.NFD.String(text)} {
			if got := Letters(written); got != want {
				t.Errorf("%q %s: %q, want %q", text, form, got, want)
			}
		}
	}
}
