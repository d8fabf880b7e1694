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

// complete looks at the numbers that hosts gave what they sent. Only where the
// bundle has every entry of a stretch of the log does a hole say something.
func (v *verifier) complete() {
	last := map[box]placed{}
	for i, p := range v.good {
		if i > 0 && p.Number != v.good[i-1].Number+1 {
			clear(last)
		}
		if p.Seq == 0 {
			continue // the control plane's own word about an outbox
		}
		k := box{p.Host, p.Outbox}
		if was, ok := last[k]; ok && p.Seq != was.Seq+1 {
			v.find(p.Number, "it is number %d of what %s sent, and entry %d, before it, was number %d", p.Seq, sender(p.Host), was.Number, was.Seq)
		}
		last[k] = p
	}
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
	all := map[session]*heard{}
	spare := map[string]uint64{} // lost on a host, nobody knows of which session
	for _, p := range v.good {
		if p.Foreign || p.Host == "" {
			continue
		}
		if p.entry.Session == 0 {
			if p.entry.Kind == Gap {
				spare[p.Host] += p.entry.Lost
			}
			continue
		}
		k := session{p.Host, p.entry.Boot, p.entry.Session}
		if all[k] == nil {
			all[k] = &heard{}
		}
		all[k].hear(p)
	}
	v.unknown = uint64(len(v.gone))
	keys := slices.SortedFunc(maps.Keys(all), func(a, b session) int {
		return cmp.Or(compare(a.host, b.host, a.boot, b.boot), cmp.Compare(a.id, b.id))
	})
	for _, k := range keys {
		v.holes(k, all[k], spare)
	}
	v.Sessions = len(keys)
}

// hear takes note of one entry of the session.
func (h *heard) hear(p placed) {
	e := p.entry
	switch {
	case e.Kind == Login:
		h.whole = true
	case e.Kind == Gap && (e.SessionSeq == 0 || e.Lost == 0 || e.Lost > maxSize || e.SessionSeq > maxSize):
		h.lost += min(e.Lost, maxSize)
	case e.Kind == Gap:
		h.told = append(h.told, span{Range{e.SessionSeq, e.SessionSeq + e.Lost - 1}, p.Number})
	case e.SessionSeq > 0:
		h.told = append(h.told, span{Range{e.SessionSeq, e.SessionSeq}, p.Number})
	}
}

// holes names what is missing of one session, less what its gaps and its
// host's account for.
func (v *verifier) holes(k session, h *heard, spare map[string]uint64) {
	slices.SortFunc(h.told, func(a, b span) int { return cmp.Compare(a.From, b.From) })
	next := uint64(1)
	if !h.whole && len(h.told) > 0 {
		next = h.told[0].From // it began before what is here
	}
	for _, s := range h.told {
		if s.From > next {
			switch missing := s.From - next; {
			case missing <= h.lost:
				h.lost -= missing
			case missing <= spare[k.host]:
				spare[k.host] -= missing
			case missing <= v.unknown: // they may be among what was deleted
				v.unknown -= missing
			default:
				v.find(s.number, "before it, numbers %d to %d of session %x on %s are missing, and no gap says so", next, s.From-1, k.id, k.host)
			}
		}
		next = max(next, s.To+1)
	}
}
