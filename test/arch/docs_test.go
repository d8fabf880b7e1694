package arch

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	mention = regexp.MustCompile(`docs/[a-z0-9/-]+\.md`)
	target  = regexp.MustCompile("`make ([a-z]+)`")
)

// A page that points to nothing sends its reader away.
func TestLinksInDocsLeadSomewhere(t *testing.T) {
	root := os.DirFS("../..")
	makefile, err := fs.ReadFile(root, "Makefile")
	if err != nil {
		t.Fatal(err)
	}
	eachText(t, root, func(name, text string) {
		if path.Ext(name) == ".md" {
			for _, m := range link.FindAllStringSubmatch(text, -1) {
				to, _, _ := strings.Cut(m[1], "#")
				if to == "" || strings.Contains(to, "://") {
					continue
				}
				if _, err := fs.Stat(root, path.Join(path.Dir(name), to)); err != nil {
					t.Errorf("%s links to %s, which is not there", name, m[1])
				}
			}
			for _, m := range target.FindAllStringSubmatch(text, -1) {
				if !strings.Contains(string(makefile), "\n"+m[1]+":") {
					t.Errorf("%s speaks of `make %s`, which is not there", name, m[1])
				}
			}
		}
		for _, to := range mention.FindAllString(text, -1) {
			if _, err := fs.Stat(root, to); err != nil {
				t.Errorf("%s speaks of %s, which is not there", name, to)
			}
		}
	})
}

func eachText(t *testing.T, root fs.FS, each func(name, text string)) {
	t.Helper()
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata" || name == "test/arch") {
			return fs.SkipDir
		}
		switch path.Ext(name) {
		case ".md", ".go", ".c", ".h", ".sh", ".proto", ".yaml", ".yml", ".service", ".conf":
		default:
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		each(name, string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
