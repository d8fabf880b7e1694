package watch

import (
	"os/exec"
	"syscall"
	"testing"

	"curfew.internal/bpf"
	"curfew.internal/test/need"
)

// Who exited is kept by the number that we know it by, and by no other: also of
// a process that has one more in a namespace of its own.
func TestWhoExitedIsKeptByOurNumber(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	inside := exec.CommandContext(t.Context(), "/bin/true")
	inside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := inside.Run(); err != nil {
		t.Fatal(err)
	}
	s := shell(t, "read x")
	s.grow(t, w, 0x5011)
	s.say(t)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[int]uint64{inside.ProcessState.Pid(): 0, s.ProcessState.Pid(): 0x5011} {
		if p, session, ok := w.Gone(pid); !ok || session != want || want != 0 && int(p.PID) != pid {
			t.Errorf("%d: %+v of session %x, %v", pid, p, session, ok)
		}
	}
	ours, err := namespace()
	if err != nil {
		t.Fatal(err)
	}
	var n bpf.WatchNumber
	var g bpf.WatchGone
	it := w.maps.Exits.Iterate()
	for it.Next(&n, &g) {
		if n.Ns != ours {
			t.Errorf("kept by a number of %d, and ours is %d: %+v", n.Ns, ours, g.Process)
		}
	}
}
