package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/grant"
)

// maxKilled is how many looks end what they find at once. Then it is stopped
// first.
const maxKilled = 5

// KillUID ends every process that has the uid as one of its own, or whose login
// was that account's, until none is left or ctx is done. It returns how many it ended. Where looks go on to
// find some, all are stopped before the first is ended: processes that start
// others faster than they are ended one by one would go on for ever. None is
// stopped without need, since root's su(1) or sudo(8) above one would stop with
// it, and nothing would ever wake it. It is an error that something is mounted
// over processes: one of the uid's may be behind it.
func (h *Host) KillUID(ctx context.Context, uid uint32) (int, error) {
	if uid < grant.UIDMin || uid > grant.UIDMax {
		return 0, fmt.Errorf("uid %d is not one of ours", uid)
	}
	ended := map[int]bool{}
	for round := 0; ; round++ {
		look := present
		if round >= maxKilled {
			look = stopAll
		}
		found, err := look(ctx, uid)
		for pid := range found {
			ok, failed := send(pid, uid, unix.SIGKILL)
			err = errors.Join(err, failed)
			if ok {
				ended[pid] = true
			}
		}
		if ctx.Err() == nil && (len(found) == 0 || err != nil) {
			return len(ended), errors.Join(err, uncovered())
		}
		select {
		case <-ctx.Done():
			return len(ended), fmt.Errorf("processes of uid %d may still be there: no time was left; %d were there last, of them %v",
				uid, len(found), firstOf(slices.Sorted(maps.Keys(found))))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func firstOf(pids []int) []int { return pids[:min(len(pids), 10)] }

// present finds the processes of the uid.
func present(_ context.Context, uid uint32) (map[int]bool, error) {
	pids, err := processesOf(uid)
	found := map[int]bool{}
	for _, pid := range pids {
		found[pid] = true
	}
	return found, err
}

// stopAll stops the processes of the uid until a look finds no other, or ctx
// is done. Whoever is stopped starts nothing.
func stopAll(ctx context.Context, uid uint32) (map[int]bool, error) {
	stopped := map[int]bool{}
	for {
		pids, err := processesOf(uid)
		if err != nil {
			return stopped, err
		}
		others := false
		for _, pid := range pids {
			if ctx.Err() != nil {
				return stopped, nil
			}
			if stopped[pid] {
				continue
			}
			ok, err := send(pid, uid, unix.SIGSTOP)
			if err != nil {
				return stopped, err
			}
			if ok {
				stopped[pid], others = true, true
			}
		}
		if !others {
			return stopped, nil
		}
	}
}

// send signals a process through a descriptor that it looks at again first: a
// pid that was used again in between is left alone.
func send(pid int, uid uint32, signal unix.Signal) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return false, nil // gone meanwhile
	}
	if err != nil {
		return false, fmt.Errorf("open process %d: %w", pid, err)
	}
	has := hasUID(pid, uid)
	if has {
		err = unix.PidfdSendSignal(fd, signal, nil, 0)
	}
	if errors.Is(err, unix.ESRCH) {
		has, err = false, nil
	}
	return has && err == nil, errors.Join(err, unix.Close(fd))
}

func processesOf(uid uint32) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() && hasUID(pid, uid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// hasUID reports whether a living process has the uid as its real, effective,
// saved or file system uid (proc(5)), or is of a login of that account,
// whatever ids it took since (pam_loginuid(8)). The login finds what became
// root in a session when its label is lost, or held by an agent that hangs; a
// kernel without audit keeps none.
func hasUID(pid int, uid uint32) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	login, _ := os.ReadFile(fmt.Sprintf("/proc/%d/loginuid", pid))
	return statusHasUID(b, string(login), uid)
}

// statusHasUID reads a process's status, and its login. A process whose first
// thread is dead lives on in its other threads.
func statusHasUID(status []byte, login string, uid uint32) bool {
	want := []byte(strconv.FormatUint(uint64(uid), 10))
	has := strings.TrimSpace(login) == string(want)
	var dead, alone bool
	for line := range bytes.Lines(status) {
		key, rest, _ := bytes.Cut(line, []byte(":"))
		fields := bytes.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		switch string(key) {
		case "State":
			dead = string(fields[0]) == "Z" || string(fields[0]) == "X"
		case "Threads":
			alone = string(fields[0]) == "1" || string(fields[0]) == "0"
		case "Uid":
			has = has || slices.ContainsFunc(fields, func(f []byte) bool { return bytes.Equal(f, want) })
		}
	}
	return has && (!dead || !alone)
}
