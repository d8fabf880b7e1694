package roster

import (
	"encoding/json"
	"time"
)

// A Passkey is a WebAuthn credential of a person's.
type Passkey struct {
	ID      []byte
	Person  string
	Name    string // that she gave it
	Body    []byte // the credential, sealed by controlplane/identity
	AddedAt time.Time
	UsedAt  time.Time
	Locked  bool // its counter went back: somebody has a copy of it
	// RefusedAt is set on one whose answer was wrong just now.
	RefusedAt time.Time
}

// A Ceremony is what a browser hands to a passkey, and what it has to bring
// back with the passkey's answer.
type Ceremony struct {
	Options json.RawMessage `json:"options"`
	Token   string          `json:"token"`
}

// An Answer is what the browser brings back.
type Answer struct {
	Token  string          `json:"token"`
	Answer json.RawMessage `json:"answer"`
}

// Factors are what a person can prove herself with.
type Factors struct {
	Passkeys []Passkey
	TOTP     bool
}

// Own is what a person is told of herself.
type Own struct {
	Factors
	Sessions []Session
	Session  Session // the present one
}

// A Code lets somebody enrol.
type Code struct {
	Text    string // for the command line
	Link    string // for a browser; empty without pages
	Expires time.Time
}

// A Link lets one browser sign in, once.
type Link struct {
	URL     string
	Expires time.Time
}
