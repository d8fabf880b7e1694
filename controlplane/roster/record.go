package roster

import (
	"crypto/ed25519"
	"time"

	"curfew.internal/ledger"
)

// An Enrolment is what using an invite gives: a device that is signed in and
// its factor, or a passkey and a browser that is signed in.
type Enrolment struct {
	Invite     [32]byte
	Factor     TOTP
	DeviceName string
	Passkey    *Passkey // in place of the two above
	Session    Session
}

// Malformed is the kind of an entry that could not be read, or that tells of
// a grant that has nothing to do with its host. It is kept as it came.
const Malformed = "malformed"

// An Event is an entry of a host as it was kept.
type Event struct {
	ID         uint64
	Kind       string
	Host       string            // who sent it
	Role       string            // of the grant
	ReceiptOK  bool              // the host signed its receipt, for this host and grant
	ReceiptKey ed25519.PublicKey // that the host had when it sent its receipt
	Entry      ledger.Entry
	Deleted    bool // but for what it is about
	Size       int  // bytes of the entry as it came
}

// EventBytes is about as many bytes of events as are looked at together: one
// entry may have megabytes of a program's arguments.
const EventBytes = 4 << 20

// More reports whether there may be more events behind those that a search for
// so many returned.
func More(events []Event, limit int) bool {
	size := 0
	for _, v := range events {
		size += v.Size
	}
	return len(events) > 0 && (len(events) >= limit || size >= EventBytes)
}

// A Search says which events are wanted. Empty fields do not narrow it.
type Search struct {
	Grant, Person, Host, Kind string
	Role                      string
	Outcome                   string   // of [Outcomes]
	Path                      string   // the program is this file, or lies under this folder
	Words                     []string // all of them occur
	Since, Until              time.Time
	After                     uint64 // event id
	Limit                     int
	// For is who looks: only events of her own grants and of those that she
	// approved. Empty: everything.
	For string
}

// A Selection is what is exported of the record: what there is about a grant,
// or every entry from the first that tells of Since on.
type Selection struct {
	Grant, Request string
	Since          time.Time
}

// A Decision is a step in a request's life as the control plane saw it.
type Decision struct {
	At     time.Time
	What   string
	Person string
	Host   string
	Text   string
}

// Steps in a request's life that are told apart: a grant was signed; a host has
// not confirmed its grant's end; somebody said something; others may approve
// too, since nobody did; an approval counts no more, as its giver is out; a step
// of the approval is asked that is not always.
const (
	SignedStep      = "signed"
	UnconfirmedStep = "unconfirmed"
	RemarkStep      = "said"
	EscalatedStep   = "escalated"
	UnsaidStep      = "approval-ended"
	DoubtStep       = "doubt"
)

// Steps of sign-ins: somebody was let in, or was not; a session was ended by
// its person, on itself or from another one, or with all that she had.
const (
	SignedIn   = "signed-in"
	TurnedAway = "turned-away"
	SignedOut  = "signed-out"
	CutOff     = "cut-off"
)

// BadSeal is how the text of a gap begins where a host's seal does not hold:
// something was changed, put in or left out on the way from it.
const BadSeal = "a seal does not hold of host"

// Unconfirmed is the end of a grant on a host that has not signed that nothing
// is left of it.
type Unconfirmed struct {
	Request, Grant, Person, Host string
	EndedAt                      time.Time
	Told                         bool // it is a step in the request's life already
	Left                         bool // the host signed a receipt: something is left
}

// A Count is what there is now.
type Count struct {
	Asked, Issued int
	Privileged    int // gains of privilege without a grant, since a time
	Hosts         []string
}
