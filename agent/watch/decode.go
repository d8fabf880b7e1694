package watch

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
	"curfew.internal/ledger"
)

var errRecord = errors.New("malformed record from the kernel")

// pending bounds the argv pieces that wait for their exec. Only those whose
// exec was lost stay, until the gap is reported.
const pending = 16 << 20

// longest is the longest time that a machine is believed to be up, in
// nanoseconds: 36 years.
const longest = 1 << 60

// An event is named by its session and its number in it.
type event struct {
	session, seq uint64
}

// A decoder puts records together to entries.
type decoder struct {
	argv map[event][]byte
	held int // bytes in argv

	// What a record begins with, read anew for each. They are large, since they
	// have room for the text that is read where it lies.
	fixed struct {
		exec bpf.WatchExec
		argv bpf.WatchArgv
		deed bpf.WatchDeed
	}
}

func newDecoder() *decoder { return &decoder{argv: map[event][]byte{}} }

// read takes one record. It reports false for one that is a part of an entry
// to come. boot is what the wall clock showed at time zero since boot.
func (d *decoder) read(b []byte, boot time.Time) (ledger.Entry, bool, error) {
	h, err := load[bpf.WatchHead](b, unsafe.Sizeof(bpf.WatchHead{}))
	if err != nil {
		return ledger.Entry{}, false, err
	}
	if h.BootNs > longest {
		return ledger.Entry{}, false, fmt.Errorf("time %d: %w", h.BootNs, errRecord)
	}
	e := ledger.Entry{At: boot.Add(time.Duration(h.BootNs)), Session: h.Session, SessionSeq: h.Seq}
	switch bpf.WatchKind(h.Kind) {
	case bpf.WatchKindARGV:
		return e, false, d.piece(b)
	case bpf.WatchKindEXEC:
		e.Kind = ledger.Exec
		err = d.exec(b, &e)
	case bpf.WatchKindEXIT:
		e.Kind = ledger.Exit
		err = change(b, &e)
	case bpf.WatchKindSETID:
		e.Kind = ledger.SetID
		err = change(b, &e)
	case bpf.WatchKindREFUSED:
		e.Kind = ledger.Refused
		err = change(b, &e)
	case bpf.WatchKindDEED:
		err = d.deed(b, &e)
	default:
		err = fmt.Errorf("kind %d: %w", h.Kind, errRecord)
	}
	if e.Session == strangers && err == nil {
		gain(&e)
	}
	return e, err == nil, err
}

// piece keeps a piece of argv. One that does not follow on what is there is
// dropped, and shows as cut.
func (d *decoder) piece(b []byte) error {
	a, text := &d.fixed.argv, unsafe.Offsetof(bpf.WatchArgv{}.Text)
	if err := fill(a, b, text); err != nil {
		return err
	}
	rest := b[text:]
	if uint64(a.Len) > uint64(len(rest)) {
		return fmt.Errorf("argv: %w", errRecord)
	}
	key := event{a.Head.Session, a.Head.Seq}
	if uint64(a.Offset) != uint64(len(d.argv[key])) || d.held+int(a.Len) > pending {
		return nil
	}
	d.argv[key] = append(d.argv[key], rest[:a.Len]...)
	d.held += int(a.Len)
	return nil
}

// drop forgets the argv of an event, and returns it.
func (d *decoder) drop(key event) []byte {
	b := d.argv[key]
	delete(d.argv, key)
	d.held -= len(b)
	return b
}

func (d *decoder) exec(b []byte, e *ledger.Entry) error {
	x, text := &d.fixed.exec, unsafe.Offsetof(bpf.WatchExec{}.Text)
	err := fill(x, b, text)
	if err != nil {
		return err
	}
	rest := b[text:]
	take := func(n uint16) []byte {
		if int(n) > len(rest) {
			err = fmt.Errorf("exec: %w", errRecord)
			return nil
		}
		var part []byte
		part, rest = rest[:n], rest[n:]
		return part
	}
	env := take(x.EnvLen)
	path, cwd, name := take(x.PathLen), take(x.CwdLen), take(x.NameLen)
	argv := take(x.ArgvHere)
	if x.ArgvHere == 0 {
		argv = d.drop(event{e.Session, e.SessionSeq})
	}
	if err != nil || len(argv) > int(x.ArgvLen) {
		return fmt.Errorf("exec: %w", errRecord)
	}
	p := process(&x.Process)
	p.Path, p.Cwd = clean(path), clean(cwd)
	words, cut := split(argv)
	p.Argv, p.ArgvCut = words, uint64(x.ArgvLen)-uint64(len(argv))+cut
	p.TTY = tty(x.Tty[:])
	p.Device, p.Inode, p.Links = unix.Mkdev(uint32(x.Dev>>20), uint32(x.Dev&0xfffff)), x.Ino, x.Links //nolint:gosec // 32 bits in the kernel
	p.Env, _ = split(env)
	p.EnvCut = uint64(x.EnvCut)
	if x.Login != noLogin {
		p.Login = x.Login
	}
	if given := clean(name); given != p.Path {
		e.Text = "started as " + given
	}
	if x.Script != 0 {
		p.Script = clean(name)
	}
	e.Process = p
	return nil
}

func change(b []byte, e *ledger.Entry) error {
	c, err := load[bpf.WatchChange](b, unsafe.Sizeof(bpf.WatchChange{}))
	if err != nil {
		return err
	}
	e.Process = process(&c.Process)
	switch e.Kind { //nolint:exhaustive // the others need no more
	case ledger.Refused:
		e.Text = "the kernel refused " + cmp.Or(acts[bpf.GuardAct(c.Code)], fmt.Sprintf("act %d", c.Code))
	case ledger.Exit:
		e.Process.ExitCode = c.Code >> 8 & 0xff
		e.Process.Signal = c.Code & 0x7f
		e.Process.Lasted = time.Duration(min(c.LastedNs, longest))
	}
	return nil
}

func process(p *bpf.WatchProcess) *ledger.Process {
	return &ledger.Process{
		PID: p.Pid, PPID: p.Ppid, Comm: clean(text(p.Comm[:])),
		IDs: ids(p.Ids), OldIDs: ids(p.Old),
	}
}

func ids(i bpf.WatchIds) ledger.IDs {
	return ledger.IDs{UID: i.Uid, EUID: i.Euid, GID: i.Gid, EGID: i.Egid, Caps: i.Caps}
}

// acts are what labelled processes may not do to us.
var acts = map[bpf.GuardAct]string{
	bpf.GuardActSIGNAL: "a signal to the agent", bpf.GuardActTRACE: "to trace the agent", bpf.GuardActLIMIT: "to limit the agent or the first process",
	bpf.GuardActBPF: "bpf()", bpf.GuardActMODULE: "to load code into the kernel", bpf.GuardActCLOCK: "to set the clock",
	bpf.GuardActWRITE: "to write a file that is guarded", bpf.GuardActRENAME: "to rename a file that is guarded",
	bpf.GuardActREMOVE: "to remove a file that is guarded", bpf.GuardActATTRIBUTES: "to change the attributes of a file that is guarded",
	bpf.GuardActMOUNT:  "to change the mounts that guarded files are reached by",
	bpf.GuardActHOLD:   "to have this host wait for it before files are opened (fanotify, a lease)",
	bpf.GuardActFREEZE: "to freeze or shut down a disk that guarded files are on",
}

// roomForArgv is what one entry has for arguments, and wordHead what a word
// takes beside its text. The kernel takes 2 MiB from a process with the usual
// limits, in which it counts eight bytes a word.
const roomForArgv, wordHead = 5 << 19, 8

// split takes argv apart. Each argument ends with a NUL; the last one has
// none if it was cut. Of those that have no room it returns how many bytes
// they are.
func split(argv []byte) (args []string, cut uint64) {
	if len(argv) == 0 {
		return nil, 0
	}
	room := roomForArgv
	for part := range bytes.SplitSeq(bytes.TrimSuffix(argv, []byte{0}), []byte{0}) {
		word := clean(part)
		if room -= len(word) + wordHead; room < 0 {
			cut += uint64(len(part)) + 1
			continue
		}
		args = append(args, word)
	}
	return args, min(cut, uint64(len(argv)))
}

// noLogin is the login's uid of a process that nobody's login started.
const noLogin = 1<<32 - 1

// gain makes of what was told of a process without a label what it is: it
// gained privilege, and no grant says so.
func gain(e *ledger.Entry) {
	how := "by " + e.Kind.String()
	if e.Kind == ledger.SetID && e.Process.Login == 0 {
		e.Process.Login = e.Process.OldIDs.UID
	}
	if e.Kind == ledger.Exec && e.Process.IDs.UID == 0 {
		how = "in a way that was not seen" // it was root already
	}
	e.Kind = ledger.Privilege
	e.Text = fmt.Sprintf("privilege gained without a grant, %s: login uid %d", how, e.Process.Login)
}

// tty names a terminal as ps and who do.
func tty(b []byte) string {
	name := clean(text(b))
	if n, ok := strings.CutPrefix(name, "pts"); ok {
		return "pts/" + n
	}
	return name
}

// text is what stands before the first NUL.
func text(b []byte) []byte {
	before, _, _ := bytes.Cut(b, []byte{0})
	return before
}

// clean makes UTF-8 of what the kernel holds as bytes: a byte that is none is
// written as \xNN, so that two names which differ still do.
func clean(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&s, `\x%02x`, b[0])
		} else {
			s.Write(b[:n])
		}
		b = b[n:]
	}
	return s.String()
}

// load copies the fixed part of a record into the type that C and Go share:
// plain numbers, little endian on both sides.
func load[T any](b []byte, least uintptr) (T, error) {
	var v T
	err := fill(&v, b, least)
	return v, err
}

// fill is load into what is there: what is behind the least stays.
func fill[T any](v *T, b []byte, least uintptr) error {
	if uintptr(len(b)) < least {
		return fmt.Errorf("%d bytes: %w", len(b), errRecord)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))[:least], b) //nolint:gosec // within v
	return nil
}
