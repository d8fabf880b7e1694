// Package ledger says what the record is made of: entries and receipts, the log
// over them, and how both are checked.
//
// It stores nothing and sends nothing. An entry holds what was observed; what
// could not be observed is an entry too, a gap.
package ledger

import (
	"errors"
	"fmt"
	"time"

	"curfew.internal/canon"
)

// A Kind is what an entry tells of.
type Kind uint32

// The kinds of entries. Numbers are part of the format and never reused.
const (
	Exec        Kind = iota + 1 // a labelled process started a program
	Exit                        // a labelled process ended
	SetID                       // a labelled process changed its uids or gids
	Login                       // the door let a session in
	Logout                      // a session ended
	Refused                     // the door said no; Text says why
	Gap                         // Lost events are missing; Text says between what
	Installed                   // all that a grant calls for is on the host
	Removed                     // a grant's end; Receipt is the host's word on it
	SetRefused                  // a grant set, keyring or grant was not accepted
	Drift                       // somebody changed a thing of ours; it was put right
	Agent                       // the agent started, stopped or changed its mode
	Admin                       // somebody changed who or what the fleet is; Text says how
	Leftovers                   // what a grant's sessions left; Receipt is the host's word on it
	Decision                    // a step in a request's life, told by the control plane
	Connect                     // a labelled process began a connection to Object
	Open                        // a labelled process opened Object for writing, a file that matters
	Act                         // a labelled process acted on the machine or on others; Text says how
	Privilege                   // a process of a login without a grant gained privilege
	WouldRefuse                 // sudo or su without a grant, let through on a host that only observes
	Terminal                    // what of a session's terminal is recorded; Receipt is the host's word on a segment

	// A host's seals have 22: [Sealed].

	SignIn    Kind = 23 // Person was let in to the control plane, or was not, or left; Step says which, Object the session
	Witnessed Kind = 24 // what the witness Object makes of the log; Step says it in a word
	Named     Kind = 25 // a labelled process gave the name Object to a file, or took it away, in a place that matters
)

// Demanded is what the text of a Gap says where a role demands a whole record.
const Demanded = "a role demands a whole record"

var kindNames = map[Kind]string{
	Exec: "exec", Exit: "exit", SetID: "setid", Login: "login", Logout: "logout", Refused: "refused", Gap: "gap",
	Installed: "installed", Removed: "removed", SetRefused: "set-refused", Drift: "drift", Agent: "agent", Admin: "admin",
	Leftovers: "leftovers", Decision: "decision", Connect: "connect", Open: "open", Act: "act", Privilege: "privilege",
	WouldRefuse: "would-refuse",
	Terminal:    "terminal", Sealed: "sealed", SignIn: "sign-in", Witnessed: "witness", Named: "name",
}

// String is the kind's name in pages and searches.
func (k Kind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind-%d", uint32(k))
}

// KindNamed returns the kind with a name, or zero.
func KindNamed(name string) Kind {
	for k, n := range kindNames {
		if n == name {
			return k
		}
	}
	return 0
}

// An Entry is one thing that a host reports.
type Entry struct {
	Kind Kind
	At   time.Time // UTC, nanoseconds
	Host string    // empty: the control plane itself
	Boot string    // the kernel's boot id

	Grant      string
	Person     string
	Approvers  []string
	Session    uint64 // the label; zero if none
	SessionSeq uint64 // numbered in the kernel from 1, for what a Process did; of a Gap: the first that is missing

	Process *Process // of what the kernel tells; the caller for Login and Refused; the writer for Drift
	Service string   // PAM service, for Login, Logout, Refused
	Text    string   // one line for people
	Lost    uint64   // for Gap
	Took    time.Duration
	Receipt []byte // for Removed, Leftovers: the envelope of a [Receipt] or [LeftoversReceipt], verbatim

	// For Decision, and Step for SignIn and Witnessed.
	Request string
	Step    string // asked, approved, signed, revoked, ...
	Digest  []byte // of what was asked, as approvers were shown it
	Signed  []byte // the envelope of the grant, verbatim, where one was made

	Object string    // for Connect, Open, Named, Act: an address, a path, a process, ...; for SignIn: the session; for Witnessed: the witness
	Since  time.Time // for Gap: nothing before is missing; At: nothing after. Zero, if that is not known
}

// IDs are a process's user and group ids, and its permitted capabilities
// outside of user namespaces, bit by bit.
type IDs struct {
	UID, EUID, GID, EGID uint32
	Caps                 uint64
}

// A Process is what the kernel said of one.
type Process struct {
	PID, PPID uint32 // in the innermost pid namespace
	IDs       IDs
	OldIDs    IDs // before the exec or the change
	Comm      string
	Path      string // as the kernel resolved it
	Argv      []string
	ArgvCut   uint64 // bytes of argv that were not recorded
	Cwd       string
	TTY       string
	Device    uint64
	Inode     uint64
	Links     uint32 // 0: the file has no name (memfd, deleted)
	ExitCode  uint32
	Signal    uint32
	Lasted    time.Duration // for Exit: since the exec or fork
	Env       []string      // the variables that are told: NAME=VALUE
	EnvCut    uint64        // bytes of the environment that were not looked at, or had no room
	Script    string        // what was to be executed, where Path is its interpreter's
	Login     uint32        // the uid that logged in (pam_loginuid(8)); zero for none, and for root
}

// ErrEntry is the class of refusals of bytes that are no entry.
var ErrEntry = errors.New("malformed entry")

// Bytes is the entry's canonical form; docs/protocol/record.md has the schema.
func (e Entry) Bytes() []byte {
	var w canon.Writer
	w.Uint(1, uint64(e.Kind))
	w.Nanos(2, e.At)
	w.Text(3, e.Host)
	w.Text(4, e.Boot)
	w.Text(5, e.Grant)
	w.Text(6, e.Person)
	w.Texts(7, e.Approvers)
	w.Uint(8, e.Session)
	w.Uint(9, e.SessionSeq)
	if e.Process != nil {
		w.Item(10, e.Process.bytes())
	}
	w.Text(11, e.Service)
	w.Text(12, e.Text)
	w.Uint(13, e.Lost)
	w.Uint(14, uint64(max(0, e.Took)))
	w.Blob(15, e.Receipt)
	w.Text(16, e.Request)
	w.Text(17, e.Step)
	w.Blob(18, e.Digest)
	w.Blob(19, e.Signed)
	w.Text(20, e.Object)
	w.Nanos(21, e.Since)
	return w.Bytes()
}

// ParseEntry reads an entry, and refuses every spelling but the canonical one.
// Of an entry of a later version it reads what this one knows. Text from the
// kernel need not be UTF-8: whoever builds an entry makes it so.
func ParseEntry(b []byte) (Entry, error) {
	var e Entry
	if err := told(b, e.field, &e); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrEntry, err)
	}
	return e, nil
}

// told reads what hosts tell. Agents are upgraded before the control plane and
// after it: what a later version adds to its words is passed over, and the
// bytes are kept as they came. Nobody gains a thing by it.
func told(b []byte, field func(canon.Field) error, as interface{ Bytes() []byte }) error {
	later, err := canon.ReadLater(b, field)
	if err == nil && !later {
		err = canon.Same(b, as.Bytes())
	}
	return err
}

func (e *Entry) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Uint32((*uint32)(&e.Kind))
	case 2:
		return f.Nanos(&e.At)
	case 3:
		return f.Text(&e.Host)
	case 4:
		return f.Text(&e.Boot)
	case 5:
		return f.Text(&e.Grant)
	case 6:
		return f.Text(&e.Person)
	case 7:
		return f.Texts(&e.Approvers)
	case 8:
		return f.Uint(&e.Session)
	case 9:
		return f.Uint(&e.SessionSeq)
	case 10:
		e.Process = &Process{}
		return f.Message(e.Process.field)
	case 11:
		return f.Text(&e.Service)
	case 12:
		return f.Text(&e.Text)
	case 13:
		return f.Uint(&e.Lost)
	case 14:
		return duration(f, &e.Took)
	case 15:
		return f.Blob(&e.Receipt)
	case 16:
		return f.Text(&e.Request)
	case 17:
		return f.Text(&e.Step)
	case 18:
		return f.Blob(&e.Digest)
	case 19:
		return f.Blob(&e.Signed)
	case 20:
		return f.Text(&e.Object)
	case 21:
		return f.Nanos(&e.Since)
	}
	return f.Unknown()
}

func (p Process) bytes() []byte {
	var w canon.Writer
	w.Uint(1, uint64(p.PID))
	w.Uint(2, uint64(p.PPID))
	w.Blob(3, p.IDs.bytes())
	w.Blob(4, p.OldIDs.bytes())
	w.Text(5, p.Comm)
	w.Text(6, p.Path)
	w.Texts(7, p.Argv)
	w.Uint(8, p.ArgvCut)
	w.Text(9, p.Cwd)
	w.Text(10, p.TTY)
	w.Uint(11, p.Device)
	w.Uint(12, p.Inode)
	w.Uint(13, uint64(p.Links))
	w.Uint(14, uint64(p.ExitCode))
	w.Uint(15, uint64(p.Signal))
	w.Uint(16, uint64(max(0, p.Lasted)))
	w.Texts(17, p.Env)
	w.Uint(18, p.EnvCut)
	w.Text(19, p.Script)
	w.Uint(20, uint64(p.Login))
	return w.Bytes()
}

func (p *Process) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Uint32(&p.PID)
	case 2:
		return f.Uint32(&p.PPID)
	case 3:
		return f.Message(p.IDs.field)
	case 4:
		return f.Message(p.OldIDs.field)
	case 5:
		return f.Text(&p.Comm)
	case 6:
		return f.Text(&p.Path)
	case 7:
		return f.Texts(&p.Argv)
	case 8:
		return f.Uint(&p.ArgvCut)
	case 9:
		return f.Text(&p.Cwd)
	case 10:
		return f.Text(&p.TTY)
	case 11:
		return f.Uint(&p.Device)
	case 12:
		return f.Uint(&p.Inode)
	case 13:
		return f.Uint32(&p.Links)
	case 14:
		return f.Uint32(&p.ExitCode)
	case 15:
		return f.Uint32(&p.Signal)
	case 16:
		return duration(f, &p.Lasted)
	case 17:
		return f.Texts(&p.Env)
	case 18:
		return f.Uint(&p.EnvCut)
	case 19:
		return f.Text(&p.Script)
	case 20:
		return f.Uint32(&p.Login)
	}
	return f.Unknown()
}

func (i IDs) bytes() []byte {
	var w canon.Writer
	w.Uint(1, uint64(i.UID))
	w.Uint(2, uint64(i.EUID))
	w.Uint(3, uint64(i.GID))
	w.Uint(4, uint64(i.EGID))
	w.Uint(5, i.Caps)
	return w.Bytes()
}

func (i *IDs) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Uint32(&i.UID)
	case 2:
		return f.Uint32(&i.EUID)
	case 3:
		return f.Uint32(&i.GID)
	case 4:
		return f.Uint32(&i.EGID)
	case 5:
		return f.Uint(&i.Caps)
	}
	return f.Unknown()
}

func duration(f canon.Field, to *time.Duration) error {
	var v uint64
	if err := f.Uint(&v); err != nil {
		return err
	}
	if v > 1<<63-1 {
		return fmt.Errorf("field %d: %w", f.Num, canon.ErrMalformed)
	}
	*to = time.Duration(v)
	return nil
}
