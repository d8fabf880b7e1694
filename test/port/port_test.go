package port

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A hundred from here and a hundred from another program: none twice, and each
// can be listened on.
func TestNobodyIsGivenAnothers(t *testing.T) {
	if os.Getenv("CURFEW_TEST_PORTS") != "" {
		for range 100 {
			a, err := Free(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Log("address", a)
		}
		return
	}
	seen := map[string]bool{}
	add := func(a string) {
		if seen[a] {
			t.Errorf("%s was given twice", a)
		}
		seen[a] = true
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", a)
		if err != nil {
			t.Error(err)
			return
		}
		_ = l.Close()
	}
	for range 100 {
		a, err := Free(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		add(a)
	}
	other := exec.CommandContext(t.Context(), os.Args[0], "-test.run", t.Name(), "-test.v")
	other.Env = append(os.Environ(), "CURFEW_TEST_PORTS=1")
	out, err := other.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if _, a, ok := strings.Cut(line, "address "); ok {
			add(strings.TrimSpace(a))
		}
	}
	if len(seen) != 200 {
		t.Errorf("%d addresses, want 200", len(seen))
	}
}
