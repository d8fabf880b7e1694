package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

var noon = time.Date(2027, 1, 31, 12, 0, 0, 123456789, time.UTC)

func key(seed string) ed25519.PrivateKey {
	s := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(s[:])
}

func example() Entry {
	return Entry{
		Kind: Exec, At: noon, Host: "db1", Boot: "b", Grant: "g-abcdefghijklmnop", Person: "ana", Approvers: []string{"ben"},
		Session: 1 << 63, SessionSeq: 3, Took: time.Second, Object: "tcp://[::1]:22", Since: noon.Add(-time.Second),
		Process: &Process{
			PID: 7, PPID: 1, IDs: IDs{0, 0, 0, 0, 1 << 40}, OldIDs: IDs{70000, 0, 70000, 0, 0}, Comm: "sh", Path: "/bin/sh",
			Argv: []string{"sh", "", "-c", "x"}, Cwd: "/", TTY: "pts/0", Device: 5, Inode: 9, Links: 1,
			Env: []string{"PATH=/bin"}, EnvCut: 9, Script: "/bin/which", Login: 70000,
		},
	}
}

func TestEntryReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := example()
		e.Kind = Kind(rapid.Uint32Range(1, uint32(WouldRefuse)).Draw(t, "kind"))
		e.Process.Argv = rapid.SliceOf(rapid.String()).Draw(t, "argv")
		e.Text = rapid.String().Draw(t, "text")
		e.Session = rapid.Uint64().Draw(t, "session")
		if rapid.Bool().Draw(t, "no process") {
			e.Process = nil
		}
		for _, s := range append([]string{e.Text}, argv(e)...) {
			if !bytes.Equal([]byte(s), bytes.ToValidUTF8([]byte(s), nil)) {
				t.Skip("not UTF-8: the builder of entries sees to that")
			}
		}
		got, err := ParseEntry(e.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func argv(e Entry) []string {
	if e.Process == nil {
		return nil
	}
	return e.Process.Argv
}

func TestKindsHaveNames(t *testing.T) {
	for k := Exec; k <= Witnessed; k++ {
		if KindNamed(k.String()) != k {
			t.Errorf("%d: %v", k, k)
		}
	}
}

func TestReceipt(t *testing.T) {
	r := Receipt{
		Fleet: "example", Host: "db1", Boot: "b", Grant: "g-abcdefghijklmnop", Person: "ana", Why: "time",
		EndedAt: noon, DoneAt: noon.Add(time.Second), Removed: []string{"sudo rule"}, Killed: 3, Looked: []string{"processes"},
	}
	host := key("host")
	sealed := r.Seal(host)
	got, err := OpenReceipt(sealed, host.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" || !got.Clean() {
		t.Error(diff)
	}
	if _, err := OpenReceipt(sealed, key("other").Public().(ed25519.PublicKey)); err == nil {
		t.Error("another host's key vouched for it")
	}
	if _, err := OpenReceipt(sealed, nil); err == nil {
		t.Error("no key vouched for it")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := OpenReceipt(bad, host.Public().(ed25519.PublicKey)); err == nil {
			t.Fatalf("byte %d changed, and it was taken", i)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add(example().Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		later, _ := canon.ReadLater(b, new(Entry).field)
		if err == nil && !later && !bytes.Equal(b, e.Bytes()) {
			t.Errorf("%x is written otherwise", b)
		}
	})
}

// A version after this one adds fields at the ends of messages.
func TestWordsOfALaterVersion(t *testing.T) {
	more := func(b []byte) []byte {
		var w canon.Writer
		w.Uint(99, 7)
		w.Text(100, "what comes after this version")
		return append(bytes.Clone(b), w.Bytes()...)
	}
	e := example()
	withProcess := func(process []byte) []byte {
		var w canon.Writer
		w.Uint(1, uint64(e.Kind))
		w.Nanos(2, e.At)
		w.Item(10, process)
		return w.Bytes()
	}
	ids := func() []byte {
		var w canon.Writer
		w.Uint(1, 4711)
		w.Blob(3, more(e.Process.IDs.bytes()))
		w.Text(5, e.Process.Comm)
		return w.Bytes()
	}
	for _, c := range []struct {
		name  string
		bytes []byte
		want  Entry
	}{
		{"an entry with more fields is read", more(e.Bytes()), e},
		{"a kind that is not known keeps its number", Entry{Kind: 4000, At: e.At}.Bytes(), Entry{Kind: 4000, At: e.At}},
		{"a process with more fields is read", withProcess(more(e.Process.bytes())), Entry{Kind: e.Kind, At: e.At, Process: e.Process}},
		{"ids with more fields are read, and what comes after them", withProcess(ids()), Entry{Kind: e.Kind, At: e.At, Process: &Process{PID: 4711, IDs: e.Process.IDs, Comm: e.Process.Comm}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseEntry(c.bytes)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("half a field is refused all the same", func(t *testing.T) {
		b := more(e.Bytes())
		if _, err := ParseEntry(b[:len(b)-1]); err == nil {
			t.Error("it was taken")
		}
	})
	t.Run("a receipt with more fields is a receipt", func(t *testing.T) {
		host := key("host")
		r := Receipt{Fleet: "example", Host: "db1", Grant: "g", Left: []string{"a process"}}
		got, err := OpenReceipt(dsse.Sign(ReceiptType, more(r.Bytes()), host).Bytes(), host.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Error(diff)
		}
	})
}
