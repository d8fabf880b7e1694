package host

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"curfew.internal/agent/enforce"
)

func TestWhoeverChangesOurTableIsTold(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	h := machine(t)
	ctx, cancel := context.WithCancel(t.Context())
	changed, done := make(chan int), make(chan error, 1)
	go func() { done <- h.Rules(ctx, func(pid int) { changed <- pid }) }()
	defer func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	alter := func(rules string) (pid int) {
		cmd := exec.CommandContext(t.Context(), "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", rules, err, out)
		}
		return cmd.Process.Pid
	}
	// Once the last is told, they are listened for, and nothing waits.
	for last := false; !last; {
		pid := alter("add table inet curfew\ndelete table inet curfew\n")
		for quiet := false; !last && !quiet; {
			select {
			case told := <-changed:
				last = told == pid
			case <-time.After(100 * time.Millisecond):
				quiet = true
			}
		}
	}
	for name, rules := range map[string]string{
		"all flushed":       "flush ruleset",
		"table gone":        "delete table inet curfew",
		"chain flushed":     "flush chain inet curfew out",
		"rule added":        "insert rule inet curfew u70007 return",
		"ended":             "delete element inet curfew live { 70007 }",
		"element gone":      "delete element inet curfew who { 70007 : jump u70007 }",
		"dormant":           "add table inet curfew { flags dormant; }",
		"with another's":    "add table inet else\nadd chain inet else c\ndelete table inet curfew\nadd table inet last",
		"other destination": "add rule inet curfew u70007 accept",
	} {
		t.Run(name, func(t *testing.T) {
			// What we do, or what is about other tables, is not told.
			converge(t, h, scopes(1))
			alter("add table inet else\nadd chain inet else c\ndelete table inet else\n")
			pid := alter(rules + "\n")
			if told := <-changed; told != pid {
				t.Errorf("process %d was told of, not %d", told, pid)
			}
			converge(t, h, scopes(1))
			converge(t, h, enforce.State{})
		})
	}
}
