// Package shell is the form of what the agent and a person's shell on its host
// say to each other when she types sudo without a grant that allows it.
//
// One JSON object a packet, over a SOCK_SEQPACKET socket: docs/elevation.md
// tells the order. The package opens no socket, and takes nothing that has
// fields which it does not know.
package shell

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MaxPacket bounds a packet, in bytes.
const MaxPacket = 64 << 10

// A Typed is what stands behind sudo.
type Typed struct {
	RunAs     string   `json:"run_as"`
	Paths     []string `json:"paths,omitempty"` // of the program: the same file in each spelling, sudo's own first
	Args      []string `json:"args,omitempty"`
	Shell     bool     `json:"shell,omitempty"` // no program, but a shell: Args is what was typed
	Directory string   `json:"directory"`
}

// A Choice is what the person asks for.
type Choice struct {
	Role   string        `json:"role"`
	Reason string        `json:"reason,omitempty"`
	Ticket string        `json:"ticket,omitempty"`
	Code   string        `json:"code"` // of her second factor
	For    time.Duration `json:"for"`
}

// A Line is what the shell says: one of its fields.
type Line struct {
	Typed  *Typed  `json:"typed,omitempty"`
	Choice *Choice `json:"choice,omitempty"`
	GiveUp bool    `json:"give_up,omitempty"`
}

// An Offer is a role that would allow what was typed.
type Offer struct {
	Role        string        `json:"role"`
	Description string        `json:"description,omitempty"`
	Most        time.Duration `json:"most"`
	Reason      bool          `json:"reason,omitempty"` // required
	Ticket      bool          `json:"ticket,omitempty"` // required
	Approvers   []string      `json:"approvers,omitempty"`
	Needed      int           `json:"needed,omitempty"`
}

// A State is how a request stands.
type State struct {
	Request  string    `json:"request"`
	WaitsFor string    `json:"waits_for,omitempty"`
	Lapses   time.Time `json:"lapses"`
	Approved []string  `json:"approved,omitempty"`
	Away     bool      `json:"away,omitempty"` // the control plane does not answer for now
}

// A Run says that sudo may be called: to allow or refuse is sudo's.
type Run struct {
	Grant    string    `json:"grant,omitempty"` // if it was asked for here
	Role     string    `json:"role,omitempty"`
	Approved []string  `json:"approved,omitempty"`
	Until    time.Time `json:"until,omitzero"`
}

// A Reply is what the agent says: one of its fields.
type Reply struct {
	Host   string  `json:"host"`
	Run    *Run    `json:"run,omitempty"`
	Offers []Offer `json:"offers,omitempty"`
	State  *State  `json:"state,omitempty"`
	No     string  `json:"no,omitempty"` // why it is over
}

// ErrForm refuses bytes that are not of the form.
var ErrForm = errors.New("not a message between shell and agent")

// Bytes is the packet.
func Bytes[T Line | Reply](v T) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxPacket {
		return nil, fmt.Errorf("over %d bytes: %w", MaxPacket, ErrForm)
	}
	return b, nil
}

// ParseLine reads what the shell said.
func ParseLine(b []byte) (Line, error) {
	var l Line
	if err := parse(b, &l); err != nil {
		return Line{}, err
	}
	return l, one(l.Typed != nil, l.Choice != nil, l.GiveUp)
}

// ParseReply reads what the agent said.
func ParseReply(b []byte) (Reply, error) {
	var r Reply
	if err := parse(b, &r); err != nil {
		return Reply{}, err
	}
	return r, one(r.Run != nil, len(r.Offers) > 0, r.State != nil, r.No != "")
}

func parse(b []byte, to any) error {
	if len(b) > MaxPacket {
		return fmt.Errorf("over %d bytes: %w", MaxPacket, ErrForm)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	if d.More() {
		return fmt.Errorf("something behind it: %w", ErrForm)
	}
	return nil
}

// one wants exactly one.
func one(said ...bool) error {
	n := 0
	for _, s := range said {
		if s {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("says %d things, not one: %w", n, ErrForm)
	}
	return nil
}
