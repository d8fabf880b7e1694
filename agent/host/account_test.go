package host

import (
	"os"
	"testing"
)

// Whoever has our mark or a number of ours is managed, whatever the name: the
// door must not let her by as a stranger.
func TestManagedByMarkWhateverTheName(t *testing.T) {
	h := machine(t)
	for _, name := range []string{"_svc", "Ana.b", "ana", "root"} {
		must(t, os.WriteFile(h.path(managedDir, name), nil, 0o644))
		if ok, err := h.Managed(t.Context(), name); !ok || err != nil {
			t.Errorf("%s is a stranger: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "../managed/ana", "a\x00", "-V", "cfw-nobody"} {
		if ok, err := h.Managed(t.Context(), name); ok || err != nil {
			t.Errorf("%q is managed: %v", name, err)
		}
	}
}
