package writer

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Renounce gives up CAP_SYS_ADMIN, on every thread: [Open] is all that the
// agent has it for. With no_new_privs set, no program that it starts has it
// again (capabilities(7)). It does not work in a program with cgo.
func Renounce() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&head, &have[0]); err != nil {
		return fmt.Errorf("look at our capabilities: %w", err)
	}
	const bit = uint32(1) << unix.CAP_SYS_ADMIN
	have[0].Effective &^= bit
	have[0].Permitted &^= bit
	have[0].Inheritable &^= bit
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&have[0])), 0) //nolint:gosec // as capset(2) takes them
	if errno != 0 {
		return fmt.Errorf("give up CAP_SYS_ADMIN: %w", errno)
	}
	return nil
}
