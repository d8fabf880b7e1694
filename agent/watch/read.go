package watch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"curfew.internal/bpf"
	"curfew.internal/ledger"
)

// Kinds of records and of data, as watch.bpf.c numbers them.
const (
	recordExec  = 1
	recordExit  = 2
	recordSetID = 3
	recordData  = 4

	dataArgv = 1
	dataCwd  = 2
	dataExe  = 3
)

// maxArgv bounds what one exec may make us hold: the kernel's own limit is
// 2 MiB for arguments and environment together on a default stack.
const maxArgv = 4 << 20

// errRecord refuses bytes that are no record of ours.
var errRecord = errors.New("malformed record from the kernel")

// key names one event of the kernel.
type key struct{ session, seq uint64 }

// part is an exec whose data has not all come.
type part struct {
	entry ledger.Entry
	argv  []byte
	want  uint64
	got   uint64
	born  time.Time
}

// A reader puts records together to entries.
type reader struct {
	offset time.Time // the wall clock at boot
	parts  map[key]*part
	order  []key
}

func newReader(offset time.Time) *reader {
	return &reader{offset: offset, parts: map[key]*part{}}
}

// read takes one record of the ring. It returns the entries that are whole
// with it.
func (r *reader) read(raw []byte, now time.Time) ([]ledger.Entry, error) {
	var h bpf.WatchHead
	if _, err := binary.Decode(raw, binary.LittleEndian, &h); err != nil {
		return nil, errRecord
	}
	switch h.Kind {
	case recordExec:
		return r.exec(raw, now)
	case recordExit:
		return r.exit(raw)
	case recordSetID:
		return r.setID(raw)
	case recordData:
		return r.data(raw)
	}
	return nil, fmt.Errorf("kind %d: %w", h.Kind, errRecord)
}

func (r *reader) entry(k ledger.Kind, h bpf.WatchHead) ledger.Entry {
	return ledger.Entry{
		Kind: k, At: r.offset.Add(time.Duration(h.BootNs)), //nolint:gosec // nanoseconds since boot fit for 292 years
		Session: h.Session, SessionSeq: h.Seq,
		Process: &ledger.Process{PID: h.Pid, PPID: h.Ppid},
	}
}

func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func (r *reader) exec(raw []byte, now time.Time) ([]ledger.Entry, error) {
	var e bpf.WatchExec
	if _, err := binary.Decode(raw, binary.LittleEndian, &e); err != nil {
		return nil, errRecord
	}
	entry := r.entry(ledger.Exec, e.Head)
	p := entry.Process
	p.OldIDs = ledger.IDs{UID: e.Old.Uid, EUID: e.Old.Euid, GID: e.Old.Gid, EGID: e.Old.Egid}
	p.IDs = ledger.IDs{UID: e.New.Uid, EUID: e.New.Euid, GID: e.New.Gid, EGID: e.New.Egid}
	p.Comm, p.TTY, p.Path = text(e.Comm[:]), text(e.Tty[:]), text(e.File[:])
	p.Device, p.Inode, p.Links = e.Device, e.Inode, e.Links
	k := key{e.Head.Session, e.Head.Seq}
	r.parts[k] = &part{entry: entry, want: min(e.ArgvLen, maxArgv), born: now}
	r.order = append(r.order, k)
	if e.ArgvLen == 0 {
		return r.finish(k), nil
	}
	return nil, nil
}

func (r *reader) data(raw []byte) ([]ledger.Entry, error) {
	var d struct {
		Head       bpf.WatchHead
		Which, Len uint32
		Offset     uint64
	}
	n, err := binary.Decode(raw, binary.LittleEndian, &d)
	if err != nil || uint64(len(raw)-n) < uint64(d.Len) { //nolint:gosec // Decode read no more than there was
		return nil, errRecord
	}
	body := raw[n : n+int(d.Len)]
	k := key{d.Head.Session, d.Head.Seq}
	p := r.parts[k]
	if p == nil {
		return nil, nil // its exec was lost, which is counted
	}
	switch d.Which {
	case dataArgv:
		if d.Offset == uint64(len(p.argv)) && uint64(len(p.argv)+len(body)) <= p.want {
			p.argv = append(p.argv, body...)
		}
		p.got = max(p.got, d.Offset+uint64(d.Len))
	case dataCwd:
		p.entry.Process.Cwd = joined(body)
	case dataExe:
		p.entry.Process.Path = joined(body)
	}
	if p.got >= p.want {
		return r.finish(k), nil
	}
	return nil, nil
}

// joined makes a path of its names, which come last first, each with a NUL.
func joined(b []byte) string {
	names := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	slices.Reverse(names)
	return path.Join("/", strings.Join(names, "/"))
}

// finish turns a part into its entry.
func (r *reader) finish(k key) []ledger.Entry {
	p := r.parts[k]
	delete(r.parts, k)
	e := p.entry
	if len(p.argv) > 0 {
		e.Process.Argv = strings.Split(strings.TrimSuffix(string(p.argv), "\x00"), "\x00")
	}
	e.Process.ArgvCut = p.want - uint64(len(p.argv))
	return []ledger.Entry{e}
}

// overdue finishes the parts that have waited for longer than any CPU can
// hold a record back: what is missing of them was lost.
func (r *reader) overdue(now time.Time) []ledger.Entry {
	var done []ledger.Entry
	r.order = slices.DeleteFunc(r.order, func(k key) bool {
		p, ok := r.parts[k]
		if ok && now.Sub(p.born) > time.Second {
			done = append(done, r.finish(k)...)
			return true
		}
		return !ok
	})
	return done
}

func (r *reader) exit(raw []byte) ([]ledger.Entry, error) {
	var l bpf.WatchLeave
	if _, err := binary.Decode(raw, binary.LittleEndian, &l); err != nil {
		return nil, errRecord
	}
	e := r.entry(ledger.Exit, l.Head)
	e.Process.IDs = ledger.IDs{UID: l.Ids.Uid, EUID: l.Ids.Euid, GID: l.Ids.Gid, EGID: l.Ids.Egid}
	e.Process.OldIDs = e.Process.IDs
	e.Process.Comm = text(l.Comm[:])
	e.Process.Signal = l.Code & 0x7f
	e.Process.ExitCode = l.Code >> 8 & 0xff
	e.Process.Lasted = time.Duration(l.LastedNs) //nolint:gosec // nanoseconds since boot fit
	return []ledger.Entry{e}, nil
}

func (r *reader) setID(raw []byte) ([]ledger.Entry, error) {
	var s bpf.WatchSetid
	if _, err := binary.Decode(raw, binary.LittleEndian, &s); err != nil {
		return nil, errRecord
	}
	e := r.entry(ledger.SetID, s.Head)
	p := e.Process
	p.OldIDs = ledger.IDs{UID: s.Old.Uid, EUID: s.Old.Euid, GID: s.Old.Gid, EGID: s.Old.Egid}
	p.IDs = ledger.IDs{UID: s.New.Uid, EUID: s.New.Euid, GID: s.New.Gid, EGID: s.New.Egid}
	p.Comm = text(s.Comm[:])
	return []ledger.Entry{e}, nil
}
