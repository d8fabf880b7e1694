package ledger

import (
	"cmp"
	"maps"
	"slices"
)

func compare(pairs ...string) int {
	for i := 0; i+1 < len(pairs); i += 2 {
		if c := cmp.Compare(pairs[i], pairs[i+1]); c != 0 {
			return c
		}
	}
	return 0
}

// outboxed is where an outbox stands: its newest number, the entry with it, and
// how many were deleted before that.
type outboxed struct {
	seq, number uint64
	gone        int
}

// complete looks at the numbers that hosts gave what they sent. Only where the
// bundle has every entry of a stretch of the log does a hole say something. What
// was deleted had a number, too, and its digest does not say which.
func (v *verifier) complete(p placed) {
	gone := len(v.gone)
	if p.Number != v.newest+1+uint64(gone-v.passed) { //nolint:gosec // it only grows
		clear(v.told)
	}
	v.newest, v.passed = p.Number, gone
	if p.Seq == 0 {
		return // the control plane's own word about an outbox
	}
	k := box{p.Host, p.Outbox}
	if was, ok := v.told[k]; ok && (p.Seq <= was.seq || p.Seq-was.seq-1 > uint64(gone-was.gone)) { //nolint:gosec // as above
		v.find(p.Number, "it is number %d of what %s sent, and entry %d, before it, was number %d", p.Seq, sender(p.Host), was.number, was.seq)
	}
	v.told[k] = outboxed{p.Seq, p.Number, gone}
}

func sender(host string) string {
	if host == "" {
		return "the control plane itself"
	}
	return host
}

// session is one of a host's.
type session struct {
	host, boot string
	id         uint64
}

// heard is what the bundle has of a session.
type heard struct {
	told  []span // numbers that are there, or that a gap names
	most  int    // so many of these are put together
	lost  uint64 // that gaps count without naming
	whole bool   // its login is here, so it begins with number 1
}

// span is numbers within a session, and the entry that tells of them.
type span struct {
	Range
	number uint64
}

// sessions looks for numbers of a session that are neither there nor told by
// a gap.
func (v *verifier) sessions() {
	v.unknown = uint64(len(v.gone))
	keys := slices.SortedFunc(maps.Keys(v.heard), func(a, b session) int {
		return cmp.Or(compare(a.host, b.host, a.boot, b.boot), cmp.Compare(a.id, b.id))
	})
	for _, k := range keys {
		v.holes(k, v.heard[k])
	}
	v.Sessions = len(keys)
}

// hear takes note of one entry of a session.
func (v *verifier) hear(p placed) {
	e := p.entry
	k := session{p.Host, e.Boot, e.Session}
	switch {
	case p.Host == "":
		return
	case e.Session == 0:
		if e.Kind == Gap {
			v.spare[p.Host] += e.Lost
		}
		return
	case v.heard[k] == nil:
		v.heard[k] = &heard{}
	}
	h := v.heard[k]
	switch {
	case e.Kind == Login:
		h.whole = true
	case e.Kind == Gap && (e.SessionSeq == 0 || e.Lost == 0 || e.Lost > maxSize || e.SessionSeq > maxSize):
		h.lost += min(e.Lost, maxSize)
	case e.Kind == Gap:
		h.add(span{Range{e.SessionSeq, e.SessionSeq + e.Lost - 1}, p.Number})
	case e.SessionSeq > 0:
		h.add(span{Range{e.SessionSeq, e.SessionSeq}, p.Number})
	}
}

// fewSpans are not worth putting together.
const fewSpans = 256

// add takes note of numbers. A long session is told mostly in its order.
func (h *heard) add(s span) {
	if last := len(h.told) - 1; last >= 0 && h.told[last].To+1 == s.From {
		h.told[last].To = s.To
		return
	}
	if h.told = append(h.told, s); len(h.told) > max(h.most, fewSpans) {
		h.together()
		h.most = 2 * len(h.told)
	}
}

// together sorts what was told, and makes one of what has no hole between.
func (h *heard) together() {
	slices.SortFunc(h.told, func(a, b span) int { return cmp.Compare(a.From, b.From) })
	n := 0
	for _, s := range h.told {
		if n > 0 && s.From <= h.told[n-1].To+1 {
			h.told[n-1].To = max(h.told[n-1].To, s.To)
			continue
		}
		h.told[n] = s
		n++
	}
	h.told = h.told[:n]
}

// holes names what is missing of one session, less what its gaps and its
// host's account for.
func (v *verifier) holes(k session, h *heard) {
	h.together()
	next := uint64(1)
	if !h.whole && len(h.told) > 0 {
		next = h.told[0].From // it began before what is here
	}
	for _, s := range h.told {
		if s.From > next {
			switch missing := s.From - next; {
			case missing <= h.lost:
				h.lost -= missing
			case missing <= v.spare[k.host]:
				v.spare[k.host] -= missing
			case missing <= v.unknown: // they may be among what was deleted
				v.unknown -= missing
			default:
				v.find(s.number, "before it, numbers %d to %d of session %x on %s are missing, and no gap says so", next, s.From-1, k.id, k.host)
			}
		}
		next = max(next, s.To+1)
	}
}
