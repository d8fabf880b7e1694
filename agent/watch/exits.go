package watch

import (
	"fmt"
	"os"
	"syscall"

	"curfew.internal/bpf"
	"curfew.internal/ledger"
)

// Gone is a process that has exited of late, with the session that it was of;
// 0: of none. The pid is one of our own namespace.
func (w *Watch) Gone(pid int) (p ledger.Process, session uint64, ok bool) {
	space, err := namespace()
	if err != nil {
		return ledger.Process{}, 0, false
	}
	var g bpf.WatchGone
	if err := w.maps.Exits.Lookup(bpf.WatchNumber{Ns: space, Pid: uint32(pid)}, &g); err != nil { //nolint:gosec // a pid
		return ledger.Process{}, 0, false
	}
	return *process(&g.Process), g.Session, true
}

// namespace is the number of our pid namespace (namespaces(7)).
func namespace() (uint32, error) {
	info, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s has no number", info.Name())
	}
	return uint32(st.Ino), nil //nolint:gosec // 32 bits in the kernel
}
