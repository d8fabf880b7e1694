package keep

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"curfew.internal/ledger"
)

// When room runs out, what a session did beside the programs that it started
// goes first, then its programs, and each session's own before others': no
// flood of it costs a login or another session's program, and no flood of logins
// a receipt.
const (
	spareShare   = 75 // of a hundred of the quota, and of memory, for what goes first
	programShare = 90 // and for that with the programs
	loginShare   = 95 // and with what comes once or a few times a session, of which there can be many
	wholeShare   = 100
	// ampleShare of the room may be anybody's. Beyond that a session has no
	// more than is free, as in the kernel's ring.
	ampleShare = 8

	missedAtOnce = 1000 // entries that the first gap of a session tells of, while there is no room
	missedMost   = 1 << 20
	missedOf     = 256 // sessions; what more of them miss is told as one's that nobody knows
)

// share is how much of the room entries of a kind may fill, of a hundred.
func share(k ledger.Kind) int64 {
	switch k { //nolint:exhaustive // a kind that is not known is none that a session can make many of
	case ledger.Exit, ledger.Open, ledger.Named, ledger.Connect:
		return spareShare
	case ledger.Exec, ledger.SetID, ledger.Act, ledger.Privilege, ledger.Refused, ledger.WouldRefuse:
		return programShare
	case ledger.Login, ledger.Logout, ledger.Terminal:
		return loginShare
	}
	return wholeShare
}

const (
	nobody   = 0              // what may fill the whole is nobody's share
	everyone = math.MaxUint64 // what no session did, such as refusals at the door, is theirs together
)

// owner is whose share an entry takes.
func owner(e ledger.Entry) uint64 {
	switch {
	case share(e.Kind) == wholeShare:
		return nobody
	case e.Session == 0:
		return everyone
	}
	return e.Session
}

// fits reports whether there is room for n bytes more of an owner; the caller
// holds mu.
func (o *Outbox) fits(of int64, owner uint64, n int64) bool {
	waits := int64(o.pendingBytes)
	if of == wholeShare {
		return waits+n <= int64(o.memory)
	}
	memory := room{of: of, all: int64(o.memory), taken: waits, own: o.pendingBy[owner]}
	if o.failing == nil && !o.stuck {
		memory.own = 0 // the disk takes it at once
	}
	disk := room{of, o.quota, waits + o.onDisk(), o.by[owner]}
	if of == loginShare {
		memory.own, disk.own = 0, 0 // no flood of a session's takes its end from it
	}
	return memory.takes(n) && disk.takes(n)
}

// room is some that all share: how much of it, of a hundred, may be filled,
// what is taken, and what of that by the session.
type room struct{ of, all, taken, own int64 }

func (r room) takes(n int64) bool {
	left := r.of*r.all/100 - r.taken - n
	return left >= 0 && (ampleShare*r.taken <= r.all || r.own+n <= left)
}

// A missed says what of one session was not taken.
type missed struct {
	grant, person string
	approvers     []string
	session       uint64
	owner         uint64    // whose share it took
	of            int64     // the largest share that it was refused for
	need          int64     // bytes that the last had needed
	lost          uint64    // since the last gap
	first, next   uint64    // numbers of the session; next is zero where those between are not all of them
	since, at     time.Time // of the first, and of the last
	enough        uint64    // so many are told while there is no room
}

// miss counts an entry that is not taken, and reports whose record begins to
// miss something by it, if it is the first since that was last told: a
// session's, or [nobody]'s in particular. The caller holds mu.
func (o *Outbox) miss(e ledger.Entry, need int64) (begun []uint64) {
	id := owner(e)
	m := o.missed[id]
	if m == nil && len(o.missed) >= missedOf {
		id, e.Session, e.SessionSeq, e.Grant, e.Person, e.Approvers = nobody, 0, 0, "", "", nil
		m = o.missed[nobody]
	}
	if m == nil {
		m = &missed{owner: id, session: e.Session, enough: missedAtOnce}
		o.missed[id] = m
	}
	if m.lost == 0 {
		if id != everyone {
			begun = []uint64{id}
		}
		m.grant, m.person, m.approvers = e.Grant, e.Person, e.Approvers
		m.first, m.next, m.since, m.at, m.of = e.SessionSeq, e.SessionSeq, e.At, e.At, 0
	}
	if m.next != 0 && m.next == e.SessionSeq {
		m.next++
	} else {
		m.next = 0
	}
	if e.At.Before(m.since) {
		m.since = e.At
	}
	if e.At.After(m.at) {
		m.at = e.At
	}
	m.of, m.need = max(m.of, share(e.Kind)), need
	if m.lost++; m.lost >= m.enough {
		// So that the count is on disk; less often the longer it goes on.
		m.enough = min(2*m.enough, missedMost)
		o.tellMissed(m)
	}
	return begun
}

// tellMissed says what of a session was not taken; the caller holds mu.
func (o *Outbox) tellMissed(m *missed) {
	if m.lost == 0 {
		return
	}
	e := ledger.Entry{
		Grant: m.grant, Person: m.person, Approvers: m.approvers, Session: m.session, Lost: m.lost, Since: m.since,
		Text: fmt.Sprintf("%d for which the host had no room, while they waited to be sent: the rest is kept for what matters more, and for other sessions", m.lost),
	}
	if m.next != 0 && m.session != 0 {
		e.SessionSeq = m.first
	}
	b := o.gapAt(e, m.at)
	if !o.fits(wholeShare, nobody, int64(len(b))) {
		return // it is counted on
	}
	m.lost = 0
	o.queue(nobody, b)
}

// tellBefore tells what a session missed, before one of its entries that is
// taken: of those that had no more room than this one, or where it is over. The
// caller holds mu.
func (o *Outbox) tellBefore(e ledger.Entry) {
	if m := o.missed[cmp.Or(e.Session, everyone)]; m != nil && (share(e.Kind) <= m.of || e.Kind == ledger.Logout) {
		o.tellMissed(m)
	}
}

// tellRoom tells what those sessions missed for which there is room again, or
// what all did; the caller holds mu.
func (o *Outbox) tellRoom(all bool) {
	for _, id := range slices.Sorted(maps.Keys(o.missed)) {
		m := o.missed[id]
		if !all && !o.fits(m.of, m.owner, m.need) {
			continue
		}
		if o.tellMissed(m); m.lost == 0 {
			delete(o.missed, id)
		}
	}
}

// roomy reports whether there is room again for anything; the caller holds mu.
func (o *Outbox) roomy() bool { return o.fits(spareShare, nobody, 0) }

// missing is how many entries were not taken, and not told of yet; the caller
// holds mu.
func (o *Outbox) missing() (n uint64) {
	for _, m := range o.missed {
		n += m.lost
	}
	return n
}

// count adds to what waits of an owner; the caller holds mu.
func count(by map[uint64]int64, owner uint64, n int64) {
	if owner == nobody {
		return
	}
	if by[owner] += n; by[owner] <= 0 {
		delete(by, owner)
	}
}
