package vm

import (
	"errors"
	"path/filepath"
	"testing"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
	"curfew.internal/test/vagrant"
)

// provisioned does what the Vagrantfile asks for, on three guests. In CI,
// containers are provisioned (packaging).
func provisioned(t *testing.T) {
	tools(t)
	need.Program(t, "ruby")
	out := t.TempDir()
	do(t, "../../packaging/build.sh", out)
	debs, err := filepath.Glob(filepath.Join(out, "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, d := range debs {
		files["vagrant/dist/"+filepath.Base(d)] = d
	}
	l, err := lab.New(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	var guests []*Guest
	t.Cleanup(func() {
		for _, g := range guests {
			err = errors.Join(err, g.PowerOff())
		}
		if err := errors.Join(err, l.Close()); err != nil {
			t.Error(err)
		}
	})
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	err = vagrant.Up(t.Context(), repo, func(name string) (vagrant.Machine, string, error) {
		g, err := New(t.Context(), l, name, Kind{Suite: lab.Bookworm, Kernel: versions[0], LSM: true, Files: files})
		if err != nil {
			return nil, "", err
		}
		guests = append(guests, g)
		return g, g.address, g.Start(t.Context())
	})
	if err != nil {
		t.Fatal(err)
	}
}
