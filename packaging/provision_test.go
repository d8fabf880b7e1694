package packaging

import (
	"path/filepath"
	"testing"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
	"curfew.internal/test/vagrant"
)

// TestProvision does what the Vagrantfile asks for. test/vm does it, too.
func TestProvision(t *testing.T) {
	need.Nspawn(t)
	need.Program(t, "dpkg-deb", "gcc", "objdump", "ruby")
	var files []lab.File
	for _, f := range packages(t, present(t), "*_amd64.deb") {
		files = append(files, lab.File{Path: "/vagrant/dist/" + filepath.Base(f), From: f, Mode: 0o644})
	}
	l, err := lab.New(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	err = vagrant.Up(t.Context(), repository(t), func(name string) (vagrant.Machine, string, error) {
		h, err := l.Host(t.Context(), name, files...)
		if err != nil {
			return nil, "", err
		}
		return h, h.Address, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
