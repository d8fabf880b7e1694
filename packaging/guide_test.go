package packaging

import (
	"path/filepath"
	"testing"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
)

// TestGuide types what the pages say, in their order, on hosts that have
// nothing of ours but the packages.
func TestGuide(t *testing.T) {
	need.Nspawn(t)
	need.Program(t, "dpkg-deb", "gcc", "objdump")
	var dist []lab.File
	for _, f := range packages(t, present(t, "0.9.2"), "*_amd64.deb") {
		dist = append(dist, lab.File{Path: "/root/dist/" + filepath.Base(f), From: f, Mode: 0o644})
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
	w := &town{hosts: map[string]*lab.Host{}, people: []string{"ana", "ben", "cleo"}, seen: map[string]string{}}
	for name, suite := range map[string]string{
		"plane": lab.Trixie, "db1": lab.Bookworm, "web1": lab.Trixie, "web2": lab.Cloud, "web4": lab.Trixie, "image": lab.Cloud, "laptop": lab.Bookworm,
	} {
		if w.hosts[name], err = l.HostOf(t.Context(), suite, name, dist...); err != nil {
			t.Fatal(err)
		}
	}
	w.settle(t)
	for _, page := range []string{
		"docs/quickstart.md",
		"docs/join.md",
	} {
		if !t.Run(page, func(t *testing.T) { w.follow(t, page) }) {
			for _, h := range []string{"plane", "db1"} {
				out, _ := w.hosts[h].Sh(t.Context(), "journalctl --no-pager -n 40 -u 'curfew*' -u ssh")
				t.Log(h, out)
			}
			return // the next page stands on it
		}
	}
}
