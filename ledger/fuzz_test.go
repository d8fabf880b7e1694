package ledger

import (
	"bytes"
	"testing"
)

func FuzzVerify(f *testing.F) {
	l := newLog()
	for i := range uint64(3) {
		l.tell(i+1, event(i+1))
	}
	whole := l.export(2, 1, 2, 3).Bytes()
	f.Add(whole)
	f.Add(l.export(0, 2).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Verify(b, Trust{Key: l.key})
		if len(r.Findings) == 0 && r.Asked != "a test" {
			t.Errorf("%x was taken", b)
		}
	})
}

func FuzzParseLeaf(f *testing.F) {
	f.Add(Leaf{Number: 1, Host: "db1", Outbox: "o", Seq: 2, Foreign: true, ReceiptKey: []byte{1}, Entry: []byte{2}}.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLeaf(b)
		if err == nil && !bytes.Equal(b, l.Bytes()) {
			t.Errorf("%x is written otherwise", b)
		}
	})
}
