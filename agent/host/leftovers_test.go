package host

import (
	"os"
	"strconv"
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

func TestClearTakesOnlyWhatIsTheirs(t *testing.T) {
	h := machine(t)
	for _, name := range []string{"crontabs", "atjobs", "atspool", "tabs"} {
		must(t, os.MkdirAll(h.path("var/spool/cron", name), 0o755))
		must(t, os.WriteFile(h.path("var/spool/cron", name, "root"), nil, 0o600))
		if _, err := h.Clear(t.Context(), name, uid); err != nil {
			continue // no name of ours
		}
		if _, err := os.Stat(h.path("var/spool/cron", name, "root")); err != nil {
			t.Errorf("the end of a person named %s took root's crontab or job", name)
		}
	}
	must(t, os.MkdirAll(h.path("var/mail"), 0o755))
	must(t, os.WriteFile(h.path("var/mail/cfw-ana"), nil, 0o600)) // root's
	must(t, os.WriteFile(h.path("var/spool/cron/crontabs/cfw-ana"), nil, 0o600))
	must(t, os.Chown(h.path("var/spool/cron/crontabs/cfw-ana"), uid, 0))
	must(t, os.MkdirAll(h.path("var/spool/at"), 0o755))
	must(t, os.WriteFile(h.path("var/spool/at/a00001"), nil, 0o600))
	must(t, os.Chown(h.path("var/spool/at/a00001"), uid, uid))
	looked, left, err := h.Leftovers(t.Context(), "cfw-ana", uid)
	if err != nil || len(left) != 2 || !strings.Contains(strings.Join(looked, ";"), "directly in /tmp") {
		t.Error(looked, left, err)
	}
	gone, err := h.Clear(t.Context(), "cfw-ana", uid)
	must(t, err)
	if len(gone) != 2 || !strings.HasPrefix(gone[0], "crontab /var/spool/cron/crontabs/cfw-ana: ") {
		t.Error(gone)
	}
	if _, left, err := h.Leftovers(t.Context(), "cfw-ana", uid); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	if _, err := os.Stat(h.path("var/mail/cfw-ana")); err != nil {
		t.Error("root's file went")
	}
}

// However much somebody makes, and whatever it is called: a receipt that is too
// long for the record would be none.
func TestLeftoversAreNamedUpToABound(t *testing.T) {
	h := machine(t)
	must(t, os.MkdirAll(h.path("tmp"), 0o755))
	for i := range told + 7 {
		leave(t, h, "tmp/"+strconv.Itoa(i)+strings.Repeat("x", 200), 0o600, uid)
	}
	_, left, err := h.Leftovers(t.Context(), "cfw-ana", uid)
	if err != nil || len(left) != told+1 || left[told] != "and 7 more" {
		t.Error(len(left), err)
	}
}
