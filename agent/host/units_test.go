package host

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMendUnits(t *testing.T) {
	h := machine(t)
	const agent, timer, wants = "usr/lib/systemd/system/curfew-agent.service", "usr/lib/systemd/system/curfew-sweep.timer", "etc/systemd/system/timers.target.wants/curfew-sweep.timer"
	put(t, h, agent, "[Unit]\n")
	put(t, h, timer, "[Timer]\n")
	must(t, os.MkdirAll(filepath.Dir(h.path(wants)), 0o755))
	must(t, os.Symlink("/"+timer, h.path(wants)))
	var u Units
	mend := func() string {
		t.Helper()
		changes, err := h.MendUnits(t.Context(), &u)
		must(t, err)
		var said []string
		for _, c := range changes {
			words := c.File + " " + c.What
			if c.Mended {
				words += ", mended"
			}
			said = append(said, words)
		}
		return strings.Join(said, "; ")
	}
	is := func(file, content string) {
		t.Helper()
		if b, err := os.ReadFile(h.path(file)); err != nil || string(b) != content {
			t.Errorf("%s: %q, %v", file, b, err)
		}
	}
	if got := mend(); got != "" {
		t.Error("the first look:", got)
	}
	for _, change := range []func(){
		func() { put(t, h, agent, "[Unit]\nConditionPathExists=/no\n") },
		func() { must(t, os.Remove(h.path(agent))) },
		func() { must(t, os.Remove(h.path(agent))); must(t, os.Symlink("/dev/null", h.path(agent))) },
	} {
		change()
		if got := mend(); got != "/"+agent+" was changed or removed, mended" {
			t.Error(got)
		}
		is(agent, "[Unit]\n")
		if got := mend(); got != "" {
			t.Error("told twice:", got)
		}
	}
	// What an administrator says of a unit stands, and is told once.
	must(t, os.Remove(h.path(wants)))
	must(t, os.Symlink("/dev/null", h.path("etc/systemd/system/curfew-agent.service")))
	put(t, h, "run/systemd/system/curfew-agent.service.d/x.conf", "[Service]\n")
	want := []string{
		"/" + wants + " was changed or removed", "/etc/systemd/system/curfew-agent.service was put there", "/run/systemd/system/curfew-agent.service.d/x.conf was put there",
	}
	if got := mend(); got != strings.Join(want, "; ") {
		t.Error(got)
	}
	must(t, os.Remove(h.path("etc/systemd/system/curfew-agent.service")))
	if got := mend(); got != "/etc/systemd/system/curfew-agent.service was changed or removed" {
		t.Error(got)
	}
	if _, err := os.Lstat(h.path("etc/systemd/system/curfew-agent.service")); err == nil {
		t.Error("a mask that was taken away is back")
	}
	put(t, h, "usr/lib/systemd/system/other.service", "")
	if got := mend(); got != "" {
		t.Error("a unit of somebody else's:", got)
	}
}

// What somebody puts there by a name like ours, or over a unit of ours, does not
// come back once it is taken away, by the look for leftovers for one, whether or
// not an agent saw it come. A unit that somebody installed by hand does.
func TestWhatIsNotOurUnitStaysAway(t *testing.T) {
	h := machine(t)
	const ours, over, like, byHand = "usr/lib/systemd/system/curfew-agent.service", "etc/systemd/system/curfew-agent.service", "etc/systemd/system/curfew-x.timer", "etc/systemd/system/curfew-sweep.timer"
	put(t, h, ours, "[Unit]\n")
	for _, seen := range []string{"come", "there at the start"} {
		var u Units
		look := func() {
			t.Helper()
			_, err := h.MendUnits(t.Context(), &u)
			must(t, err)
		}
		if seen == "come" {
			look()
		}
		for _, file := range []string{over, like, byHand} {
			put(t, h, file, "[Unit]\n")
		}
		look()
		for _, file := range []string{over, like, byHand} {
			must(t, os.Remove(h.path(file)))
		}
		look()
		for file, want := range map[string]bool{ours: true, over: false, like: false, byHand: true} {
			if _, err := os.Stat(h.path(file)); (err == nil) != want {
				t.Errorf("%s: %s: %v", seen, file, err)
			}
		}
		must(t, os.Remove(h.path(byHand)))
	}
}

func TestOurUnitsAreThoseOfThePackages(t *testing.T) {
	entries, err := os.ReadDir("../../systemd")
	must(t, err)
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	if !slices.Equal(names, ourUnits) {
		t.Errorf("%q", names)
	}
}

func TestAnUpgradeChangesUnits(t *testing.T) {
	h := machine(t)
	const unit = "usr/lib/systemd/system/curfew-agent.service"
	put(t, h, unit, "old")
	put(t, h, "var/lib/dpkg/lock", "")
	var u Units
	mend := func() []UnitChange {
		t.Helper()
		changes, err := h.MendUnits(t.Context(), &u)
		must(t, err)
		return changes
	}
	mend()
	// Locked as dpkg does it, by a process of its own: fcntl(2) knows no other.
	const script = `use Fcntl; open F, "+<", $ARGV[0]; my $l = pack("ssx4qqi", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $l) or die; $| = 1; print "x"; <STDIN>`
	cmd := exec.CommandContext(t.Context(), "perl", "-e", script, h.path("var/lib/dpkg/lock"))
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = out.Read(make([]byte, 1))
	must(t, err)
	put(t, h, unit, "new")
	if got := mend(); len(got) > 0 {
		t.Error(got)
	}
	must(t, in.Close())
	must(t, cmd.Wait())
	put(t, h, unit, "other")
	if got := mend(); !slices.Equal(got, []UnitChange{{"/" + unit, "was changed or removed", true}}) {
		t.Error(got)
	}
	if b, err := os.ReadFile(h.path(unit)); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
}

// Where a folder of units would be, or a package manager's lock, may lie a pipe,
// which nobody writes to.
func TestAPipeAmongUnitsKeepsNobody(t *testing.T) {
	h := machine(t)
	put(t, h, "usr/lib/systemd/system/curfew-agent.service", "[Unit]\n")
	for _, name := range []string{"etc/systemd/system/x.wants", "run/systemd/system/curfew-agent.service.d", packageLocks[2]} {
		must(t, os.MkdirAll(filepath.Dir(h.path(name)), 0o755))
		must(t, unix.Mkfifo(h.path(name), 0o600))
	}
	var u Units
	done := make(chan error, 1)
	go func() {
		_, err := h.MendUnits(t.Context(), &u)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil || len(u.files) != 1 {
			t.Error(u.files, err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for who writes to a pipe")
	}
}
