package keep

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"curfew.internal/ledger"
)

const (
	// sealMost and sealBytes are how many entries one seal is for at most.
	sealMost  = 256
	sealBytes = 1 << 20
	// sealAfter is how long lies between two seals that are not full. Only what
	// is sealed is sent.
	sealAfter = 100 * time.Millisecond
	// sealWithin is how many bytes are searched for the last seal. There is
	// one in them, unless an agent wrote them that set none: what is before
	// them goes out as it is then.
	sealWithin = 2 * (sealBytes + maxEntry)
)

// sealing is how entries of the outbox are put under the host's seals.
type sealing struct {
	key    ed25519.PrivateKey // nil: nothing is sealed, and everything is sent
	fleet  string
	number uint64        // of the last seal
	before []byte        // its digest
	set    time.Duration // since boot, when one was set that is not full
	at     uint64        // number of the entry that carries the last one on disk
	open   [][]byte      // digests of the entries behind the last seal
	bytes  int           // of those entries
}

// noteOpen notes an entry that is to be sealed; the caller holds mu.
func (o *Outbox) noteOpen(entry []byte) {
	s := &o.seals
	if s.key == nil {
		return
	}
	s.open, s.bytes = append(s.open, ledger.EntryDigest(entry)), s.bytes+len(entry)
	if len(s.open) >= sealMost || s.bytes >= sealBytes {
		o.seal()
	}
}

// seal puts what is behind the last seal under another; the caller holds mu.
func (o *Outbox) seal() {
	s := &o.seals
	if s.key == nil || len(s.open) == 0 {
		return
	}
	is := ledger.Seal{Fleet: s.fleet, Host: o.host, Number: s.number + 1, Before: s.before, Digests: s.open}
	e := ledger.Entry{
		Kind: ledger.Sealed, At: o.clock.Now().Wall, Host: o.host, Boot: o.boot, Receipt: is.Sign(s.key),
		Text: fmt.Sprintf("seal %d, of %d entries", is.Number, len(is.Digests)),
	}
	b := e.Bytes()
	o.enqueue(pending{o.next, b, true, nobody})
	s.number, s.before, s.open, s.bytes = is.Number, is.Digest(), nil, 0
}

// sealAlong seals what there is, so that it goes to the disk in one write with
// its seal, unless one was set just now: then they wait for others. The caller
// holds mu.
func (o *Outbox) sealAlong() {
	if now := o.clock.Now().Boot; now-o.seals.set >= sealAfter {
		o.seal()
		o.seals.set = now
	}
}

// sealNow seals what there is.
func (o *Outbox) sealNow() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seal()
	o.seals.set = o.clock.Now().Boot
}

// toSeal is when to seal what is not sealed yet, if there is something.
func (o *Outbox) toSeal(due <-chan time.Time) <-chan time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.seals.key == nil || len(o.seals.open) == 0:
		return nil
	case due == nil:
		return o.clock.After(sealAfter)
	}
	return due
}

// sendable is the number of the last entry that may be sent; the caller holds
// mu.
func (o *Outbox) sendable() uint64 {
	if o.seals.key == nil {
		return o.durable
	}
	return o.seals.at
}

// resume goes on from the last seal on disk. If there is none, as of an agent
// that set none, the next one is for all that is found.
func (o *Outbox) resume() error {
	s := &o.seals
	if s.key == nil {
		return nil
	}
	s.at = o.durable
	digests := map[uint64][]byte{}
	read := 0
	for _, seg := range slices.Backward(o.segments) {
		if read > sealWithin {
			break
		}
		b, bad := o.read(seg, 0, seg.size)
		if busy(bad) {
			return bad
		}
		read += len(b)
		s.at = seg.first - 1
		for _, f := range slices.Backward(scan(b, seg.first)) {
			entry := b[f.from:f.end()]
			if last, ok := o.ownSeal(entry); ok {
				s.number, s.before, s.at = last.Number, last.Digest(), f.seq
				o.reopen(digests)
				return nil
			}
			digests[f.seq] = ledger.EntryDigest(entry)
		}
	}
	o.reopen(digests)
	return nil
}

// reopen notes what the next seal is for. What the disk lost has no digest.
func (o *Outbox) reopen(digests map[uint64][]byte) {
	for seq := o.seals.at + 1; seq < o.next; seq++ {
		o.seals.open = append(o.seals.open, digests[seq])
	}
}

// ownSeal reads the seal that an entry carries, if it is one of this host's.
func (o *Outbox) ownSeal(entry []byte) (ledger.Seal, bool) {
	e, err := ledger.ParseEntry(entry)
	if err != nil || e.Kind != ledger.Sealed {
		return ledger.Seal{}, false
	}
	public, _ := o.seals.key.Public().(ed25519.PublicKey)
	s, err := ledger.OpenSeal(e.Receipt, public)
	return s, err == nil && s.Fleet == o.seals.fleet && s.Host == o.host
}
