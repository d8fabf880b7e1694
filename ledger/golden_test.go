package ledger

import (
	"bytes"
	"crypto/ed25519"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func ended() Receipt {
	return Receipt{
		Fleet: "example", Host: "db1", Boot: "b", Grant: "g-abcdefghijklmnop", Person: "ana", Why: "time",
		EndedAt: noon, DoneAt: noon.Add(time.Second), Removed: []string{"sudo rule"}, Killed: 3, Looked: []string{"processes"},
	}
}

func looked() LeftoversReceipt {
	return LeftoversReceipt{
		Fleet: "example", Host: "db1", Boot: "b", Grant: "g-abcdefghijklmnop", Person: "ana", Since: noon, DoneAt: noon.Add(time.Hour),
		Removed: []string{"setuid /tmp/sh"}, Left: []string{"authorized-keys /root/.ssh/authorized_keys"}, Looked: []string{"/tmp"},
		Skipped: []string{"/mnt (nfs4)"},
	}
}

// Golden vectors: what a host signed once reads the same for ever.
func TestGolden(t *testing.T) {
	host := key("host")
	for name, b := range map[string][]byte{"receipt.bin": ended().Seal(host), "leftovers.bin": looked().Seal(host), "seal.bin": aSeal().Sign(host)} {
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, b); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestLeftoversReceipt(t *testing.T) {
	host := key("host")
	public := host.Public().(ed25519.PublicKey)
	sealed := looked().Seal(host)
	got, err := OpenLeftovers(sealed, public)
	if diff := cmp.Diff(looked(), got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := OpenLeftovers(ended().Seal(host), public); err == nil {
		t.Error("the receipt of an end passed for one of leftovers")
	}
	if _, err := OpenReceipt(sealed, public); err == nil {
		t.Error("a receipt for leftovers passed for that of an end")
	}
	if _, err := OpenLeftovers(sealed, key("other").Public().(ed25519.PublicKey)); err == nil {
		t.Error("another host's key vouched for it")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := OpenLeftovers(bad, public); err == nil {
			t.Fatalf("byte %d changed, and it was taken", i)
		}
	}
}
