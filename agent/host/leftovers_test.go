package host

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/enforce"
)

func TestARuleThatCouldNotBeRemovedIsLeft(t *testing.T) {
	h := machine(t)
	converge(t, h, wanted())
	rule := h.path(sudoersDir, "g-abcdefghijklmnop")
	must(t, unix.Mount(rule, rule, "", unix.MS_BIND, "")) // what granted root can do
	t.Cleanup(func() { _ = unix.Unmount(rule, unix.MNT_DETACH) })
	thing := enforce.Thing{Kind: enforce.SudoRule, Name: "g-abcdefghijklmnop"}
	if err := h.Apply(t.Context(), enforce.Step{Op: enforce.Remove, Thing: thing}); err == nil {
		t.Fatal("removed")
	}
	looked, left, err := h.RuleLeft(thing.Name)
	if err != nil || len(looked) != 1 || !strings.Contains(strings.Join(left, " "), "sudo rule") {
		t.Error(looked, left, err)
	}
	must(t, unix.Unmount(rule, 0))
	converge(t, h, enforce.State{})
	if _, left, err := h.RuleLeft(thing.Name); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}
