package terminal

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestMessagesReadBack(t *testing.T) {
	for _, m := range []any{
		&Login{Terminal: true, Term: "xterm"}, &Verdict{Go: Record, TTY: "/dev/pts/3"}, &Notice{Say: Resized}, &Question{PID: 7, Terminal: true},
		&Answer{Session: 1 << 63, Grant: "g-a", Person: "ana", Role: "ops", Boot: "b", Typed: true, Strict: true, Quota: 5}, &Answer{Refused: "no"},
	} {
		b, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(m).Elem()).Interface()
		if err := Decode(b, got); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: %+v %v", b, got, err)
		}
	}
}

func TestWhatIsNoMessageIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "half of one": `{"terminal":`, "a key that nobody knows": `{"terminal":true,"root":true}`, "two": `{} {}`,
		"another kind": `[]`, "a text for a flag": `{"terminal":"yes"}`, "too much": `{"term":"` + strings.Repeat("x", MaxMessage) + `"}`,
	} {
		var l Login
		if err := Decode([]byte(text), &l); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Encode(Login{Term: strings.Repeat("x", MaxMessage)}); !errors.Is(err, ErrForm) {
		t.Error("too much is written")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"session":1,"grant":"g-a"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Answer
		if Decode(b, &a) != nil {
			return
		}
		again, err := Encode(a)
		var same Answer
		if err == nil && (Decode(again, &same) != nil || a != same) {
			t.Fatalf("%q", b)
		}
	})
}
