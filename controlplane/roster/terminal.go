package roster

import (
	"crypto/ed25519"
	"time"
)

// A Terminal is the recording of one, as far as it has come.
type Terminal struct {
	Host, ID      string
	Session       uint64
	Grant, Person string
	Role          string
	Started       time.Time
	Seen          time.Time // when its last segment was sealed
	Ended         time.Time // zero: it goes on
	Why           string    // it ended
	Segments      int
	Bytes, Lost   uint64
	Deleted       bool // what it showed is, as the retention of its role says
}

// A TerminalSearch says which recordings are wanted. Empty fields do not
// narrow it.
type TerminalSearch struct {
	ID                  string // of a recording, or of its session in hex
	Grant, Person, Host string
	Since, Until        time.Time
	For                 string // as in [Search]
	Limit               int
}

// A Segment is what a host signed of one part of a recording.
type Segment struct {
	Number    uint64
	Digest    []byte // none: it is the end
	Statement []byte // envelope
	Key       ed25519.PublicKey
}

// Sessions is what a host is told of its sessions.
type Sessions struct {
	Watched []uint64
	Ended   map[uint64]string // by whom
}
