package host

import (
	"strings"
	"testing"
)

func TestWhatSystemdGivesIsNamedAndNotTold(t *testing.T) {
	const before = "LANG=C.UTF-8\nPATH=/usr/bin\nTOKEN=old\n"
	for now, want := range map[string]string{
		before: "",
		"PATH=/usr/bin\nLANG=C.UTF-8\nTOKEN=old\n":                                  "",
		before + "LD_PRELOAD=/srv/x.so\n":                                           "LD_PRELOAD",
		"LANG=C.UTF-8\nPATH=/srv:/usr/bin\nTOKEN=new\nLD_PRELOAD=$'/srv/x\\n.so'\n": "PATH, TOKEN, LD_PRELOAD",
		"LANG=C.UTF-8\nPATH=/usr/bin\n":                                             "TOKEN",
	} {
		got := ""
		for _, f := range set(before, now) {
			got = strings.TrimPrefix(f.String(), "system-unit environment of what systemd starts: changed since the session began: ")
		}
		if got != want {
			t.Errorf("%q: %q, not %q", now, got, want)
		}
	}
}
