package agent

import (
	"slices"
	"testing"

	"curfew.internal/agent/host"
	"curfew.internal/agent/writer"
	"curfew.internal/ledger"
)

func TestWhoMayElevateWithoutAGrantIsRecorded(t *testing.T) {
	wired := func(enforce bool, group string, members ...string) host.Elevation {
		return host.Elevation{Wired: true, Wiring: host.Wiring{Enforce: enforce, Breakglass: group}, Members: members}
	}
	for _, c := range []struct {
		name     string
		was, now host.Elevation
		changes  []string
	}{
		{"nothing changes", wired(true, "bg", "ada"), wired(true, "bg", "ada"), nil},
		{
			"enforce to observe", wired(true, ""), wired(false, ""),
			[]string{"the mode of this host is observe; it was enforce"},
		},
		{
			"observe to enforce", wired(false, ""), wired(true, ""),
			[]string{"the mode of this host is enforce; it was observe"},
		},
		{
			"the wiring is taken out", wired(true, ""),
			host.Elevation{},
			[]string{"the mode of this host is none, for it is not wired; it was enforce"},
		},
		{
			"an account for break-glass", wired(true, "bg", "ada"), wired(true, "bg", "ada", "eve", "mal"),
			[]string{"eve, mal put into the break-glass group"},
		},
		{
			"an account less", wired(true, "bg", "ada", "eve"), wired(true, "bg", "eve"),
			[]string{"ada taken out of the break-glass group"},
		},
		{
			"another group", wired(true, "bg", "ada"), wired(true, "wheel", "ada", "eve"),
			[]string{"the break-glass group is wheel; it was bg", "eve put into the break-glass group"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := elevationChanges(c.was, c.now); !slices.Equal(got, c.changes) {
				t.Errorf("%q", got)
			}
		})
	}
	w := newWorld()
	a := w.agent(t)
	a.elevationChanged(t.Context(), []string{"it only observes"}, writer.Writer{Process: ledger.Process{PID: 7, Comm: "vi"}}, true)
	want := "who may use sudo and su without a grant was changed by vi (process 7, uid 0); it only observes"
	if e := w.entries[len(w.entries)-1]; e.Kind != ledger.Drift || e.Text != want || e.Process.PID != 7 {
		t.Errorf("%+v", e)
	}
}
