package ledger

import (
	"bytes"
	"crypto/ed25519"

	"curfew.internal/dsse"
)

// box is where a host numbers what it sends.
type box struct{ host, outbox string }

// seals is an outbox whose seals are looked at.
type seals struct {
	last uint64 // where the newest of them stands, in the outbox
	open []open // what no seal was for, behind it
}

// open is an entry that waits for its seal.
type open struct {
	number, seq uint64
	digest      []byte
	gap         bool
}

// links is how far the seals of a host's key are known to follow one another.
type links struct {
	last    uint64
	outbox  string
	digests map[uint64][]byte // by number
}

// seal holds what hosts told against the seals that they set to it.
func (v *verifier) seal(p placed) {
	if p.Host == "" {
		return
	}
	k := box{p.Host, p.Outbox}
	if v.boxes[k] == nil {
		v.boxes[k] = &seals{}
	}
	b := v.boxes[k]
	switch {
	case p.entry.Kind == Sealed:
		v.sealed(p, b)
	case p.Seq == 0:
	case p.Seq < b.last:
		v.find(p.Number, "no seal of %s covers it: it was put in behind its seal", p.Host)
	default:
		b.open = append(b.open, open{p.Number, p.Seq, EntryDigest(p.Entry), p.entry.Kind == Gap && !p.Foreign})
	}
}

// sealed looks at a seal, and at what it is for.
func (v *verifier) sealed(p placed, b *seals) {
	s, err := OpenSeal(p.entry.Receipt, p.ReceiptKey)
	switch {
	case err != nil:
		v.find(p.Number, "its seal is not signed by the host's key: %v", err)
		return
	case s.Fleet != v.Checkpoint.Fleet || s.Host != p.Host:
		v.find(p.Number, "its seal is that of %s in %s, not of %s", s.Host, s.Fleet, p.Host)
		return
	}
	by := Signer{Host: p.Host, KeyID: dsse.KeyID(ed25519.PublicKey(p.ReceiptKey))}
	v.signed(by).Seals++
	if v.chains[by] == nil {
		v.chains[by] = &links{digests: map[uint64][]byte{}}
	}
	v.link(p, s, v.chains[by])
	first := b.last == 0 && s.Number == 1
	for _, o := range b.open {
		v.covered(o, p, s, first)
	}
	b.last, b.open = max(b.last, p.Seq), b.open[:0]
}

// unsealed counts what stands behind the last seals: it is not sealed yet.
func (v *verifier) unsealed() {
	for _, b := range v.boxes {
		v.Unsealed += len(b.open)
	}
}

// link looks whether a seal follows on the one before. An outbox that began
// anew under another name may tell again what it had told, and a host that lost
// its disk begins from one.
func (v *verifier) link(p placed, s Seal, c *links) {
	was, known := c.digests[s.Number]
	before, hasBefore := c.digests[s.Number-1]
	other := c.last > 0 && p.Outbox != c.outbox
	switch {
	case known && other && bytes.Equal(was, s.Digest()), s.Number == 1 && other:
	case c.last > 0 && s.Number > c.last+1:
		v.find(p.Number, "seals %d to %d of %s are missing before it", c.last+1, s.Number-1, p.Host)
	case c.last > 0 && s.Number != c.last+1:
		v.find(p.Number, "it is seal %d of %s, and stands behind seal %d", s.Number, p.Host, c.last)
	case hasBefore && !bytes.Equal(before, s.Before):
		v.find(p.Number, "it is seal %d of %s, and seal %d is not the one that it follows on", s.Number, p.Host, s.Number-1)
	}
	c.last, c.outbox = s.Number, p.Outbox
	c.digests[s.Number] = s.Digest()
}

// covered compares an entry with what the seal behind it has in its place. What
// stands before the first seal that a host ever set, no seal was for.
func (v *verifier) covered(o open, p placed, s Seal, first bool) {
	at := int64(o.seq) - int64(p.Seq) + int64(len(s.Digests)) //nolint:gosec // numbers of a log, which counts in signed integers
	switch {
	case at < 0 && first:
		v.Unsealed++
	case at < 0 || at >= int64(len(s.Digests)):
		v.find(o.number, "no seal of %s covers it: it was put in", p.Host)
	case len(s.Digests[at]) == 0 && o.gap:
	case !bytes.Equal(s.Digests[at], o.digest):
		v.find(o.number, "it is not what %s sealed there, in its seal %d", p.Host, s.Number)
	}
}
