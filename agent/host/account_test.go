package host

import (
	"fmt"
	"io/fs"
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

// A directory of the site's may number its people as we do: they are not ours.
func TestAnAccountOfAnotherDirectoryIsAStranger(t *testing.T) {
	h := machine(t)
	put(t, h, "etc/passwd", "ldap:x:200007:200007::/home/ldap:/bin/sh\nnear:x:70009:70009::/run/curfew/homeless:/bin/sh\n"+
		"ours:x:70008:70008::/run/curfew/home/ours:/bin/sh\nlow:x:1000:1000::/run/curfew/home/low:/bin/sh\nshort:x:70010:70010\n")
	for name, want := range map[string]bool{"ldap": false, "near": false, "ours": true, "low": false} {
		if ok, err := h.Managed(t.Context(), name); ok != want || err != nil {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
	if _, err := h.Managed(t.Context(), "short"); err == nil {
		t.Error("a broken line of the host's file is a stranger's")
	}
}

// A name service that never answers must not keep root out.
func TestALocalAccountNeedsNoNameService(t *testing.T) {
	h := machine(t)
	put(t, h, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\nodd:x:70007:70007::/run/curfew/home/odd:/bin/sh\n")
	old := searchPath
	searchPath = []string{t.TempDir()}
	defer func() { searchPath = old }()
	for name, want := range map[string]bool{"root": false, "odd": true} {
		if ok, err := h.Managed(t.Context(), name); ok != want || err != nil {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
	if _, err := h.Managed(t.Context(), "roo"); err == nil {
		t.Error("a name that nobody could look up is a stranger's")
	}
}

// Root can put any number of links among the records, and they stay there after
// her end: a look that takes minutes would be the last of anybody's. What it
// takes must grow as they do, and not as their square.
func TestAnyNumberOfLinksAmongTheRecordsHoldsNobodyUp(t *testing.T) {
	h := machine(t)
	converge(t, h, wanted())
	look := func(links int) float64 {
		for i := range links {
			must(t, ignore(os.Symlink(fmt.Sprintf("y%d.user", i), h.path(userdb, fmt.Sprintf("x%d.user", i))), fs.ErrExist))
		}
		return testing.AllocsPerRun(1, func() {
			if seen, err := h.Observe(t.Context()); err != nil || len(seen) != len(wanted()) {
				t.Error(len(seen), err)
			}
		})
	}
	none := look(0)
	if some, many := look(50)-none, look(500)-none; many > 20*some {
		t.Errorf("50 links cost %.0f allocations, 500 cost %.0f", some, many)
	}
}

// Nor can any number of records.
func TestAmongAnyNumberOfRecordsOursAreSeen(t *testing.T) {
	h := machine(t)
	converge(t, h, wanted())
	must(t, os.WriteFile(h.path(userdb, "cfw-ana.user"), []byte("{}"), 0o644))
	for i := range crowd {
		must(t, os.WriteFile(h.path(userdb, fmt.Sprintf("x%d.user", i)), nil, 0o644))
	}
	seen, err := h.Observe(t.Context())
	if err == nil || len(seen) != len(wanted()) {
		t.Error(len(seen), err)
	}
}
