package host

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"curfew.internal/test/need"
)

func TestWhoCanDoMoreThanTheAccount(t *testing.T) {
	const own = "State:\tS (sleeping)\nUid:\t70007\t70007\t70007\t70007\nGid:\t70007\t70007\t70007\t70007\nGroups:\t70007 \nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
	for _, c := range []struct {
		name, from, to  string
		elsewhere, more bool
	}{
		{name: "a shell of hers"},
		{name: "root by a setuid file", from: "Uid:\t70007\t70007\t70007\t70007", to: "Uid:\t70007\t0\t0\t0", more: true},
		{name: "who can become root again", from: "Uid:\t70007\t70007\t70007", to: "Uid:\t70007\t70007\t0", more: true},
		{name: "another account", from: "Uid:\t70007\t70007\t70007\t70007", to: "Uid:\t33\t33\t33\t33", more: true},
		{name: "root's group", from: "Gid:\t70007\t70007", to: "Gid:\t70007\t0", more: true},
		{name: "root's group among the others", from: "Groups:\t70007", to: "Groups:\t0 70007", more: true},
		{name: "screen, which has a group of its own", from: "Gid:\t70007\t70007", to: "Gid:\t70007\t43"},
		{name: "capabilities", from: "CapPrm:\t0000000000000000", to: "CapPrm:\t0000000000002000", more: true},
		{name: "capabilities in a user namespace of her own", from: "CapEff:\t0000000000000000", to: "CapEff:\t000001ffffffffff", elsewhere: true},
		{name: "a dead one", from: "State:\tS (sleeping)\nUid:\t70007", to: "State:\tZ (zombie)\nUid:\t0"},
	} {
		if got := statusRaised([]byte(strings.Replace(own, c.from, c.to, 1)), uid, !c.elsewhere); got != c.more {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestOnlyWhoCanDoMoreIsEnded(t *testing.T) {
	h := machine(t)
	need.Program(t, "sleep")
	hers, roots := exec.Command("sleep", "1000"), exec.Command("sleep", "1000")
	start(t, hers)
	must(t, roots.Start())
	seen := make(chan struct{})
	go func() {
		_ = roots.Wait() // it is killed
		close(seen)
	}()
	n, err := h.EndRaised(t.Context(), []int{hers.Process.Pid, roots.Process.Pid, 1 << 30}, victim)
	if n != 1 || err != nil {
		t.Error(n, err)
	}
	select {
	case <-seen:
	case <-time.After(time.Minute):
		t.Fatal("root's is alive")
	}
	if err := hers.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("hers: %v", err)
	}
}
