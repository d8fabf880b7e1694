// Package roster says what the control plane knows of hosts and people.
//
// It holds plain values that the rooms of the control plane pass to each
// other; it stores nothing and decides nothing.
package roster

import (
	"crypto/ed25519"
	"errors"
	"log/slog"
	"time"
)

// What a look-up or a change can come to, whatever stores it.
var (
	ErrUnknown        = errors.New("not known")
	ErrExists         = errors.New("exists already")
	ErrUsed           = errors.New("used already, or expired")
	ErrDecommissioned = errors.New("decommissioned")
	ErrDisabled       = errors.New("disabled")
	ErrRevoked        = errors.New("revoked")
	ErrApart          = errors.New("held, and kept apart")
	ErrNotAway        = errors.New("does not stand in")
	ErrTooMany        = errors.New("too many already")
	ErrMember         = errors.New("a member that is not known")
	ErrLastFactor     = errors.New("the last factor of a person")
	ErrLastAdmin      = errors.New("the last admin of the fleet")
	ErrLabels         = errors.New("labels are not those of the join code")
)

// A Host is a machine that enrolled.
type Host struct {
	Name        string
	Labels      map[string]string
	Addresses   []string // host or host:port of its sshd
	SSHHostKeys []string // authorized_keys format
	ReceiptKey  ed25519.PublicKey
	Identity    string // random, new at each enrolment, in every certificate: tells a host from its former self
	EnrolledAt  time.Time

	Decommissioned bool
	Leaving        uint64    // the set that it has yet to take after that; 0: none
	LeftAt         time.Time // when it had, and nothing stood on it any more

	// What it last said.
	Seen         time.Time
	AgentVersion string
	Mode         string
	Boot         string
	Applied      uint64   // revision
	Refused      string   // why it did not accept the last set; empty: it did
	Unwired      []string // what sshd, sudo and PAM lack to ask the agent
	Ahead        uint64   // the revision that it keeps, if the control plane has not given it: the database was set back
	Access       string   // to sudo and su without a grant: observe, enforce; empty: not known
	Examined     time.Time
	Findings     []Finding // of its doctor, at that time
}

// A Finding is something that is wrong with a host, as its doctor said.
type Finding struct {
	Check    string `json:"check"`
	Severity string `json:"severity"` // note, warning, broken
	Says     string `json:"says"`
	Mend     string `json:"mend"`
}

// A JoinToken lets one host enrol. Only the hash of its secret is kept.
type JoinToken struct {
	Hash    [32]byte // SHA-256 of the secret
	Host    string   // empty: any name
	Labels  map[string]string
	Expires time.Time
	By      string
}

// An Act is who changes the fleet, and when. The record tells it with the
// change.
type Act struct {
	By string
	At time.Time
}

// A Person is somebody who can sign in.
type Person struct {
	Name     string
	FullName string
	UID      uint32
	Admin    bool
	Disabled bool
	Enrolled bool   // has a factor
	Email    string // where she is told what concerns her; empty: nowhere
}

// An Invite lets one person enrol a device and a second factor. Only the hash
// of its secret is kept.
type Invite struct {
	Hash    [32]byte
	Person  string
	Expires time.Time
	// Pending is the factor shown to the holder, until it is proved.
	Pending TOTP
	Device  ed25519.PublicKey // that it was shown to
	// Adds says that what is enrolled with it comes beside what its person
	// has, and not in its place.
	Adds bool
}

// TOTP is a second factor (RFC 6238, SHA-1, 6 digits, 30 s).
type TOTP struct {
	Secret   []byte
	LastStep uint64 // the last time step accepted; it and all before it are used up
	Failures uint32 // in a row
	RetryAt  time.Time
	// RefusedAt is set on a factor whose code was wrong just now.
	RefusedAt time.Time
}

// LogValue keeps the secret out of logs.
func (TOTP) LogValue() slog.Value { return slog.StringValue("[secret]") }

// A Device is a key of a person's, made by her command line.
type Device struct {
	Key     ed25519.PublicKey
	Person  string
	Name    string
	AddedAt time.Time
}

// A Session is a signed-in device or browser.
type Session struct {
	ID      string
	Person  string
	Device  ed25519.PublicKey // empty for a browser
	Name    string            // of the device, or what the browser says it is
	Browser bool
	Begun   time.Time // of a browser's
	Expires time.Time
	Proved  time.Time // when its person last proved herself with a factor
}

// A Record is one ledger entry as a host numbered it.
type Record struct {
	Seq   uint64
	Entry []byte
}

// A Report is what a host says of the set it was sent.
type Report struct {
	Revision uint64
	Refused  string
	Settled  bool
	Unwired  []string
	Access   string
	Examined time.Time
	Findings []Finding
}

// A State is what a host is to hold: two envelopes, verbatim.
type State struct {
	Revision uint64
	Keyring  []byte
	Set      []byte
	Ahead    bool   // the host keeps a revision that was never given: it is sent nothing
	Roster   uint64 // the newest version of the roster of people's keys; 0: none
}
