package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableName is that of our table in nftables.
const tableName = "curfew"

// ownLoads is how many programs of ours that changed the table are known
// again: what the kernel tells of them comes later.
const ownLoads = 16

// loads are the programs that changed the table for us. Whoever hears of a
// change waits for one that runs, to know it by its number.
type loads struct {
	mu   sync.Mutex // guards what follows
	pids []int
}

func (l *loads) are(pid int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.pids, pid)
}

// done notes one; the lock is held while it runs.
func (l *loads) done(pid int) {
	l.pids = append(l.pids, pid)
	l.pids = l.pids[max(0, len(l.pids)-ownLoads):]
}

// Rules calls changed each time that somebody else changes our table in
// nftables, until ctx is done: with the process, or 0 where the kernel has lost
// count. It is told as each transaction of nftables is done (nft(8), monitor).
func (h *Host) Rules(ctx context.Context, changed func(pid int)) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // ends the wait below
	defer func() {
		if stop() {
			_ = c.Close() // nothing was written
		}
	}()
	// A transaction's changes come first, then who made it.
	ours := false
	for {
		messages, err := c.Receive()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, unix.ENOBUFS):
			ours = false
			changed(0)
			continue
		case err != nil:
			return fmt.Errorf("watch nftables: %w", err)
		}
		for _, m := range messages {
			table, pid, last := transaction(m)
			ours = ours || table == tableName
			if !last {
				continue
			}
			if ours && !h.loads.are(pid) {
				changed(pid)
			}
			ours = false
		}
	}
}

// transaction reads a message of nftables: the table that it is about, which is the
// first attribute of all kinds (linux/netfilter/nf_tables.h), or, as the last of
// a transaction, whose that was.
func transaction(m netlink.Message) (table string, pid int, last bool) {
	const family = 4 // struct nfgenmsg stands before the attributes
	subsystem, kind := m.Header.Type>>8, m.Header.Type&0xff
	if subsystem != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < family {
		return "", 0, false
	}
	d, err := netlink.NewAttributeDecoder(m.Data[family:])
	if err != nil {
		return "", 0, false
	}
	d.ByteOrder = binary.BigEndian
	last = kind == unix.NFT_MSG_NEWGEN
	for d.Next() {
		switch {
		case last && d.Type() == unix.NFTA_GEN_PROC_PID:
			pid = int(d.Uint32())
		case !last && d.Type() == unix.NFTA_TABLE_NAME:
			table = d.String()
		}
	}
	return table, pid, last
}

// Numbered reports whether a process has the number here that the kernel calls
// it by: not in a container with numbers of its own (pid_namespaces(7)).
func Numbered() bool {
	const first = "pid:[4026531836]" // PROC_PID_INIT_INO
	name, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && name == first
}

// Scopes is the folder of the scopes, which our table is made of.
func (h *Host) Scopes() string { return h.path(scopeDir) }
