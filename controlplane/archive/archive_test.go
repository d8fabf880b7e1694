package archive

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"curfew.internal/test/disk"
)

func packed(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDataIsKeptByItsDigest(t *testing.T) {
	f := Folder{Dir: filepath.Join(t.TempDir(), "kept")}
	data := []byte("what a terminal showed")
	sum := sha256.Sum256(data)
	for range 2 { // the same again changes nothing
		if got, err := f.Put(sum[:], packed(t, data)); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%q %v", got, err)
		}
	}
	if got, err := f.Get(sum[:]); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%q %v", got, err)
	}
	for range 2 { // what is gone is gone
		if err := f.Remove(sum[:]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Get(sum[:]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after its end: %v", err)
	}
	if err := os.WriteFile(f.file(sum[:]), packed(t, []byte("something else")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Get(sum[:]); !errors.Is(err, ErrDigest) {
		t.Errorf("what was changed is read: %v", err)
	}
}

func TestWhatIsNotItsDigestIsNotKept(t *testing.T) {
	f := Folder{Dir: t.TempDir()}
	sum := sha256.Sum256([]byte("one"))
	large := make([]byte, MaxData+1)
	largeSum := sha256.Sum256(large)
	for name, c := range map[string]struct{ digest, data []byte }{
		"other data": {sum[:], packed(t, []byte("two"))}, "not packed": {sum[:], []byte("one")}, "half of it": {sum[:], packed(t, []byte("one"))[:12]},
		"no digest": {nil, packed(t, []byte("one"))}, "a path for a digest": {[]byte("../../../../../../etc/passwd"), packed(t, nil)},
		"more than may be": {largeSum[:], packed(t, large)},
	} {
		if _, err := f.Put(c.digest, c.data); err == nil {
			t.Errorf("%s is kept", name)
		}
	}
	if all, err := filepath.Glob(filepath.Join(f.Dir, "*", "*")); err != nil || len(all) != 0 {
		t.Errorf("%v %v", all, err)
	}
}

// Whoever handed data in does not have it any more: after a loss of power it is
// there, on a disk that the database is not on as well.
func TestDataOutlivesALossOfPower(t *testing.T) {
	d := disk.New(t, 16)
	data := []byte("what a terminal showed")
	sum := sha256.Sum256(data)
	if _, err := (Folder{Dir: d.Path("kept")}).Put(sum[:], packed(t, data)); err != nil {
		t.Fatal(err)
	}
	d.Cut(t)
	d.Off(t)
	d.On(t)
	if got, err := (Folder{Dir: d.Path("kept")}).Get(sum[:]); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%q, %v", got, err)
	}
}
