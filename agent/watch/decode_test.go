package watch

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/bpf"
	"curfew.internal/ledger"
)

func bytesOf[T any](v T, n uintptr) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&v)), n)...)
}

func execRecord(argvLen uint32, texts ...string) []byte {
	var x bpf.WatchExec
	x.Head.Kind, x.Head.Session, x.Head.Seq, x.Head.BootNs = uint32(bpf.WatchKindEXEC), 7, 1, 1500
	x.ArgvLen = argvLen
	x.PathLen, x.CwdLen, x.NameLen, x.ArgvHere = uint16(len(texts[0])), uint16(len(texts[1])), uint16(len(texts[2])), uint16(len(texts[3]))
	copy(x.Process.Comm[:], "name")
	copy(x.Tty[:], "pts3")
	x.Dev = 8<<20 | 1
	b := bytesOf(x, unsafe.Offsetof(x.Text))
	for _, s := range texts {
		b = append(b, s...)
	}
	return b
}

func argvRecord(offset uint32, text string) []byte {
	var a bpf.WatchArgv
	a.Head.Kind, a.Head.Session, a.Head.Seq = uint32(bpf.WatchKindARGV), 7, 1
	a.Offset, a.Len = offset, uint32(len(text))
	return append(bytesOf(a, unsafe.Offsetof(a.Text)), text...)
}

func TestRecordsBecomeEntries(t *testing.T) {
	boot := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	want := func(cut uint64, text string, args ...string) ledger.Entry {
		return ledger.Entry{
			Kind: ledger.Exec, At: boot.Add(1500), Session: 7, SessionSeq: 1, Text: text,
			Process: &ledger.Process{Comm: "name", Path: "/p", Cwd: "/c", TTY: "pts/3", Device: 0x801, Argv: args, ArgvCut: cut},
		}
	}
	tests := []struct {
		name    string
		records [][]byte
		want    ledger.Entry
	}{
		{"argv in the record", [][]byte{execRecord(6, "/p", "/c", "/p", "a\x00b\x00\x00\x00")}, want(0, "", "a", "b", "", "")},
		{"another name was given", [][]byte{execRecord(2, "/p", "/c", "../p", "a\x00")}, want(0, "started as ../p", "a")},
		{"no argument at all", [][]byte{execRecord(0, "/p", "/c", "/p", "")}, want(0, "")},
		{"one empty argument", [][]byte{execRecord(1, "/p", "/c", "/p", "\x00")}, want(0, "", "")},
		{"bytes that are no UTF-8", [][]byte{execRecord(4, "/p", "/c", "/p", "\xff\xc3\xa9\x00")}, want(0, "", `\xffé`)},
		{"argv in pieces", [][]byte{argvRecord(0, "a\x00b"), argvRecord(3, "c\x00"), execRecord(5, "/p", "/c", "/p", "")}, want(0, "", "a", "bc")},
		{"the last piece is missing", [][]byte{argvRecord(0, "a\x00b"), execRecord(9, "/p", "/c", "/p", "")}, want(6, "", "a", "b")},
		{"a piece in the middle is missing", [][]byte{argvRecord(0, "a\x00b"), argvRecord(5, "x\x00"), execRecord(7, "/p", "/c", "/p", "")}, want(4, "", "a", "b")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDecoder()
			for i, r := range tt.records {
				e, whole, err := d.read(r, boot)
				if err != nil || whole != (i == len(tt.records)-1) {
					t.Fatalf("record %d: whole %v, %v", i, whole, err)
				}
				if whole {
					if diff := cmp.Diff(tt.want, e); diff != "" {
						t.Error(diff)
					}
				}
			}
			if len(d.argv) != 0 || d.held != 0 {
				t.Errorf("%d bytes are held", d.held)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(execRecord(2, "/p", "/c", "/p", "a\x00"))
	f.Add(argvRecord(0, "a\x00b"))
	var c bpf.WatchChange
	c.Head.Kind = uint32(bpf.WatchKindEXIT)
	f.Add(bytesOf(c, unsafe.Sizeof(c)))
	c.Head.Kind = uint32(bpf.WatchKindSETID)
	f.Add(bytesOf(c, unsafe.Sizeof(c)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, whole, err := newDecoder().read(b, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		if err != nil && whole {
			t.Error("an error and an entry")
		}
		if !whole {
			return
		}
		for _, s := range append([]string{e.Process.Path, e.Process.Cwd, e.Process.TTY, e.Process.Comm, e.Text}, e.Process.Argv...) {
			if !utf8.ValidString(s) {
				t.Errorf("%q is no text", s)
			}
		}
		if back, err := ledger.ParseEntry(e.Bytes()); err != nil || back.Session != e.Session {
			t.Errorf("the entry does not survive its bytes: %v", err)
		}
	})
}

func TestARefusalSaysOfWhat(t *testing.T) {
	for act, want := range map[uint32]string{
		uint32(bpf.GuardActBPF): "the kernel refused bpf()", uint32(bpf.GuardActMOUNT): "the kernel refused to change the mounts that guarded files are reached by",
		99: "the kernel refused act 99",
	} {
		c := bpf.WatchChange{Head: bpf.WatchHead{Kind: uint32(bpf.WatchKindREFUSED), Session: 7, Seq: 1}, Process: bpf.WatchProcess{Pid: 42}, Code: act}
		e, whole, err := newDecoder().read(bytesOf(c, unsafe.Sizeof(c)), time.Unix(0, 0))
		if err != nil || !whole || e.Kind != ledger.Refused || e.Text != want || e.Process.PID != 42 || e.Process.ExitCode != 0 {
			t.Errorf("%d: %+v %v %v", act, e, whole, err)
		}
	}
}

// Whatever the arguments are, an entry of them stays below what the outbox
// takes, and says how much is not in it.
func TestArgumentsThatHaveNoRoom(t *testing.T) {
	for _, tt := range []struct {
		name  string
		argv  string
		words int
		left  uint64
	}{
		{"as many as the kernel takes of a process with the usual limits", strings.Repeat(strings.Repeat("x", 99_999)+"\x00", 20), 20, 0},
		{"bytes that are no text take four times the room", strings.Repeat(strings.Repeat("\xff", 99_999)+"\x00", 20), 6, 1_400_000},
		{"a short one behind those that have none", strings.Repeat(strings.Repeat("x", 99_999)+"\x00", 27) + "y\x00", 26, 100_002},
		{"more empty ones than there is room for", strings.Repeat("\x00", 400_000), 327_680, 72_320},
	} {
		words, cut := split([]byte(tt.argv))
		if e := (ledger.Entry{Process: &ledger.Process{Argv: words}}).Bytes(); len(words) != tt.words || cut != tt.left || len(e) > roomForArgv {
			t.Errorf("%s: %d words, %d bytes cut, an entry of %d", tt.name, len(words), cut, len(e))
		}
	}
}
