package ledger

import (
	"bytes"
	"crypto/ed25519"
	"slices"

	"curfew.internal/dsse"
)

// box is where a host numbers what it sends.
type box struct{ host, outbox string }

// batch is a seal at its place in an outbox.
type batch struct {
	Seal
	seq uint64 // of the entry that carries it: the batch stands before
}

// links is how far the seals of a host's key are known to follow one another.
type links struct {
	last    uint64
	outbox  string
	digests map[uint64][]byte // by number
}

// seals holds what hosts told against the seals that they set to it.
func (v *verifier) seals() {
	batches := map[box][]batch{}
	chains := map[Signer]*links{}
	for _, p := range v.good {
		if p.entry.Kind != Sealed || p.Host == "" {
			continue
		}
		s, err := OpenSeal(p.entry.Receipt, p.ReceiptKey)
		switch {
		case err != nil:
			v.find(p.Number, "its seal is not signed by the host's key: %v", err)
			continue
		case s.Fleet != v.Checkpoint.Fleet || s.Host != p.Host:
			v.find(p.Number, "its seal is that of %s in %s, not of %s", s.Host, s.Fleet, p.Host)
			continue
		}
		by := Signer{Host: p.Host, KeyID: dsse.KeyID(ed25519.PublicKey(p.ReceiptKey))}
		v.signed(by).Seals++
		if chains[by] == nil {
			chains[by] = &links{digests: map[uint64][]byte{}}
		}
		v.link(p, s, chains[by])
		k := box{p.Host, p.Outbox}
		batches[k] = append(batches[k], batch{s, p.Seq})
	}
	for _, p := range v.good {
		if p.Host != "" && p.Seq > 0 && p.entry.Kind != Sealed {
			v.covered(p, batches[box{p.Host, p.Outbox}])
		}
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
// stands behind the last seal is not sealed yet; what stands before the first
// seal that a host ever set, no seal was for.
func (v *verifier) covered(p placed, of []batch) {
	i, _ := slices.BinarySearchFunc(of, p.Seq, func(b batch, seq uint64) int {
		if b.seq > seq {
			return 1
		}
		return -1
	})
	if i == len(of) {
		v.Unsealed++
		return
	}
	b := of[i]
	at := int64(p.Seq) - int64(b.seq) + int64(len(b.Digests)) //nolint:gosec // numbers of a log, which counts in signed integers
	switch {
	case at < 0 && i == 0 && b.Number == 1:
		v.Unsealed++
	case at < 0:
		v.find(p.Number, "no seal of %s covers it: it was put in", p.Host)
	case len(b.Digests[at]) == 0 && p.entry.Kind == Gap && !p.Foreign:
	case !bytes.Equal(b.Digests[at], EntryDigest(p.Entry)):
		v.find(p.Number, "it is not what %s sealed there, in its seal %d", p.Host, b.Number)
	}
}
