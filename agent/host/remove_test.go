package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host/tree"
	"curfew.internal/grant"
)

const uid = grant.UIDMin + 7

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mount puts a folder of the test's own on a place below the test's root, and
// returns a file in it that has to live on.
func mount(t *testing.T, on string) (precious string) {
	t.Helper()
	precious = filepath.Join(t.TempDir(), "shadow")
	must(t, os.WriteFile(precious, []byte("x"), 0o600))
	must(t, os.MkdirAll(on, 0o755))
	must(t, unix.Mount(filepath.Dir(precious), on, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(on, unix.MNT_DETACH) })
	return precious
}

func TestARemovalStopsAtAMount(t *testing.T) {
	for name, c := range map[string]struct {
		on     string
		remove func(h *Host) error
	}{
		"in a home": {homeDir + "/cfw-ana/m", func(h *Host) error {
			return h.Apply(t.Context(), enforce.Step{Op: enforce.Remove, Thing: enforce.Thing{Kind: enforce.Home, Name: "cfw-ana"}})
		}},
		"on a home that is given": {homeDir + "/cfw-ana", func(h *Host) error {
			return h.Apply(t.Context(), enforce.Step{Op: enforce.Put, Content: "70007", Thing: enforce.Thing{Kind: enforce.Home, Name: "cfw-ana"}})
		}},
		"on a rule": {sudoersDir + "/g-x", func(h *Host) error {
			return h.Apply(t.Context(), enforce.Step{Op: enforce.Remove, Thing: enforce.Thing{Kind: enforce.SudoRule, Name: "g-x"}})
		}},
		"below /tmp": {"tmp/d/m", func(h *Host) error {
			must(t, os.Chown(h.path("tmp/d"), uid, uid))
			_, err := h.Clear(t.Context(), "cfw-ana", uid)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			precious := mount(t, h.path(c.on))
			if err := c.remove(h); !errors.Is(err, tree.ErrMounted) {
				t.Error(err)
			}
			if _, err := os.Stat(precious); err != nil {
				t.Errorf("what was mounted was deleted: %v", err)
			}
		})
	}
}

func TestAHomeIsGivenTwice(t *testing.T) {
	h := machine(t)
	s := enforce.Step{Op: enforce.Put, Thing: enforce.Thing{Kind: enforce.Home, Name: "cfw-ana"}, Content: "70007"}
	must(t, h.Apply(t.Context(), s))
	notes := h.path(homeDir, "cfw-ana", "notes")
	must(t, os.WriteFile(notes, nil, 0o600))
	must(t, h.Apply(t.Context(), s))
	if _, err := os.Stat(notes); err != nil {
		t.Error(err)
	}
}
