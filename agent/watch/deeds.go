package watch

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
	"curfew.internal/ledger"
)

// hearsay says that a text was read from memory which another thread may have
// changed since the kernel took it.
const hearsay = " (as its memory had it afterwards)"

// TookHold begins what is told of whoever opened a program, map or link of BPF
// that was there already: ours, maybe.
const TookHold = "bpf: took hold of a program, map or link"

// Put begins what is told of a name that came to a place that matters.
const Put = "put "

// A telling is how a deed reads: its kind, its object and a line for people.
type telling func(d *bpf.WatchDeed, first, second string) (k ledger.Kind, object, text string)

var deeds = map[bpf.WatchDid]telling{
	bpf.WatchDidDID_CONNECT: connection,
	bpf.WatchDidDID_SEND: func(d *bpf.WatchDeed, _, _ string) (ledger.Kind, string, string) {
		to := peer(d, "")
		return ledger.Connect, to, "sent datagrams to " + to
	},
	bpf.WatchDidDID_OPEN: func(d *bpf.WatchDeed, path, _ string) (ledger.Kind, string, string) {
		return ledger.Open, path, fmt.Sprintf("opened %s for writing: %s", path, file(d))
	},
	bpf.WatchDidDID_RENAME: renaming,
	bpf.WatchDidDID_LINK: func(d *bpf.WatchDeed, name, of string) (ledger.Kind, string, string) {
		if d.Number&bpf.FromAlone != 0 {
			return ledger.Named, of, fmt.Sprintf("gave %s another name, %s (hard link): %s", of, name, file(d))
		}
		return ledger.Named, name, fmt.Sprintf(Put+"another name at %s, of %s (hard link): %s", name, of, file(d))
	},
	bpf.WatchDidDID_SYMLINK: func(_ *bpf.WatchDeed, name, to string) (ledger.Kind, string, string) {
		return ledger.Named, name, fmt.Sprintf(Put+"a symbolic link at %s, to %s", name, to)
	},
	bpf.WatchDidDID_REMOVE: func(d *bpf.WatchDeed, name, _ string) (ledger.Kind, string, string) {
		return ledger.Named, name, fmt.Sprintf("took away %s: %s", name, file(d))
	},
	bpf.WatchDidDID_TRACE: func(d *bpf.WatchDeed, _, _ string) (ledger.Kind, string, string) {
		if d.Number == 0 {
			return ledger.Act, "parent", "ptrace: has its parent trace it"
		}
		return ledger.Act, fmt.Sprintf("process %d", d.Number), fmt.Sprintf("ptrace: traces process %d", d.Number)
	},
	bpf.WatchDidDID_POKE: func(d *bpf.WatchDeed, _, _ string) (ledger.Kind, string, string) {
		return ledger.Act, fmt.Sprintf("process %d", d.Number), fmt.Sprintf("wrote to the memory of process %d", d.Number)
	},
	bpf.WatchDidDID_TAKE: func(d *bpf.WatchDeed, path, _ string) (ledger.Kind, string, string) {
		return ledger.Act, fmt.Sprintf("process %d", d.Number), fmt.Sprintf("took a descriptor of process %d: %s, %s", d.Number, cmp.Or(path, "no file"), file(d))
	},
	bpf.WatchDidDID_RAW: func(d *bpf.WatchDeed, _, _ string) (ledger.Kind, string, string) {
		what := fmt.Sprintf("of protocol %d", d.Number)
		if d.Family == unix.AF_PACKET {
			what = "of packets"
		}
		return ledger.Act, "raw socket", "raw socket: made one " + what + ", where it sends to is not seen"
	},
	bpf.WatchDidDID_MOUNT: func(d *bpf.WatchDeed, at, from string) (ledger.Kind, string, string) {
		return ledger.Act, at, fmt.Sprintf("mount: %s at %s, flags %#x%s", cmp.Or(from, "nothing"), at, d.Number, hearsay)
	},
	bpf.WatchDidDID_UMOUNT: one("umount: %s" + hearsay), bpf.WatchDidDID_SPREAD: one("mount: changed the attributes of %s" + hearsay),
	bpf.WatchDidDID_MOVE: two("mount: moved to %s from %s" + hearsay), bpf.WatchDidDID_PIVOT: two("mount: pivot_root to %s, the old root to %s" + hearsay),
	bpf.WatchDidDID_MODULE: one("module: loaded %s into the kernel"), bpf.WatchDidDID_UNLOAD: one("module: unloaded %s from the kernel"),
	bpf.WatchDidDID_BPF: func(d *bpf.WatchDeed, name, _ string) (ledger.Kind, string, string) {
		what := cmp.Or(map[uint32]string{5: "bpf: loaded a program", 8: "bpf: attached a program", 17: "bpf: attached a program", 28: "bpf: attached a program"}[d.Number], TookHold)
		return ledger.Act, name, strings.TrimSpace(what + " " + name)
	},
	bpf.WatchDidDID_KEXEC: one("kexec: loaded another kernel"), bpf.WatchDidDID_CLOCK: one("clock: set the time"),
	bpf.WatchDidDID_ADJUST: func(d *bpf.WatchDeed, _, _ string) (ledger.Kind, string, string) {
		return ledger.Act, "", fmt.Sprintf("clock: adjusted the time, modes %#x%s", d.Number, hearsay)
	},
	bpf.WatchDidDID_RING: func(d *bpf.WatchDeed, _, _ string) (ledger.Kind, string, string) {
		what := cmp.Or(map[uint32]string{16: "a connection", 18: "to open a file", 28: "to open a file", 45: "a socket"}[d.Number], "made a ring")
		if d.Number < anyOperation {
			what = "asked for " + what + ", with whom or which is not seen"
		}
		return ledger.Act, "io_uring", "io_uring: " + what
	},
}

// anyOperation is the number of a ring that was made.
const anyOperation = 0xffff

// file names the file that a path led to.
func file(d *bpf.WatchDeed) string {
	dev := unix.Mkdev(uint32(d.Dev>>20), uint32(d.Dev&0xfffff)) //nolint:gosec // 12 bits and 20
	return fmt.Sprintf("device %d:%d, inode %d", unix.Major(dev), unix.Minor(dev), d.Ino)
}

// renaming is told of the place that matters: where both do, of the new one.
func renaming(d *bpf.WatchDeed, to, from string) (ledger.Kind, string, string) {
	away := d.Number&bpf.FromAlone != 0
	switch {
	case d.Number&unix.RENAME_EXCHANGE != 0:
		if away {
			to, from = from, to
		}
		return ledger.Named, to, fmt.Sprintf(Put+"what was %s at %s, and the other way round (exchange)", from, to)
	case away:
		return ledger.Named, from, fmt.Sprintf("took away %s: it is %s now (rename): %s", from, to, file(d))
	}
	return ledger.Named, to, fmt.Sprintf(Put+"what was %s at %s (rename): %s", from, to, file(d))
}

func one(text string) telling {
	return func(_ *bpf.WatchDeed, first, _ string) (ledger.Kind, string, string) {
		if !strings.Contains(text, "%s") {
			return ledger.Act, "", text
		}
		return ledger.Act, first, fmt.Sprintf(text, first)
	}
}

func two(text string) telling {
	return func(_ *bpf.WatchDeed, first, second string) (ledger.Kind, string, string) {
		return ledger.Act, first, fmt.Sprintf(text, first, second)
	}
}

var protocols = map[uint32]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_MPTCP: "tcp"}

func connection(d *bpf.WatchDeed, name, _ string) (ledger.Kind, string, string) {
	to := peer(d, name)
	return ledger.Connect, to, "began a connection to " + to
}

// peer names the other end: unix:PATH, unix:@NAME where no file names it, or
// PROTOCOL://ADDRESS:PORT.
func peer(d *bpf.WatchDeed, name string) string {
	switch d.Family {
	case unix.AF_UNIX:
		if d.Number == 1 {
			return "unix:" + name
		}
		return "unix:@" + name
	default:
		a := netip.AddrFrom16(d.Address)
		if d.Family == unix.AF_INET {
			a = netip.AddrFrom4([4]byte(d.Address[:4]))
		}
		// The port is as it is on the wire, in a number of ours.
		port := binary.BigEndian.Uint16(binary.LittleEndian.AppendUint16(nil, d.Port))
		return cmp.Or(protocols[d.Number], fmt.Sprintf("ip-%d", d.Number)) + "://" + netip.AddrPortFrom(a.Unmap(), port).String()
	}
}

// deed reads what a process did to the machine or to others.
func (r *decoder) deed(b []byte, e *ledger.Entry) error {
	d, text := &r.fixed.deed, unsafe.Offsetof(bpf.WatchDeed{}.Text)
	if err := fill(d, b, text); err != nil {
		return err
	}
	rest := b[text:]
	tell := deeds[bpf.WatchDid(d.What)]
	if tell == nil || int(d.First)+int(d.Second) > len(rest) {
		return fmt.Errorf("deed %d: %w", d.What, errRecord)
	}
	first, second := clean(rest[:d.First]), clean(rest[d.First:d.First+d.Second])
	e.Kind, e.Object, e.Text = tell(d, first, second)
	e.Process = process(&d.Process)
	return nil
}
