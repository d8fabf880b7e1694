package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host/tree"
)

// A grant's end timer is a transient unit of systemd's (systemd.timer(5)): with
// the agent dead it ends what runs and starts the sweep as the grant ends. It is
// seen by the file that systemd makes for it.
const (
	timersDir   = "run/systemd/transient"
	timerPrefix = "curfew-end-"
	timerSuffix = ".timer"
	sweepUnit   = "curfew-sweep.service"
)

// late is how long after the end the timer fires: a living agent is done by
// then, and has taken it away.
const late = 500 * time.Millisecond

// atEnd is what the timer's service does, one after the other, whatever becomes
// of the one before. Processes come first, without a sandbox to build. A sweep
// that runs already began before the end: systemd gives us that one for the
// first that we start, so there is a second.
var atEnd = []command{
	{"/usr/bin/curfew-agent", []string{"/usr/bin/curfew-agent", "sweep", "--due"}, true},
	{"/usr/bin/systemctl", []string{"/usr/bin/systemctl", "start", sweepUnit}, true},
	{"/usr/bin/systemctl", []string{"/usr/bin/systemctl", "start", sweepUnit}, true},
}

// A command is one of ExecStart= as systemd takes it (org.freedesktop.systemd1(5)).
type command struct {
	Path   string
	Args   []string
	Passes bool // its failure is none of the service's
}

func (h *Host) observeTimers(seen enforce.State) error {
	if h.Root != "/" {
		return nil // systemd is the machine's own
	}
	entries, err := os.ReadDir(h.path(timersDir))
	errs := []error{ignore(err, fs.ErrNotExist)}
	for _, e := range entries {
		id, ours := strings.CutPrefix(e.Name(), timerPrefix)
		id, timer := strings.CutSuffix(id, timerSuffix)
		if !ours || !timer {
			continue
		}
		end, err := endIn(h.path(timersDir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		seen[enforce.Thing{Kind: enforce.EndTimer, Name: id}] = end
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("look for end timers: %w", err)
	}
	return nil
}

// endIn is the end in a timer's file. Root may have put there what keeps who opens
// it waiting, such as a pipe: that is spoiled.
func endIn(file string) (string, error) {
	text, _, err := readWhole(file, 0)
	return endOf(text), ignore(err, tree.ErrMounted)
}

// endOf reads the end that a timer's file stands for; what is no such file is
// spoiled.
func endOf(text string) string {
	for line := range strings.Lines(text) {
		if at, ok := strings.CutPrefix(strings.TrimSpace(line), "OnCalendar="); ok {
			if t, err := time.Parse("2006-01-02 15:04:05.999999 MST", at); err == nil {
				return t.Add(-late).Format(time.DateTime)
			}
		}
	}
	return spoiled
}

func (h *Host) applyTimer(ctx context.Context, s enforce.Step) error {
	if h.Root != "/" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := systemd.NewSystemdConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("ask systemd: %w", err)
	}
	defer c.Close()
	name := timerPrefix + s.Thing.Name
	unit := name + timerSuffix
	if s.Op == enforce.Remove {
		return h.stopTimer(ctx, c, unit)
	}
	end, err := time.Parse(time.DateTime, s.Content)
	if err != nil {
		return fmt.Errorf("end of %v: %w", s.Thing, err)
	}
	start := func(done chan<- string) (int, error) {
		return c.StartTransientUnitAux(ctx, unit, "replace", timerProperties(end.Add(late), h.Clock.Now().Wall), []systemd.PropertyCollection{{
			Name: name + ".service", Properties: []systemd.Property{
				systemd.PropDescription("Curfew: the end of a grant"), systemd.PropType("oneshot"),
				{Name: "ExecStart", Value: dbus.MakeVariant(atEnd)},
				{Name: "CollectMode", Value: dbus.MakeVariant("inactive-or-failed")},
			},
		}}, done)
	}
	err = await(ctx, "start "+unit, start)
	if !said(err, "UnitExists") {
		return err
	}
	// One that is there is another end's, or somebody else's.
	if err := h.stopTimer(ctx, c, unit); err != nil {
		return err
	}
	return await(ctx, "start "+unit, start)
}

// said reports whether that is what systemd has against it.
func said(err error, name string) bool {
	var refused dbus.Error
	return errors.As(err, &refused) && refused.Name == "org.freedesktop.systemd1."+name
}

// timerProperties make a timer that starts the sweep at the instant by the
// wall clock, and no later than in the time until then, should that clock be
// set back. Sessions live on in rescue mode, and so does their end.
func timerProperties(at, now time.Time) []systemd.Property {
	type calendar struct{ Base, Spec string }
	type monotonic struct {
		Base string
		USec uint64
	}
	left := max(0, at.Sub(now).Microseconds())
	property := func(name string, v any) systemd.Property {
		return systemd.Property{Name: name, Value: dbus.MakeVariant(v)}
	}
	return []systemd.Property{
		systemd.PropDescription("Curfew: the end of a grant, should its agent be dead"),
		property("TimersCalendar", []calendar{{"OnCalendar", at.UTC().Format("2006-01-02 15:04:05.000 MST")}}),
		property("TimersMonotonic", []monotonic{{"OnActiveSec", uint64(left)}}),
		property("AccuracyUSec", uint64(1000)),
		property("RemainAfterElapse", false),
		property("IgnoreOnIsolate", true),
	}
}

// stopTimer takes a timer away. One that is gone already is the end we wanted.
func (h *Host) stopTimer(ctx context.Context, c *systemd.Conn, unit string) error {
	err := await(ctx, "stop "+unit, func(done chan<- string) (int, error) { return c.StopUnitContext(ctx, unit, "replace", done) })
	if said(err, "NoSuchUnit") {
		err = nil
	}
	// A file that systemd does not know is nobody's timer.
	return errors.Join(err, tree.Remove(h.path(timersDir), unit))
}

// await waits for a job of systemd's.
func await(ctx context.Context, what string, job func(chan<- string) (int, error)) error {
	done := make(chan string, 1)
	if _, err := job(done); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	select {
	case r := <-done:
		if r != "done" {
			return fmt.Errorf("%s: systemd says %s", what, r)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
}
