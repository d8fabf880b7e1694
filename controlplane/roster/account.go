package roster

import (
	"log/slog"
	"time"
)

// An Account is what a person is to the provider at which she signs in.
type Account struct {
	Issuer  string
	Subject string // the provider gives it to nobody else, ever
	Person  string
}

// A Line is a command line that a browser is to sign in.
type Line struct {
	Device []byte // its public key
	Name   string
	Port   uint16 // where it listens on the person's own machine; 0: nowhere
	State  string // that it knows its answer by
}

// A Returned is what a provider sent a browser back with.
type Returned struct {
	Code, State, Issuer, Error string
}

// LogValue keeps the code out of logs.
func (Returned) LogValue() slog.Value { return slog.StringValue("[secret]") }

// An Arrived is somebody for whom the provider vouched, and how far she has
// come with us.
type Arrived struct {
	Person string
	Pass   string // what the next step has to bring
	To     string // the page that she wanted
	Bound  bool   // the account is hers; if not, she has to prove it
	Line   bool   // it is for a command line, and not for the browser
	Name   string // of the command line
	Check  string // what the command line shows as well
	Factors
}

// An Arrival is what a sign-in at the provider comes to.
type Arrival struct {
	Account
	Bind       bool     // the account is new, and its person has just proved herself
	Groups     []string // that the provider says she is in; nil: it was not asked
	Manager    string   // that it says she has; empty: none
	Session    Session
	DeviceName string // of a device that may be new
}

// A LineLogin is how a command line takes the session that a browser opened
// for it.
type LineLogin struct {
	Pass      string
	Device    []byte
	At        int64 // seconds since 1970
	Signature []byte
}

// LogValue keeps the pass out of logs.
func (LineLogin) LogValue() slog.Value { return slog.StringValue("[secret]") }

// A Landing is where a browser goes when it has signed a command line in.
type Landing struct {
	URL     string // where it listens; empty: nowhere
	Pass    string // what it has to be given
	Expires time.Time
}
