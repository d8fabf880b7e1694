package grant

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

// What people's passkeys sign: the digest of one of these two is the challenge
// that a passkey answers.
const (
	AskType = "application/vnd.curfew.ask.v1"
	YesType = "application/vnd.curfew.yes.v1"
)

// AnswerWithin is the longest time between a passkey being asked for the last
// yes, and the beginning of a grant that begins at once.
const AnswerWithin = 5 * time.Minute

// Reasons for which a host refuses a grant that people have to sign.
var (
	ErrNoRoster    = errors.New("people's own keys have to sign for it, and this host has no roster of them")
	ErrBadRoster   = errors.New("people's own keys have to sign for it, and this host cannot read its roster of them")
	ErrRosterOver  = errors.New("people's own keys have to sign for it, and this host's roster of them has expired")
	ErrUnsigned    = errors.New("this host's roster demands that people's own keys sign for it, and none did: its role needs `human_signatures: true`")
	ErrNoMember    = errors.New("this host's roster does not name her")
	ErrNoApprover  = errors.New("this host's roster does not let her approve")
	ErrOtherAsked  = errors.New("what was signed for is something else")
	ErrFewApproved = errors.New("too few people's keys signed an approval")
	ErrWider       = errors.New("it is for more than was signed for")
)

// An Ask is what a requester signs: everything that a grant may hold.
type Ask struct {
	Fleet   string
	Request string
	Person  Person // name and uid
	Role    Role
	Hosts   []string // sorted
	Length  time.Duration
	Start   time.Time // not before then; zero: from approval
	Lease   time.Duration
	Reason  string
	Ticket  string
	At      time.Time
	Needed  uint64 // approvals
	Shown   []byte // SHA-256 of what else approvers are shown
}

// Digest is what the requester's passkey signs.
func (a Ask) Digest() []byte {
	var w canon.Writer
	w.Text(1, a.Fleet)
	w.Text(2, a.Request)
	w.Item(3, Person{Name: a.Person.Name, UID: a.Person.UID}.bytes())
	w.Item(4, a.Role.bytes())
	w.Texts(5, a.Hosts)
	w.Uint(6, seconds(a.Length))
	w.Seconds(7, a.Start)
	w.Uint(8, seconds(a.Lease))
	w.Text(9, a.Reason)
	w.Text(10, a.Ticket)
	w.Seconds(11, a.At)
	w.Uint(12, a.Needed)
	w.Blob(13, a.Shown)
	return challenge(AskType, w.Bytes())
}

// A Yes is what an approver signs.
type Yes struct {
	Ask    []byte // digest of what was asked
	Person string
	Hosts  []string      // only these; none: all that was asked for
	Length time.Duration // only so long; 0: all that was asked for
	At     time.Time     // when her passkey was asked
}

// Digest is what the approver's passkey signs.
func (y Yes) Digest() []byte {
	var w canon.Writer
	w.Blob(1, y.Ask)
	w.Text(2, y.Person)
	w.Texts(3, y.Hosts)
	w.Uint(4, seconds(y.Length))
	w.Seconds(5, y.At)
	return challenge(YesType, w.Bytes())
}

// challenge binds the bytes to what they are: no signature on one kind of
// statement counts for another, or for a sign-in.
func challenge(typ string, b []byte) []byte {
	sum := sha256.Sum256(dsse.PAE(typ, b))
	return sum[:]
}

func seconds(d time.Duration) uint64 {
	return uint64(d / time.Second) //nolint:gosec // a negative one becomes huge, and Check refuses it
}

// Words are what people's keys signed of a grant, and what they signed beyond
// what the grant itself says.
type Words struct {
	Hosts     []string // asked for
	Length    time.Duration
	Start     time.Time
	Needed    uint64
	Shown     []byte
	Asked     Assertion
	Approvals []Approved // of each of the grant's approvals, in their order
}

// Approved is the signed half of an approval.
type Approved struct {
	Hosts  []string
	Length time.Duration
	Word   Assertion
}

// asked is the statement that the requester of g signed.
func (g Grant) asked() Ask {
	return Ask{
		Fleet: g.Fleet, Request: g.Request, Person: g.Person, Role: g.Role, Lease: g.Lease, Reason: g.Reason, Ticket: g.Ticket, At: g.Asked.At,
		Hosts: g.Words.Hosts, Length: g.Words.Length, Start: g.Words.Start, Needed: g.Words.Needed, Shown: g.Words.Shown,
	}
}

// checkWords holds the words to their form; whether they are true, only a
// roster says.
func (g Grant) checkWords() error {
	if g.Role.Signed != (g.Words != nil) {
		return errors.New("a grant has people's signatures if its role asks for them, and only then")
	}
	if g.Words == nil {
		return nil
	}
	w := g.Words
	errs := []error{w.Asked.bounded()}
	if w.Length <= 0 || w.Length > MaxDuration || w.Length%time.Second != 0 {
		errs = append(errs, fmt.Errorf("a grant is asked for up to %v, in whole seconds", MaxDuration))
	}
	if len(w.Shown) != sha256.Size {
		errs = append(errs, errors.New("the digest of what was shown has 32 bytes"))
	}
	if len(w.Approvals) != len(g.Approvals) {
		errs = append(errs, errors.New("every approval of a signed grant is signed"))
	}
	for _, a := range w.Approvals {
		errs = append(errs, a.Word.bounded())
		if a.Length < 0 || a.Length > MaxDuration || a.Length%time.Second != 0 {
			errs = append(errs, fmt.Errorf("an approval is for up to %v, in whole seconds", MaxDuration))
		}
	}
	return errors.Join(errs...)
}

// CheckSigned reports why the host refuses g for want of people's signatures,
// if it does. With a roster, that one says what has to be signed; without, or
// besides, the grant's own mark does.
func (r Reader) CheckSigned(g Grant, at time.Time) error {
	s := r.Roster
	switch {
	case !g.Role.Signed && (s == nil || !s.Demands(g.Role)):
		return nil
	case s == nil:
		return ErrNoRoster
	case s.Version == 0:
		return ErrBadRoster
	case !at.Before(s.Expires):
		return fmt.Errorf("%w: at %s", ErrRosterOver, s.Expires.Format(time.RFC3339))
	case g.Words == nil:
		return ErrUnsigned
	}
	return s.signed(g)
}

// signed checks all that people signed of g against what g says.
func (s Roster) signed(g Grant) error {
	if !bytes.Equal(g.asked().Digest(), g.Digest) {
		return fmt.Errorf("%s: %w", g.Person.Name, ErrOtherAsked)
	}
	m, ok := s.member(g.Person.Name)
	if !ok {
		return fmt.Errorf("%s: %w", g.Person.Name, ErrNoMember)
	}
	if err := s.check(m, g.Words.Asked, g.Digest); err != nil {
		return err
	}
	if n := uint64(len(g.Approvals)); n < max(s.Approvals, g.Words.Needed) {
		return fmt.Errorf("%d of %d: %w", n, max(s.Approvals, g.Words.Needed), ErrFewApproved)
	}
	hosts, length, begin := g.Words.Hosts, g.Words.Length, g.Words.Start
	for i, e := range g.Approvals {
		a := g.Words.Approvals[i]
		m, ok := s.member(e.Person)
		if !ok || !m.Approves {
			return fmt.Errorf("%s: %w", e.Person, ErrNoApprover)
		}
		yes := Yes{Ask: g.Digest, Person: e.Person, Hosts: a.Hosts, Length: a.Length, At: e.At}
		if err := s.check(m, a.Word, yes.Digest()); err != nil {
			return err
		}
		if len(a.Hosts) > 0 {
			hosts = slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return !slices.Contains(a.Hosts, h) })
		}
		if a.Length > 0 {
			length = min(length, a.Length)
		}
		if e.At.After(begin) {
			begin = e.At
		}
	}
	return g.within(hosts, length, begin)
}

// within reports whether g is for no more than that, and begins when it may:
// what was signed once makes no second grant later.
func (g Grant) within(hosts []string, length time.Duration, begin time.Time) error {
	if i := slices.IndexFunc(g.Hosts, func(h string) bool { return !slices.Contains(hosts, h) }); i >= 0 {
		return fmt.Errorf("%w: host %s", ErrWider, g.Hosts[i])
	}
	if d := g.NotAfter.Sub(g.NotBefore); d > length {
		return fmt.Errorf("%w: %v in place of %v", ErrWider, d, length)
	}
	if g.NotBefore.Before(begin) || g.NotBefore.After(begin.Add(AnswerWithin)) {
		return fmt.Errorf("%w: it begins at %s, and may within %v of %s", ErrWider, g.NotBefore.Format(time.RFC3339), AnswerWithin, begin.Format(time.RFC3339))
	}
	return nil
}

func (w Words) bytes() []byte {
	var b canon.Writer
	b.Texts(1, w.Hosts)
	b.Uint(2, seconds(w.Length))
	b.Seconds(3, w.Start)
	b.Uint(4, w.Needed)
	b.Blob(5, w.Shown)
	b.Item(6, w.Asked.Bytes())
	for _, a := range w.Approvals {
		var aw canon.Writer
		aw.Texts(1, a.Hosts)
		aw.Uint(2, seconds(a.Length))
		aw.Item(3, a.Word.Bytes())
		b.Item(7, aw.Bytes())
	}
	return b.Bytes()
}

func (w *Words) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Texts(&w.Hosts)
	case 2:
		return length(f, &w.Length)
	case 3:
		return f.Seconds(&w.Start)
	case 4:
		return f.Uint(&w.Needed)
	case 5:
		return f.Blob(&w.Shown)
	case 6:
		return f.Message(w.Asked.field)
	case 7:
		var a Approved
		err := f.Message(a.field)
		w.Approvals = append(w.Approvals, a)
		return err
	}
	return f.Unknown()
}

func (a *Approved) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Texts(&a.Hosts)
	case 2:
		return length(f, &a.Length)
	case 3:
		return f.Message(a.Word.field)
	}
	return f.Unknown()
}

func length(f canon.Field, to *time.Duration) error {
	var s uint32
	err := f.Uint32(&s)
	*to = time.Duration(s) * time.Second
	return err
}
