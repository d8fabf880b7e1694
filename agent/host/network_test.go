package host

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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

var tomorrow = time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339)

func scopes(n int) enforce.State {
	want := enforce.State{}
	for i := range n {
		want[enforce.Thing{Kind: enforce.Network, Name: fmt.Sprintf("cfw-%c", 'a'+i)}] = fmt.Sprintf(
			"%d %s\ntcp://10.0.0.0/24:5432\ntcp://fd00::/64\nudp://0.0.0.0/0:53\nudp://10.0.0.1/32\n", 70007+i, tomorrow)
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
		"ended already":        "delete element inet curfew live { 70007 }",
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
	must(t, os.WriteFile(h.path(scopeDir, "zz"), []byte("70007 "+tomorrow+"\ntcp://0.0.0.0/0\n"), 0o600))
	converge(t, h, scopes(2))
}

// With nobody there to take it away, the kernel closes a scope at its end.
func TestAScopeEndsByItself(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	h := machine(t)
	out, err := h.run(t.Context(), "ip", "link", "set", "lo", "up")
	if err != nil {
		t.Fatal(out, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	connect := func() error {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/"+strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 70007, Gid: 70007}}
		return cmd.Run()
	}
	thing := enforce.Thing{Kind: enforce.Network, Name: "cfw-a"}
	put := func(end time.Time) {
		content := "70007 " + end.UTC().Format(time.RFC3339) + "\ntcp://127.0.0.1/32\n"
		must(t, h.Apply(t.Context(), enforce.Step{Op: enforce.Put, Thing: thing, Content: content}))
	}
	put(time.Now().Add(3 * time.Second))
	must(t, connect())
	for connect() == nil {
		if err := t.Context().Err(); err != nil {
			t.Fatal("the scope does not end")
		}
	}
	put(time.Now().Add(time.Hour)) // as an extension does
	must(t, connect())
	put(time.Now().Add(-time.Hour))
	if connect() == nil {
		t.Error("a scope that is over lets through")
	}
}

// A scope as an older agent kept it, or as somebody spoiled it, leaves nobody
// without a limit while another's is given.
func TestAScopeThatCannotBeReadIsClosed(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	h := machine(t)
	for _, text := range []string{"70009\ntcp://10.0.0.0/24\n", "70009 " + tomorrow + "\nnowhere\n"} {
		must(t, os.WriteFile(h.path(scopeDir, "old"), []byte(text), 0o600))
		must(t, h.Apply(t.Context(), enforce.Step{Op: enforce.Put, Thing: enforce.Thing{Kind: enforce.Network, Name: "cfw-a"}, Content: scopes(1)[enforce.Thing{Kind: enforce.Network, Name: "cfw-a"}]}))
		now, err := h.ruleset(t.Context())
		if err != nil || !strings.Contains(now, "70009 : jump u70009") || strings.Contains(now, "70009 timeout") {
			t.Errorf("%q: %v\n%s", text, err, now)
		}
	}
	converge(t, h, scopes(1))
}
