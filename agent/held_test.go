package agent

import (
	"context"
	"testing"
	"time"

	"curfew.internal/grant"
)

// With the loop held up, what is over is ended, and what stands goes on.
// Whoever holds it up is ended: at once where the session is guarded, else with
// the loop stuck, and the session with it where it comes to that again.
func TestWhoeverHoldsUpTheHostIsEnded(t *testing.T) {
	w := newWorld()
	unguarded := held("g-d", "dora-b", 0, 3*time.Hour)
	unguarded.Role.Unguarded = true
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour), held("g-b", "benno", 0, 3*time.Hour), held("g-c", "cy", 0, 3*time.Hour), unguarded}
	a := w.agent(t)
	if _, err := a.Pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for pid, name := range map[int]string{7: "ana", 8: "benno", 9: "cy", 10: "dora-b"} {
		if !a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: name, PID: pid}).Allow {
			t.Fatal(name)
		}
	}
	holders := map[int]bool{8: true, 10: true}
	a.Unhold = func(_ context.Context, pids []int, _ bool) (ended []int) {
		for _, pid := range pids {
			if holders[pid] {
				delete(w.tasks, pid)
				ended = append(ended, pid)
			}
		}
		return ended
	}
	w.tasks[18] = w.tasks[8]
	look := func(stuck, again bool, ends, left int) {
		t.Helper()
		said := a.free(t.Context(), stuck, again)
		if w.tasks[ends] != 0 || w.tasks[left] == 0 || w.tasks[9] == 0 || len(said) != 1 || said[0].Person == "" || int(said[0].Process.PID) != ends {
			t.Errorf("%v %+v", w.tasks, said)
		}
	}
	look(false, false, 8, 10)
	look(true, false, 10, 18)
	w.tasks[8] = w.tasks[18]
	look(true, true, 8, 7)
	if w.tasks[18] != 0 {
		t.Error("her session goes on")
	}
	w.now = noon.Add(2 * time.Hour)
	if a.endOver(t.Context()); w.tasks[7] != 0 || w.tasks[9] == 0 {
		t.Errorf("%v", w.tasks)
	}
}

// Where the kernel keeps guarded sessions from it, nobody is looked for until
// the loop is stuck; and who is looked for each second keeps a slow machine slow.
func TestWhoHoldsUpTheHostIsSoughtSeldom(t *testing.T) {
	for _, tt := range []struct {
		holds bool
		stuck string // which of ten seconds
		want  string
	}{
		{false, "          ", "    x    x"},
		{false, "  xxxxxxxx", "  x x    x"},
		{true, "          ", "          "},
		{true, "  xxxxxxxx", "  x x    x"},
		{true, "x  x      ", "x  x      "},
	} {
		a, was, got := &Agent{Holds: tt.holds}, false, ""
		for i, c := range tt.stuck {
			stuck := c == 'x'
			if a.seeks(i+1, stuck, was) {
				got += "x"
			} else {
				got += " "
			}
			was = stuck
		}
		if got != tt.want {
			t.Errorf("%v %q: %q, not %q", tt.holds, tt.stuck, got, tt.want)
		}
	}
}
