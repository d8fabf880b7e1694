package door

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	question = Question{Kind: Open, Service: "sudo", User: "root", RUser: "ana", TTY: "/dev/pts/0", RHost: "10.0.0.7"}
	allow    = Reply{Verdict: Allow}
	deny     = Reply{Message: "curfew: your grant ended 14:02 UTC"}
)

// The C tests of the PAM module read the same files.
func TestGolden(t *testing.T) {
	q, err := question.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"question.bin": q, "allow.bin": allow.Bytes(), "deny.bin": deny.Bytes()} {
		if *update {
			if err := os.WriteFile("testdata/"+name, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, b) {
			t.Errorf("%s: %x, want %x", name, b, want)
		}
	}
	got, err := ParseQuestion(q)
	if diff := cmp.Diff(question, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	r, err := ParseReply(deny.Bytes())
	if diff := cmp.Diff(deny, r); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestRefused(t *testing.T) {
	good, _ := question.Bytes()
	for name, spoil := range map[string]func([]byte) []byte{
		"short":               func(b []byte) []byte { return b[:len(b)-1] },
		"long":                func(b []byte) []byte { return append(b, 0) },
		"empty":               func([]byte) []byte { return nil },
		"another magic":       func(b []byte) []byte { b[3]++; return b },
		"an unknown kind":     func(b []byte) []byte { b[4] = 9; return b },
		"a flag":              func(b []byte) []byte { b[8] = 1; return b },
		"a text without end":  func(b []byte) []byte { copy(b[12:], strings.Repeat("x", 32)); return b },
		"bytes behind a text": func(b []byte) []byte { b[12+31] = 0; b[12+30] = 'x'; return b },
		"an escape":           func(b []byte) []byte { b[12] = 0x1b; return b },
	} {
		t.Run(name, func(t *testing.T) {
			if q, err := ParseQuestion(spoil(bytes.Clone(good))); !errors.Is(err, ErrForm) {
				t.Errorf("%+v, %v", q, err)
			}
		})
	}
	if _, err := (Question{User: strings.Repeat("x", 64)}).Bytes(); !errors.Is(err, ErrForm) {
		t.Error("a long name was cut")
	}
	if Verdict(0) != Deny {
		t.Error("the zero verdict permits something")
	}
}

func FuzzParse(f *testing.F) {
	q, _ := question.Bytes()
	f.Add(q)
	f.Add(allow.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := ParseQuestion(b); err == nil {
			if again, err := q.Bytes(); err != nil || !bytes.Equal(b, again) {
				t.Errorf("%x is written as %x", b, again)
			}
		}
		if r, err := ParseReply(b); err == nil && !bytes.Equal(b, r.Bytes()) {
			t.Errorf("%x is written as %x", b, r.Bytes())
		}
	})
}
