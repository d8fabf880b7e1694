// Package remains finds what a granted session may leave on a host that acts,
// or lets somebody act, once the session is over, and removes what it is told to.
//
// It decides nothing: what a role has removed is the caller's to say, and who
// wrote a file is the record's. It never follows a link or a mount that a
// session could have made, never removes a package's file, and puts no old
// content back. What it could not look at it says.
//
// What it does not look for, since it ends with its process: POSIX timers,
// inotify watches, open sockets, name spaces that no file pins.
package remains

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"curfew.internal/grant"
)

// A Kind is what a finding is, in the words of roles and receipts.
type Kind string

// The kinds of findings.
const (
	Linger         Kind = "linger"
	UserUnit       Kind = "user-unit"
	Crontab        Kind = "crontab"
	AtJob          Kind = "at-job"
	AuthorizedKeys Kind = "authorized-keys"
	Setuid         Kind = "setuid"
	Capability     Kind = "capability"
	Device         Kind = "device"
	Multiplexer    Kind = "multiplexer" // sockets of tmux, screen and their like
	Timer          Kind = "timer"
	SystemUnit     Kind = "system-unit"
	SystemCron     Kind = "system-cron"
	SudoRule       Kind = "sudo-rule"
	PAM            Kind = "pam"
	SSHConfig      Kind = "ssh-config"
	AccountFile    Kind = "account-file" // passwd, shadow, group and what decides who reads them
	Preload        Kind = "preload"
	UdevRule       Kind = "udev-rule"
	Module         Kind = "module"
	Profile        Kind = "profile" // what root's shells run when they start
	Hook           Kind = "hook"    // what other programs of root's run
	Policy         Kind = "policy"  // polkit and D-Bus: who may ask root for what
	Program        Kind = "program" // programs that logins go through
	KernelValue    Kind = "kernel-value"
	BPFPin         Kind = "bpf-pin"
	Mount          Kind = "mount"
	SharedMemory   Kind = "shared-memory"
	RuntimeDir     Kind = "runtime-dir"
	TempFile       Kind = "temp-file"
	Mail           Kind = "mail"
	OwnedFile      Kind = "owned-file" // anywhere else
)

// Inert reports whether what is of this kind runs by itself, and opens a
// door, for nobody: it is left over, but it holds no privilege.
func (k Kind) Inert() bool {
	return k == TempFile || k == Mail || k == OwnedFile || k == SharedMemory
}

// An Identity is what a file is beside its name, so that what is removed is
// what was found.
type Identity struct {
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	UID  uint32 `json:"uid"`
	Type uint16 `json:"type"`
	Born int64  `json:"born,omitempty"` // ns; 0 where the file system does not tell
}

// A Finding is one thing that is left.
type Finding struct {
	Kind   Kind   `json:"kind"`
	Path   string `json:"path"` // or a name, of what is no file
	Detail string `json:"detail"`
	// Removable says that Remove can take it: a file that the session made or
	// owns. What was there before, and was changed, it cannot.
	Removable bool     `json:"removable"`
	ID        Identity `json:"id"`
	Also      []Kind   `json:"also,omitempty"` // what else it is, such as a setuid file among programs
	Err       error    `json:"-"`              // why it could not be removed
}

// asJSON is a finding as it is written: JSON has no text but UTF-8, and names of
// files may be any bytes.
type asJSON struct {
	plain
	Bytes []byte `json:"bytes,omitempty"` // the path, where it is no such text
}

type plain Finding

// MarshalJSON implements [json.Marshaler].
func (f Finding) MarshalJSON() ([]byte, error) {
	j := asJSON{plain: plain(f)}
	if !utf8.ValidString(f.Path) {
		j.Bytes = []byte(f.Path)
	}
	return json.Marshal(j)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (f *Finding) UnmarshalJSON(b []byte) error {
	var j asJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*f = Finding(j.plain)
	if len(j.Bytes) > 0 {
		f.Path = string(j.Bytes)
	}
	return nil
}

// Is reports whether the finding is of one of the kinds.
func (f Finding) Is(kinds ...Kind) bool {
	return slices.ContainsFunc(kinds, func(k Kind) bool { return k == f.Kind || slices.Contains(f.Also, k) })
}

// String is the finding as a receipt tells it.
func (f Finding) String() string {
	name := f.Path
	if strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) {
		name = strconv.Quote(name)
	}
	return fmt.Sprintf("%s %s: %s", f.Kind, name, f.Detail)
}

// A Session is whose remains are looked for.
type Session struct {
	Person string
	UID    uint32
	Since  time.Time // when the first session of the grant opened
}

func (s Session) check() error {
	if s.UID < grant.UIDMin || s.UID > grant.UIDMax || grant.CheckPerson(s.Person) != nil {
		return fmt.Errorf("%q with uid %d is not one of ours", s.Person, s.UID)
	}
	if s.Since.IsZero() {
		return errors.New("a session that never began left nothing")
	}
	return nil
}

// A Host is the machine below Root, which is "/" in life.
type Host struct {
	Root string
	// Names is how many names a look at the file systems may cost; 0 is
	// twenty million. The context bounds its time.
	Names int
	// Away are folders and files that are not asked, nor what lies below them:
	// whoever is to answer there does not.
	Away []string
	// Tell is told what is asked next, before it can keep us waiting, and with
	// nothing new every now and then; it may be nil.
	Tell func(file string)
}

// A Found is what a look came to.
type Found struct {
	Findings []Finding
	Looked   []string // where
	Skipped  []string // where not, and why
}
