package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPlace(t *testing.T) {
	upper, root := t.TempDir(), t.TempDir()
	if err := errors.Join(
		os.MkdirAll(filepath.Join(root, "etc/sudoers.d"), 0o755),
		os.Chmod(filepath.Join(root, "etc/sudoers.d"), 0o750),
		os.MkdirAll(filepath.Join(root, "usr/lib"), 0o755),
		os.Symlink("usr/lib", filepath.Join(root, "lib")),
	); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		file File
		want string // in the error
		dir  os.FileMode
	}{
		{name: "a folder is as it is in the root", file: File{Path: "/etc/sudoers.d/a", Mode: 0o440}, dir: 0o750},
		{name: "again", file: File{Path: "/etc/sudoers.d/b", Mode: 0o440}, dir: 0o750},
		{name: "a new folder is for all to read", file: File{Path: "/opt/x/y", Mode: 0o777}, dir: 0o755},
		{name: "a file at the top", file: File{Path: "/a", Mode: 0o600}, dir: 0o755},
		{name: "a folder would hide a link of the root", file: File{Path: "/lib/x/y", Mode: 0o644}, want: "/lib is no folder"},
		{name: "a path that climbs", file: File{Path: "/etc/../../x", Mode: 0o644}, want: "not a clean path"},
		{name: "a path from nowhere", file: File{Path: "etc/x", Mode: 0o644}, want: "not a clean path"},
		{name: "a copy of nothing", file: File{Path: "/etc/x", From: "/none/such", Mode: 0o644}, want: "/none/such"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := place(upper, root, c.file)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, not %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(upper, c.file.Path)
			file, err := os.Stat(name)
			dir, derr := os.Stat(filepath.Dir(name))
			if err != nil || derr != nil || file.Mode().Perm() != c.file.Mode || dir.Mode().Perm() != c.dir {
				t.Errorf("%v %v %v %v", err, derr, file, dir)
			}
		})
	}
	if err := place(upper, root, File{Path: "/etc/link", Link: "../usr"}); err != nil {
		t.Error(err)
	}
	if to, err := os.Readlink(filepath.Join(upper, "etc/link")); err != nil || to != "../usr" {
		t.Errorf("link: %v %q", err, to)
	}
}

func TestUntil(t *testing.T) {
	looks := 0
	look := func() error {
		if looks++; looks < 3 {
			return errors.New("not yet")
		}
		return nil
	}
	if err := Until(t.Context(), "the third look", look); err != nil || looks != 3 {
		t.Errorf("%v after %d looks", err, looks)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Until(ctx, "nothing", func() error { return errors.New("still not") })
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "nothing: still not") {
		t.Errorf("%v", err)
	}
}

func TestNames(t *testing.T) {
	for text, ok := range map[string]bool{
		"passwd: files systemd\ngroup: files systemd\nshadow: files systemd\n": true,
		"passwd: files systemd\ngroup: files systemd\nshadow: files\n":         false,
		"passwd: files systemd\ngroup: files mysystemd\nshadow: systemd\n":     false,
		"": false,
	} {
		name := filepath.Join(t.TempDir(), "nsswitch.conf")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkNames(name); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
