package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What holds a group short is guarded, in it and in those above it; to move a
// process there is not refused.
func TestControlsOfAGroup(t *testing.T) {
	h := machine(t)
	top := h.path("sys/fs/cgroup")
	for _, name := range []string{"cgroup.procs", "a.slice/cgroup.procs", "a.slice/cgroup.freeze", "a.slice/b.scope/cgroup.threads", "a.slice/b.scope/pids.max"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(top, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := h.controls("a.slice/b.scope")
	if want := []string{filepath.Join(top, "a.slice/b.scope/pids.max"), filepath.Join(top, "a.slice/cgroup.freeze")}; !slices.Equal(got, want) {
		t.Errorf("guarded: %q, want %q", got, want)
	}
}
