package folder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/controlplane/policy"
)

const small = `roles:
  ops:
    all_hosts: true
    max_duration: 1h
    approval: none
eligible:
  - {role: ops, people: [ana]}
`

func made(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What nobody could read to the end is a mistake, and is not opened.
func TestOddFilesAreMistakes(t *testing.T) {
	for name, odd := range map[string]func(file string) error{
		"a pipe":             func(f string) error { return unix.Mkfifo(f, 0o600) },
		"a link to a pipe":   func(f string) error { return unixLink(f, func(to string) error { return unix.Mkfifo(to, 0o600) }) },
		"a link to a device": func(f string) error { return os.Symlink("/dev/zero", f) },
		"too long": func(f string) error {
			return os.WriteFile(f, []byte(strings.Repeat("#", policy.MaxBytes+10)), 0o600)
		},
	} {
		dir := made(t)
		if err := odd(filepath.Join(dir, "x.yaml")); err != nil {
			t.Fatal(err)
		}
		p, problems, err := Read(os.DirFS(dir))
		if err != nil || policy.Holds(problems) || len(p.Roles) > 0 || problems[len(problems)-1].File == "" {
			t.Errorf("%s: %v, %v, %v", name, p, problems, err)
		}
	}
}

func unixLink(file string, make func(string) error) error {
	to := file + ".target"
	if err := make(to); err != nil {
		return err
	}
	return os.Symlink(to, file)
}

func TestWhatAFolderHolds(t *testing.T) {
	dir := made(t)
	for name, text := range map[string]string{".b.yaml": "{", "b.yaml~": "{", "notes.txt": "{"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "c.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	// As volumes of containers have them.
	if err := unixLink(filepath.Join(dir, "d.yaml"), func(to string) error { return os.WriteFile(to, []byte("groups: {dba: [ana]}\n"), 0o600) }); err != nil {
		t.Fatal(err)
	}
	if p, problems, err := Read(os.DirFS(dir)); err != nil || !policy.Holds(problems) || len(p.Roles) != 1 || len(p.Groups) != 1 {
		t.Errorf("%v, %v, %v", p, problems, err)
	}
	if _, problems, err := Read(os.DirFS(t.TempDir())); err != nil || policy.Holds(problems) {
		t.Errorf("an empty folder holds: %v, %v", problems, err)
	}
	if _, _, err := Read(os.DirFS(filepath.Join(dir, "nowhere"))); err == nil {
		t.Error("no folder holds")
	}
}
