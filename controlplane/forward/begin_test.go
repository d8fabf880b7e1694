package forward

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBeginNow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	s := newShelf(5)
	target := Target{Form: FormOCSF, To: "file://" + file, Begin: BeginNow}
	s.forward(t, target)
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was there before was sent: %v", err)
	}
	s.add(1)
	s.forward(t, target)
	b, err := os.ReadFile(file)
	if err != nil || strings.Count(string(b), "\n") != 1 || !strings.Contains(string(b), "restart 6") {
		t.Errorf("%s, %v", b, err)
	}
}
