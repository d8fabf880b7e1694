package keep

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestADamagedValueIsPutAside(t *testing.T) {
	f := Folder{Dir: t.TempDir()}
	for _, text := range []string{"", "garbage", "{\"a\":"} {
		if err := os.WriteFile(filepath.Join(f.Dir, "x.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		v := map[string]int{}
		if found, err := f.Load("x", &v); found || !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v, %v", text, found, err)
		}
		if found, err := f.Load("x", &v); found || err != nil {
			t.Errorf("%q, the second time: %v, %v", text, found, err)
		}
		if names, err := f.Names(); len(names) > 0 || err != nil {
			t.Errorf("%q: names %v, %v", text, names, err)
		}
	}
}
