package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

// SealType names a seal in its envelope.
const SealType = "application/vnd.curfew.seal.v1"

// Sealed is the kind of an entry that carries a [Seal].
const Sealed Kind = 22

// A Seal is a host's signed word on a batch of what it tells: the entries that
// stand directly before it in its outbox. Each seal names the one before, so
// that none can be taken out or put elsewhere.
type Seal struct {
	Fleet, Host string
	Number      uint64   // of the host's seals, from 1
	Before      []byte   // digest of the seal before; none for the first
	Digests     [][]byte // of the entries, in their order; one that is empty: the host had lost it
}

// EntryDigest is what a seal has of an entry.
func EntryDigest(entry []byte) []byte {
	sum := sha256.Sum256(entry)
	return sum[:]
}

// Bytes is the seal's canonical form.
func (s Seal) Bytes() []byte {
	var w canon.Writer
	w.Text(1, s.Fleet)
	w.Text(2, s.Host)
	w.Uint(3, s.Number)
	w.Blob(4, s.Before)
	for _, d := range s.Digests {
		w.Item(5, d)
	}
	return w.Bytes()
}

func (s *Seal) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&s.Fleet)
	case 2:
		return f.Text(&s.Host)
	case 3:
		return f.Uint(&s.Number)
	case 4:
		return f.Blob(&s.Before)
	case 5:
		var d []byte
		err := f.Blob(&d)
		if err == nil && len(d) != 0 && len(d) != sha256.Size {
			err = fmt.Errorf("field 5 is no digest: %w", canon.ErrMalformed)
		}
		s.Digests = append(s.Digests, d)
		return err
	}
	return f.Unknown()
}

// Digest is what the next seal has of this one.
func (s Seal) Digest() []byte { return EntryDigest(s.Bytes()) }

// Sign signs the seal with the host's key and returns the envelope.
func (s Seal) Sign(key ed25519.PrivateKey) []byte {
	return dsse.Sign(SealType, s.Bytes(), key).Bytes()
}

// OpenSeal checks that the host's key signed the envelope, and returns the
// seal in it.
func OpenSeal(envelope []byte, host ed25519.PublicKey) (Seal, error) {
	var s Seal
	if err := opened(envelope, SealType, host, &s); err != nil {
		return Seal{}, fmt.Errorf("seal: %w", err)
	}
	return s, nil
}
