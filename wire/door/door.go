// Package door is the form of what the PAM module and the agent say to each
// other, byte by byte.
//
// One question, one reply, each of a fixed size, little endian, over a
// SOCK_SEQPACKET socket; docs/protocol/door.md draws it. The package opens no
// socket, and takes no bytes that it would not have written.
package door

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Sizes of the two messages, in bytes.
const (
	QuestionSize = 12 + 32 + 64 + 64 + 64 + 256
	ReplySize    = 8 + 256
)

const (
	magicQuestion = 0x31305143 // "CQ01"
	magicReply    = 0x31305243 // "CR01"
)

// A Kind is what the module asks.
type Kind uint32

// The kinds of questions.
const (
	Account Kind = iota + 1 // may this account act
	Open                    // a session is about to begin
	Close                   // a session is over
)

// A Verdict is the agent's word. Every other value than these two is no.
type Verdict uint32

// The verdicts.
const (
	Deny     Verdict = 0
	Allow    Verdict = 0x414c4c57 // "ALLW": a live grant stands
	Stranger Verdict = 0x53545247 // "STRG": no account of ours
)

// A Question is what the module knows of the call.
type Question struct {
	Kind    Kind
	Service string // up to 31 bytes
	User    string // PAM_USER, up to 63
	RUser   string // PAM_RUSER, up to 63
	TTY     string // up to 63
	RHost   string // up to 255
}

// A Reply is the verdict and a line for the person.
type Reply struct {
	Verdict Verdict
	Message string // up to 255 bytes
}

// ErrForm refuses bytes that are not of the form.
var ErrForm = errors.New("not a door message")

// field is a NUL-padded text of a fixed size.
type field struct {
	text *string
	size int
}

func (q *Question) fields() []field {
	return []field{{&q.Service, 32}, {&q.User, 64}, {&q.RUser, 64}, {&q.TTY, 64}, {&q.RHost, 256}}
}

// Bytes is the question's form. What ParseQuestion would refuse is an error.
func (q Question) Bytes() ([]byte, error) {
	if q.Kind < Account || q.Kind > Close {
		return nil, fmt.Errorf("question of kind %d: %w", q.Kind, ErrForm)
	}
	b := binary.LittleEndian.AppendUint32(nil, magicQuestion)
	b = binary.LittleEndian.AppendUint32(b, uint32(q.Kind))
	b = binary.LittleEndian.AppendUint32(b, 0)
	return put(b, q.fields())
}

// ParseQuestion reads a question.
func ParseQuestion(b []byte) (Question, error) {
	if len(b) != QuestionSize || binary.LittleEndian.Uint32(b) != magicQuestion || binary.LittleEndian.Uint32(b[8:]) != 0 {
		return Question{}, ErrForm
	}
	q := Question{Kind: Kind(binary.LittleEndian.Uint32(b[4:]))}
	if q.Kind < Account || q.Kind > Close {
		return Question{}, fmt.Errorf("question of kind %d: %w", q.Kind, ErrForm)
	}
	if err := take(b[12:], q.fields()); err != nil {
		return Question{}, err
	}
	return q, nil
}

// Bytes is the reply's form. A message is a line for a person and must not
// cost the verdict: what is too long is cut, what a terminal would act on is
// written as '?'.
func (r Reply) Bytes() []byte {
	b := binary.LittleEndian.AppendUint32(nil, magicReply)
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Verdict))
	text := make([]byte, 256)
	for i := range copy(text[:255], r.Message) {
		if control(text[i]) {
			text[i] = '?'
		}
	}
	return append(b, text...)
}

// ParseReply reads a reply.
func ParseReply(b []byte) (Reply, error) {
	if len(b) != ReplySize || binary.LittleEndian.Uint32(b) != magicReply {
		return Reply{}, ErrForm
	}
	r := Reply{Verdict: Verdict(binary.LittleEndian.Uint32(b[4:]))}
	if err := take(b[8:], []field{{&r.Message, 256}}); err != nil {
		return Reply{}, err
	}
	return r, nil
}

// control reports whether a terminal or a log would act on the byte.
func control(c byte) bool { return c < ' ' || c == 0x7f }

func put(b []byte, fields []field) ([]byte, error) {
	for _, f := range fields {
		if len(*f.text) >= f.size {
			return nil, fmt.Errorf("text over %d bytes: %w", f.size-1, ErrForm)
		}
		if slices.ContainsFunc([]byte(*f.text), control) {
			return nil, fmt.Errorf("control character: %w", ErrForm)
		}
		at := len(b)
		b = append(b, make([]byte, f.size)...)
		copy(b[at:], *f.text)
	}
	return b, nil
}

// take reads the texts. Each ends with a NUL, is padded with NULs, and holds
// nothing that a terminal or a log would act on.
func take(b []byte, fields []field) error {
	for _, f := range fields {
		raw := b[:f.size]
		b = b[f.size:]
		end := 0
		for end < len(raw) && raw[end] != 0 {
			if control(raw[end]) {
				return fmt.Errorf("control character: %w", ErrForm)
			}
			end++
		}
		if end == len(raw) {
			return fmt.Errorf("text without an end: %w", ErrForm)
		}
		for _, c := range raw[end:] {
			if c != 0 {
				return fmt.Errorf("bytes behind a text: %w", ErrForm)
			}
		}
		*f.text = string(raw[:end])
	}
	return nil
}
