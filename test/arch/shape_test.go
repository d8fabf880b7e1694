package arch

import (
	"bytes"
	"go/ast"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
)

const (
	maxLines     = 500 // of a file, comments and blank lines not counted
	maxMainLines = 100
)

func TestFilesAreShort(t *testing.T) {
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin") {
			return fs.SkipDir
		}
		switch path.Ext(name) {
		case ".go", ".c", ".h", ".sh":
		default:
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		if generated(name, text) {
			return nil
		}
		if n := lines(text); n > maxLines {
			t.Errorf("%s has %d lines: cut it into parts with one subject each", name, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMainsHoldNoLogic(t *testing.T) {
	for _, s := range sources(t) {
		if n := lines(s.text); below(s.dir, "cmd") && path.Base(s.name) == "main.go" && n > maxMainLines {
			t.Errorf("%s has %d lines: flags, config, one call to Run", s.name, n)
		}
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	docs := map[string]string{}
	for _, s := range sources(t) {
		if generated(s.name, s.text) && docs[s.dir] == "" {
			docs[s.dir] = "generated" // its proto or C file speaks for it
		}
		if !generated(s.name, s.text) {
			docs[s.dir] = strings.TrimPrefix(docs[s.dir], "generated") + text(s.ast.Doc)
		}
	}
	for dir, doc := range docs {
		if doc == "" {
			t.Errorf("%s has no package comment: say what it is for, and what it refuses", dir)
		}
	}
}

// No word of the law: names that say nothing of what lies behind them.
func TestNamesSaySomething(t *testing.T) {
	for _, s := range sources(t) {
		switch path.Base(s.dir) {
		case "util", "utils", "common", "helpers", "helper", "manager", "base", "misc", "shared":
			t.Errorf("%s: name the folder for what it is for", s.dir)
		}
	}
}

func text(c *ast.CommentGroup) string {
	if c == nil {
		return ""
	}
	return c.Text()
}

func generated(name string, text []byte) bool {
	return strings.HasSuffix(name, "_bpfel.go") || bytes.Contains(text[:min(len(text), 2048)], []byte("\n// Code generated "))
}

// lines counts the lines that are neither blank nor comment alone.
func lines(text []byte) int {
	n, block := 0, false
	for line := range bytes.Lines(text) {
		s := strings.TrimSpace(string(line))
		switch {
		case block:
			block = !strings.Contains(s, "*/")
		case strings.HasPrefix(s, "/*"):
			block = !strings.Contains(s, "*/")
		case s == "" || strings.HasPrefix(s, "//"):
		default:
			n++
		}
	}
	return n
}
