package host

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"curfew.internal/agent/enforce"
	"curfew.internal/test/need"
)

const ownNetwork = "CURFEW_TEST_OWN_NETWORK"

// inOwnNetwork runs the test again in a network namespace of its own, and
// says whether it is there: no rule of a test ever reaches the machine's.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	need.Root(t)
	need.Program(t, "nft")
	if os.Getenv(ownNetwork) != "" {
		return true
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), ownNetwork+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func scopes(n int) enforce.State {
	want := enforce.State{}
	for i := range n {
		want[enforce.Thing{Kind: enforce.Network, Name: fmt.Sprintf("cfw-%c", 'a'+i)}] = fmt.Sprintf(
			"%d\ntcp://10.0.0.0/24:5432\ntcp://fd00::/64\nudp://0.0.0.0/0:53\nudp://10.0.0.1/32\n", 70007+i)
	}
	return want
}

func TestAScopeThatWasWidenedIsPutRight(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	for name, rules := range map[string]string{
		"base chain flushed":   "flush chain inet curfew out",
		"base chain accepts":   "insert rule inet curfew out accept",
		"base chain gone":      "flush chain inet curfew out\ndelete chain inet curfew out",
		"base chain elsewhere": "flush chain inet curfew out\ndelete chain inet curfew out\nadd chain inet curfew out { type filter hook input priority 0; }\nadd rule inet curfew out meta skuid vmap @who",
		"wide rule first":      "insert rule inet curfew u70007 return",
		"dormant":              "add table inet curfew { flags dormant; }",
		"element gone":         "delete element inet curfew who { 70007 : jump u70007 }",
		"element accepts":      "delete element inet curfew who { 70007 : jump u70007 }\nadd element inet curfew who { 70007 : accept }",
		"table gone":           "delete table inet curfew",
		"other destination": "flush chain inet curfew u70007\nadd rule inet curfew u70007 ct direction reply accept\n" +
			"add rule inet curfew u70007 ip daddr 0.0.0.0/0 tcp dport 1-65535 accept\nadd rule inet curfew u70007 reject",
	} {
		for _, n := range []int{1, 3} {
			t.Run(fmt.Sprint(name, n), func(t *testing.T) {
				h := machine(t)
				converge(t, h, scopes(n))
				if out, err := h.feed(t.Context(), rules+"\n", "nft", "-f", "-"); err != nil {
					t.Fatal(out, err)
				}
				seen, err := h.Observe(t.Context())
				if err != nil || len(enforce.Plan(scopes(n), seen)) == 0 {
					t.Error("not seen: the account is not limited", err)
				}
				converge(t, h, scopes(n))
				converge(t, h, scopes(n-1))
				converge(t, h, enforce.State{})
				if now, err := h.ruleset(t.Context()); err != nil || now != "" {
					t.Error(now, err)
				}
			})
		}
	}
}

// The scope of one person is no matter of another's.
func TestAScopeIsComparedWithItsOwn(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	h := machine(t)
	for _, n := range []int{1, 2, 20, 3, 1} {
		converge(t, h, scopes(n))
	}
	must(t, os.WriteFile(h.path(scopeDir, "zz"), []byte("70007\ntcp://0.0.0.0/0\n"), 0o600))
	converge(t, h, scopes(2))
}
