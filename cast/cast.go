// Package cast is the form of terminal recordings: asciicast v2, in segments
// of which each can be played by itself.
//
// It writes and reads lines and opens no file. Recordings hold what a session
// wrote, bytes of anybody's choosing: who shows one to a person does it by
// [Safe], and never as it is.
package cast

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// The kinds of events.
const (
	Output = "o"
	Input  = "i"
	Resize = "r" // Data is COLUMNSxROWS
	Marker = "m"
)

// A Header is a segment's first line.
type Header struct {
	Version   int               `json:"version"` // 2
	Width     int               `json:"width"`
	Height    int               `json:"height"`
	Timestamp int64             `json:"timestamp"` // when the recording began, seconds since 1970
	Title     string            `json:"title,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
}

// An Event is a line after the first.
type Event struct {
	At   time.Duration // since the recording began, which need not be with this segment
	Kind string
	Data string
}

// ErrForm refuses what is no recording.
var ErrForm = errors.New("not a recording")

// maxLine bounds a line.
const maxLine = 1 << 20

// Bytes is the header's line.
func (h Header) Bytes() []byte {
	b, err := json.Marshal(h)
	if err != nil {
		return nil // numbers and strings always marshal
	}
	return append(b, '\n')
}

// Bytes is the event's line. Data that is not UTF-8 is made so: JSON has no
// other text.
func (e Event) Bytes() []byte {
	data, err := text(strings.ToValidUTF8(e.Data, "\uFFFD"))
	if err != nil {
		return nil // text always marshals
	}
	return fmt.Appendf(nil, "[%.6f, %q, %s]\n", e.At.Seconds(), e.Kind, data)
}

// text writes a string without the escapes that are for pages alone.
func text(s string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(s)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

// Read reads a segment. Beside an error it returns what stands before the
// place that is broken.
func Read(r io.Reader) (Header, []Event, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var h Header
	if !lines.Scan() {
		return h, nil, fmt.Errorf("%w: it is empty", ErrForm)
	}
	if err := json.Unmarshal(lines.Bytes(), &h); err != nil || h.Version != 2 || h.Width < 0 || h.Height < 0 {
		return Header{}, nil, fmt.Errorf("%w: its first line is no header of version 2", ErrForm)
	}
	var events []Event
	for n := 2; lines.Scan(); n++ {
		e, err := parseEvent(lines.Bytes())
		if err != nil {
			return h, events, fmt.Errorf("%w: line %d", err, n)
		}
		events = append(events, e)
	}
	if err := lines.Err(); err != nil {
		return h, events, fmt.Errorf("%w: %w", ErrForm, err)
	}
	return h, events, nil
}

// maxSeconds bounds a time, which has to fit a duration.
const maxSeconds = 1e9

func parseEvent(line []byte) (Event, error) {
	var parts []json.RawMessage
	var at float64
	var e Event
	if json.Unmarshal(line, &parts) != nil || len(parts) != 3 ||
		json.Unmarshal(parts[0], &at) != nil || json.Unmarshal(parts[1], &e.Kind) != nil || json.Unmarshal(parts[2], &e.Data) != nil ||
		at < 0 || at > maxSeconds {
		return Event{}, fmt.Errorf("%w: not [SECONDS, KIND, DATA]", ErrForm)
	}
	e.At = time.Duration(at * float64(time.Second)).Round(time.Microsecond)
	return e, nil
}

// Whole is the length of b's whole lines: what a recorder that died in the
// middle of a line leaves behind counts up to there.
func Whole(b []byte) int { return bytes.LastIndexByte(b, '\n') + 1 }

// lostMark begins the text of a marker that tells of a gap. No session can
// write one: what it writes is output.
const lostMark = "curfew: not recorded: "

// Gap is the marker for so many bytes that are missing, and why.
func Gap(at time.Duration, lost uint64, why string) Event {
	return Event{At: at, Kind: Marker, Data: fmt.Sprintf("%s%d bytes: %s", lostMark, lost, why)}
}

// Lost is how many bytes the gaps among the events tell of.
func Lost(events []Event) uint64 {
	var all uint64
	for _, e := range events {
		var n uint64
		if rest, is := strings.CutPrefix(e.Data, lostMark); is && e.Kind == Marker {
			if _, err := fmt.Sscanf(rest, "%d bytes", &n); err == nil {
				all += n
			}
		}
	}
	return all
}

// A Stream cuts a stream of bytes into text: a character that two reads share
// is held back until it is whole.
type Stream struct{ rest []byte }

// Take returns what is whole of the stream, now that b came.
func (s *Stream) Take(b []byte) string {
	b = append(s.rest, b...)
	end := len(b)
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-i:]) {
				end = len(b) - i
			}
			break
		}
	}
	s.rest = bytes.Clone(b[end:])
	return string(b[:end])
}

// Rest returns what was held back.
func (s *Stream) Rest() string {
	b := s.rest
	s.rest = nil
	return string(b)
}
