package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSpellingsAreOneProgram(t *testing.T) {
	h := &Host{Root: t.TempDir()}
	for name, mode := range map[string]os.FileMode{"usr/bin/id": 0o755, "usr/bin/rm": 0o755, "usr/bin/text": 0o644} {
		if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.path(name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr/bin", h.path("bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(h.path("usr/bin/id"), h.path("usr/bin/id2")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ typed, same []string }{
		"two names of one folder":         {[]string{"/usr/bin/id", "/bin/id"}, []string{"/usr/bin/id", "/bin/id"}},
		"a hard link":                     {[]string{"/usr/bin/id2", "/usr/bin/id"}, []string{"/usr/bin/id2", "/usr/bin/id"}},
		"another program beside it":       {[]string{"/usr/bin/rm", "/usr/bin/id", "/bin/rm"}, []string{"/usr/bin/rm", "/bin/rm"}},
		"one that is not there beside it": {[]string{"/usr/bin/id", "/sbin/id"}, []string{"/usr/bin/id"}},
		"one that is not there":           {[]string{"/sbin/id", "/usr/bin/id"}, nil},
		"no program":                      {[]string{"/usr/bin/text"}, nil},
		"a folder":                        {[]string{"/usr/bin"}, nil},
		"a relative path":                 {[]string{"usr/bin/id"}, nil},
		"none":                            {nil, nil},
	} {
		if got := h.Spellings(c.typed); !slices.Equal(got, c.same) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
