package roster

import "fmt"

// A Kind says what is wrong with what somebody asked for.
type Kind int

// Kinds of refusals.
const (
	Invalid  Kind = iota + 1 // it could never be done: ask differently
	Unproven                 // the caller did not prove who she is
	Stale                    // she did, too long ago: a code of her second factor is needed
	Denied                   // it is not hers to do
	Missing                  // there is no such thing, or she may not know of it
	Conflict                 // it cannot be done as things stand
	Taken                    // there is one already
	TooMuch                  // too much, too often
)

// A Refusal is an error whose text is for the person who asked: it says what
// she can do next, and nothing that she may not know.
type Refusal struct {
	Kind Kind
	Text string
}

// Error is the text.
func (r *Refusal) Error() string { return r.Text }

// Refuse makes a refusal.
func Refuse(k Kind, format string, args ...any) error {
	return &Refusal{k, fmt.Sprintf(format, args...)}
}
