package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLabelsThatAreExpected(t *testing.T) {
	for _, c := range []struct {
		name, file string
		given      map[string]string
		want       map[string]string
		err        string
	}{
		{"comments and empty lines say nothing", "# of the image\n\ntier=db\n zone=b \n", nil, map[string]string{"tier": "db", "zone": "b"}, ""},
		{"the command line adds to the file", "tier=db\n", map[string]string{"zone": "b"}, map[string]string{"tier": "db", "zone": "b"}, ""},
		{"the command line does not win over the file", "tier=db\n", map[string]string{"tier": "web"}, nil, "tier is db in"},
		{"a line that is none names its place", "tier=db\nzone\n", nil, nil, ":2: write KEY=VALUE"},
		{"a key with two values is a mistake", "tier=db\ntier=web\n", nil, nil, ":2: write KEY=VALUE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "labels")
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := expected(c.given, file)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("%v", err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
