package host

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"curfew.internal/test/need"
)

// documented: what docs/protocol/api.md tells to type makes a call, word for
// word.
func documented(t *testing.T, s *scene) {
	t.Helper()
	need.Program(t, "curl", "openssl")
	page, err := os.ReadFile("../../docs/protocol/api.md")
	if err != nil {
		t.Fatal(err)
	}
	script := regexp.MustCompile("(?s)```\n(dir=.*?)```").FindSubmatch(page)
	if script == nil {
		t.Fatal("docs/protocol/api.md has no script any more")
	}
	out, err := s.person(t, "mel").Shell(t.Context(), string(script[1]))
	if err != nil || !strings.Contains(out, `"name":"mel"`) {
		t.Errorf("%v %s", err, out)
	}
}
