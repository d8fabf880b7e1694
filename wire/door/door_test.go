package door

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// A vector is a file of testdata/index.txt, which the C tests read too.
type vector struct {
	file, form string
	ok         bool
}

func index(t *testing.T) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/index.txt")
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line)
		if len(w) < 4 || w[1] != "question" && w[1] != "reply" || w[2] != "yes" && w[2] != "no" {
			t.Fatalf("index: %q", line)
		}
		vs = append(vs, vector{w[0], w[1], w[2] == "yes"})
	}
	return vs
}

var (
	questions = map[string]Question{
		"question.bin": {Kind: Open, Service: "sudo", User: "root", RUser: "ana", TTY: "/dev/pts/0", RHost: "10.0.0.7"},
		"account.bin":  {Kind: Account, Service: "sshd", User: "ana", TTY: "ssh"},
	}
	replies = map[string]Reply{
		"allow.bin":    {Verdict: Allow},
		"deny.bin":     {Message: "curfew: your grant ended 14:02 UTC"},
		"stranger.bin": {Verdict: Stranger},
		"full.bin":     {Message: strings.Repeat("x", 255)},
	}
)

// written is what each file holds.
func written(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for name, q := range questions {
		b, err := q.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
	}
	for name, r := range replies {
		files[name] = r.Bytes()
	}
	spoil := func(name, from string, how func([]byte) []byte) { files[name] = how(bytes.Clone(files[from])) }
	set := func(at int, c byte) func([]byte) []byte { return func(b []byte) []byte { b[at] = c; return b } }
	fill := func(from, to int) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[from:to], bytes.Repeat([]byte{'x'}, to-from)); return b }
	}
	less := func(b []byte) []byte { return b[:len(b)-1] }
	more := func(b []byte) []byte { return append(b, 0) }
	spoil("question-magic.bin", "question.bin", set(3, '2'))
	spoil("question-kind.bin", "question.bin", set(4, 9))
	spoil("question-flags.bin", "question.bin", set(8, 1))
	spoil("question-short.bin", "question.bin", less)
	spoil("question-long.bin", "question.bin", more)
	spoil("question-escape.bin", "question.bin", set(44, 0x1b))
	spoil("question-unended.bin", "question.bin", fill(44, 108))
	spoil("question-behind.bin", "question.bin", set(107, 'x'))
	spoil("reply-magic.bin", "allow.bin", set(3, '2'))
	spoil("reply-short.bin", "allow.bin", less)
	spoil("reply-long.bin", "allow.bin", more)
	spoil("reply-escape.bin", "allow.bin", set(8, 0x1b))
	spoil("reply-unended.bin", "allow.bin", fill(8, 264))
	spoil("reply-behind.bin", "allow.bin", set(263, 'x'))
	return files
}

// The C tests of the PAM module read the same files.
func TestGolden(t *testing.T) {
	files := written(t)
	for _, v := range index(t) {
		t.Run(v.file, func(t *testing.T) {
			if *update {
				if err := os.WriteFile("testdata/"+v.file, files[v.file], 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile("testdata/" + v.file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, files[v.file]) {
				t.Errorf("holds %x, want %x", b, files[v.file])
			}
			q, qerr := ParseQuestion(b)
			r, rerr := ParseReply(b)
			if (qerr == nil) != (v.ok && v.form == "question") || (rerr == nil) != (v.ok && v.form == "reply") {
				t.Errorf("question: %v, reply: %v", qerr, rerr)
			}
			if diff := cmp.Diff(questions[v.file], q); diff != "" {
				t.Errorf("question (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(replies[v.file], r); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
		})
		delete(files, v.file)
	}
	if len(files) > 0 {
		t.Errorf("not in the index: %v", slices.Sorted(maps.Keys(files)))
	}
}

func TestAQuestionIsRefusedBeforeItIsSent(t *testing.T) {
	for name, q := range map[string]Question{
		"no kind":       {},
		"a long name":   {Kind: Account, User: strings.Repeat("x", 64)},
		"a NUL":         {Kind: Account, User: "a\x00b"},
		"an escape":     {Kind: Account, TTY: "\x1b[2J"},
		"a long origin": {Kind: Account, RHost: strings.Repeat("x", 256)},
	} {
		t.Run(name, func(t *testing.T) {
			if b, err := q.Bytes(); !errors.Is(err, ErrForm) {
				t.Errorf("written as %x, %v", b, err)
			}
		})
	}
}

// A line that cannot be shown must not turn a yes into a no.
func TestALineNeverCostsTheVerdict(t *testing.T) {
	for message, want := range map[string]string{
		"a\nb": "a?b", "a\x00b": "a?b", "\x1b[2J": "?[2J", "\x7f": "?", "søster": "søster",
		strings.Repeat("y", 300): strings.Repeat("y", 255),
	} {
		r, err := ParseReply(Reply{Verdict: Allow, Message: message}.Bytes())
		if diff := cmp.Diff(Reply{Verdict: Allow, Message: want}, r); err != nil || diff != "" {
			t.Errorf("%q: %v %s", message, err, diff)
		}
	}
}

func TestNothingIsPermittedByDefault(t *testing.T) {
	if (Reply{}).Verdict != Deny || Deny == Allow || Deny == Stranger {
		t.Error("the zero verdict permits something")
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"question", "account", "allow", "deny", "reply-behind", "question-escape"} {
		b, err := os.ReadFile(fmt.Sprintf("testdata/%s.bin", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := ParseQuestion(b)
		if err != nil && q != (Question{}) {
			t.Errorf("%+v beside %v", q, err)
		}
		if err == nil {
			if again, err := q.Bytes(); err != nil || !bytes.Equal(b, again) {
				t.Errorf("%x is written as %x", b, again)
			}
		}
		r, err := ParseReply(b)
		if err != nil && r != (Reply{}) {
			t.Errorf("%+v beside %v", r, err)
		}
		if err == nil && !bytes.Equal(b, r.Bytes()) {
			t.Errorf("%x is written as %x", b, r.Bytes())
		}
	})
}
