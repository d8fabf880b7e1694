package agent

import (
	"testing"
	"time"

	"curfew.internal/grant"
)

// A sudo call that an extension took over goes on under the grant that it came
// by, where the extension ends first; and ends with that.
func TestARevokedExtensionLeavesASudoCallItsGrant(t *testing.T) {
	w := newWorld()
	first, second := held("g-a", "ana", 0, time.Hour), held("g-b", "ana", 0, 3*time.Hour)
	other := held("g-c", "ana", 0, 4*time.Hour)
	other.Role.Name = "other"
	w.offered.Grants = []grant.Grant{first}
	a := w.agent(t)
	takes := func(grants ...grant.Grant) {
		t.Helper()
		w.offered.Grants = grants
		if _, err := a.Accept(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Pass(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	takes(first)
	if got := a.Knock(t.Context(), Knock{Open: true, Service: "sudo", User: "root", RUser: "ana", PID: 8}); !got.Allow {
		t.Fatalf("%+v", got)
	}
	under := func(want string, end time.Time) {
		t.Helper()
		id := w.tasks[8]
		if got := w.sessions[id].Grant; got != want || !noon.Add(time.Duration(w.ends[id])-time.Hour).Equal(end) {
			t.Errorf("it is under %q, and not %s", got, want)
		}
	}
	under("g-a", first.NotAfter)
	takes(first, second, other)
	under("g-b", second.NotAfter)
	takes(first, other)
	under("g-a", first.NotAfter)
	takes(other)
	if w.tasks[8] != 0 {
		t.Error("it outlived both")
	}
}
