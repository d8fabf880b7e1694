// Package need says what a test needs of the machine. Where the machine lacks
// it, the test fails in CI and is skipped elsewhere.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Root needs uid 0.
func Root(t testing.TB) {
	t.Helper()
	unless(t, os.Geteuid() == 0, "root")
}

// Program needs each of the programs on the path.
func Program(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		_, err := exec.LookPath(n)
		unless(t, err == nil, "the program "+n)
	}
}

// Nspawn needs what the hosts of test/lab are made with.
func Nspawn(t testing.TB) {
	t.Helper()
	Root(t)
	Program(t, "systemd-nspawn", "mmdebstrap", "ip", "nsenter", "unshare", "mount", "bash")
}

func unless(t testing.TB, has bool, what string) {
	t.Helper()
	if has {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("this test needs %s, and CI has to have it", what)
	}
	t.Skipf("this test needs %s", what)
}
