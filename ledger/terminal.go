package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"time"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

// SegmentType names a segment's statement in its envelope.
const SegmentType = "application/vnd.curfew.terminal.v1"

// A Segment is a host's signed word on one segment of a terminal's recording,
// or on the recording's end. The recording itself lies elsewhere, and is known
// by its digest.
type Segment struct {
	Fleet, Host, Boot string
	Grant, Person     string
	Session           uint64
	Terminal          string    // the recording, unique on its host
	Number            uint64    // from 1, without holes
	From, To          time.Time // when the recording began; when the segment was sealed
	Digest            []byte    // SHA-256 of the segment; none: this is the end
	Size              uint64    // of the segment, in bytes
	Before            []byte    // SHA-256 of the statement before, none for the first
	Lost              uint64    // bytes that were shown, and are not in it
	End               string    // why the recording ended, on its last statement
}

// Bytes is the statement's canonical form.
func (s Segment) Bytes() []byte {
	var w canon.Writer
	w.Text(1, s.Fleet)
	w.Text(2, s.Host)
	w.Text(3, s.Boot)
	w.Text(4, s.Grant)
	w.Text(5, s.Person)
	w.Uint(6, s.Session)
	w.Text(7, s.Terminal)
	w.Uint(8, s.Number)
	w.Nanos(9, s.From)
	w.Nanos(10, s.To)
	w.Blob(11, s.Digest)
	w.Uint(12, s.Size)
	w.Blob(13, s.Before)
	w.Uint(14, s.Lost)
	w.Text(15, s.End)
	return w.Bytes()
}

func (s *Segment) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&s.Fleet)
	case 2:
		return f.Text(&s.Host)
	case 3:
		return f.Text(&s.Boot)
	case 4:
		return f.Text(&s.Grant)
	case 5:
		return f.Text(&s.Person)
	case 6:
		return f.Uint(&s.Session)
	case 7:
		return f.Text(&s.Terminal)
	case 8:
		return f.Uint(&s.Number)
	case 9:
		return f.Nanos(&s.From)
	case 10:
		return f.Nanos(&s.To)
	case 11:
		return f.Blob(&s.Digest)
	case 12:
		return f.Uint(&s.Size)
	case 13:
		return f.Blob(&s.Before)
	case 14:
		return f.Uint(&s.Lost)
	case 15:
		return f.Text(&s.End)
	}
	return f.Unknown()
}

// Hash is by what the next statement knows this one.
func (s Segment) Hash() []byte {
	sum := sha256.Sum256(s.Bytes())
	return sum[:]
}

// Holds reports whether the data is the segment that the statement is about.
func (s Segment) Holds(data []byte) bool {
	if len(s.Digest) == 0 {
		return len(data) == 0
	}
	sum := sha256.Sum256(data)
	return uint64(len(data)) == s.Size && string(sum[:]) == string(s.Digest)
}

// Follows reports whether the statement comes right after the other; a nil one
// stands for none.
func (s Segment) Follows(before *Segment) bool {
	if before == nil {
		return s.Number == 1 && len(s.Before) == 0
	}
	return s.Terminal == before.Terminal && s.Host == before.Host && s.Number == before.Number+1 && before.End == "" &&
		string(s.Before) == string(before.Hash())
}

// Seal signs the statement with the host's key and returns the envelope.
func (s Segment) Seal(key ed25519.PrivateKey) []byte {
	return dsse.Sign(SegmentType, s.Bytes(), key).Bytes()
}

// OpenSegment checks that the host's key signed the envelope, and returns the
// statement in it. The caller compares fleet, host and grant with what it
// expects.
func OpenSegment(envelope []byte, host ed25519.PublicKey) (Segment, error) {
	var s Segment
	err := opened(envelope, SegmentType, host, &s)
	if err == nil && (s.Number == 0 || s.Terminal == "" || len(s.Digest) != 0 && len(s.Digest) != sha256.Size ||
		len(s.Digest) == 0 && (s.End == "" || s.Size != 0)) {
		err = canon.ErrMalformed
	}
	if err != nil {
		return Segment{}, fmt.Errorf("statement on a terminal: %w", err)
	}
	return s, nil
}

// A Thread checks the segments of one recording as they come: each statement by
// its host's key, after the one before, and the data by the statement.
type Thread struct {
	Host, Terminal string

	before *Segment
}

// Next checks the next segment.
func (t *Thread) Next(envelope []byte, host ed25519.PublicKey, data []byte) (Segment, error) {
	s, err := OpenSegment(envelope, host)
	switch {
	case err != nil:
		return s, err
	case s.Host != t.Host || s.Terminal != t.Terminal || !s.Follows(t.before):
		return s, fmt.Errorf("segment %d of %q does not go on from the one before", s.Number, s.Terminal)
	case !s.Holds(data):
		return s, fmt.Errorf("segment %d was changed, or is gone", s.Number)
	}
	t.before = &s
	return s, nil
}

// reel is one recording of a host's.
type reel struct{ host, terminal string }

// terminal looks at a statement on a recording: where the bundle has all of a
// terminal's, each has to go on from the one before.
func (v *verifier) terminal(p placed) {
	if p.entry.Kind != Terminal || len(p.entry.Receipt) == 0 {
		return
	}
	s, err := OpenSegment(p.entry.Receipt, p.ReceiptKey)
	if err != nil {
		return // told already
	}
	k := reel{p.Host, s.Terminal}
	was, known := v.reels[k]
	switch {
	case known && string(was.Bytes()) == string(s.Bytes()):
		return // told twice, by an agent that was killed in between
	case known && !s.Follows(&was):
		v.find(p.Number, "segment %d of terminal %s does not go on from segment %d", s.Number, s.Terminal, was.Number)
	case !known && s.Number == 1 && !s.Follows(nil):
		v.find(p.Number, "the first segment of terminal %s says that there was one before", s.Terminal)
	case !known && s.Number > 1 && v.fromLogin(p):
		v.find(p.Number, "before it, segments 1 to %d of terminal %s are missing", s.Number-1, s.Terminal)
	}
	v.reels[k] = s
	switch {
	case !v.manifested.Tapes:
	case len(s.Digest) > 0:
		v.said[p.Number] = s
	default:
		v.Takes = append(v.Takes, Take{Segment: s})
	}
}

// terminals counts the recordings, and those that go on.
func (v *verifier) terminals() {
	for _, s := range v.reels {
		v.Terminals++
		if s.End == "" {
			v.Open++
		}
	}
}

// fromLogin reports whether the bundle has the login of the entry's session,
// and so all that its host said of it after that.
func (v *verifier) fromLogin(p placed) bool {
	h := v.heard[session{p.Host, p.entry.Boot, p.entry.Session}]
	return h != nil && h.whole
}
