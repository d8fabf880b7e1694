// Package terminal is the form of what is said about a terminal that is to be
// recorded: by the shell that a person logs in to, by the recorder, and by the
// agent.
//
// Every message is one packet of JSON on a SOCK_SEQPACKET socket;
// docs/terminals.md tells who says what. The package opens no socket, and takes
// no key that it does not know.
package terminal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxMessage bounds a message, in bytes.
const MaxMessage = 4096

// A Login is the shell's first word to the recorder. With it goes the terminal,
// if there is one.
type Login struct {
	Terminal bool   `json:"terminal"`
	Term     string `json:"term,omitempty"` // TERM, for whoever replays
}

// The recorder's answers. Every other than these is no.
const (
	Record = "record" // with it goes the terminal to run the shell on
	Bare   = "bare"   // run the shell on what there is
	Refuse = "refuse"
)

// A Verdict is the recorder's answer to a login.
type Verdict struct {
	Go      string `json:"go"`
	TTY     string `json:"tty,omitempty"`     // name of the new terminal
	Message string `json:"message,omitempty"` // a line for the person
}

// What the shell says later, and the recorder's last word.
const (
	Resized = "resized" // the person's window has another size
	Exited  = "exited"  // her shell has ended
	Done    = "done"    // all that it wrote is shown
)

// A Notice is one of those.
type Notice struct {
	Say string `json:"say"`
}

// A Question is the recorder's to the agent: who is the process that logs in.
type Question struct {
	PID      int  `json:"pid"`
	Terminal bool `json:"terminal"`
}

// An Answer is the agent's. It is no if it names no session.
type Answer struct {
	Session uint64 `json:"session,omitempty"`
	Grant   string `json:"grant,omitempty"`
	Person  string `json:"person,omitempty"`
	Role    string `json:"role,omitempty"`
	Boot    string `json:"boot,omitempty"`

	Unseen bool  `json:"unseen,omitempty"` // nothing is recorded
	Typed  bool  `json:"typed,omitempty"`  // what is typed is recorded too
	Strict bool  `json:"strict,omitempty"` // the session ends when it cannot be recorded
	Quota  int64 `json:"quota,omitempty"`  // bytes that recordings may take on this host

	Refused string `json:"refused,omitempty"` // why not, for the person
}

// ErrForm refuses what is no message.
var ErrForm = errors.New("not a message about a terminal")

// Encode is the message's form.
func Encode(m any) ([]byte, error) {
	b, err := json.Marshal(m)
	if err == nil && len(b) > MaxMessage {
		err = fmt.Errorf("%d bytes: %w", len(b), ErrForm)
	}
	return b, err
}

// Decode reads one message, and nothing behind it.
func Decode(b []byte, m any) error {
	if len(b) > MaxMessage {
		return fmt.Errorf("%d bytes: %w", len(b), ErrForm)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("more than one: %w", ErrForm)
	}
	return nil
}
