package writer

import (
	"fmt"
	"os"
	"strings"

	"curfew.internal/ledger"
)

// read says what a process is (proc_pid_status(5)). A program that its owner
// may replace at will has no better name than the kernel's.
func read(pid int) (ledger.Process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return ledger.Process{}, err
	}
	p := ledger.Process{PID: uint32(pid)} //nolint:gosec // a pid
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
		var err error
		switch name {
		case "Name":
			p.Comm = strings.ToValidUTF8(value, "�")
		case "PPid":
			_, err = fmt.Sscan(value, &p.PPID)
		case "Uid":
			_, err = fmt.Sscan(value, &p.IDs.UID, &p.IDs.EUID)
		case "Gid":
			_, err = fmt.Sscan(value, &p.IDs.GID, &p.IDs.EGID)
		}
		if err != nil {
			return ledger.Process{}, fmt.Errorf("read %s of process %d: %w", name, pid, err)
		}
	}
	p.OldIDs = p.IDs
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
		p.Path = strings.ToValidUTF8(exe, "�")
	}
	return p, nil
}
