package keep

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"curfew.internal/ledger"
)

// The last segment stays where it was sent as well: it says where numbers go on.
// Were it held against the quota, nothing would be written any more.
func TestWhatWasSentTakesNoRoom(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	for name, c := range map[string]Config{
		"sealed, of next to nothing": {Quota: 2000, Key: key},
		"sealed":                     {Quota: 1 << 20, Key: key},
		"without seals":              {Quota: 2 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			c.Dir, c.Clock, c.Fleet, c.Host = t.TempDir(), &ready{}, "example", "db1"
			o := openBox(t, c)
			o.setRunning(true) // so that nobody waits for the disk
			receipt := ledger.Entry{Kind: ledger.Removed, Receipt: bytes.Repeat([]byte("r"), 40<<10)}
			for o.pendingBytes < 4<<20 {
				o.mu.Lock()
				taken, _ := o.put(receipt)
				o.mu.Unlock()
				if !taken {
					t.Fatal("a receipt is not taken, and memory has room")
				}
			}
			o.sealNow()
			for range 20 {
				if err := o.commit(); err == nil {
					break
				}
				if err := o.Kept(o.sendable(), false); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(o.pending); n > 0 {
				t.Errorf("all was sent, and %d entries still find no room", n)
			}
			if err := o.Kept(o.sendable(), false); err != nil {
				t.Fatal(err)
			}
			o.setRunning(false)
			if err := o.Append(entry(1)); err != nil || o.Writing() != nil {
				t.Errorf("with all sent, what goes first finds no room: %v, %v", err, o.Writing())
			}
		})
	}
}
