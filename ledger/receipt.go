package ledger

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

// ReceiptType names a receipt in its envelope.
const ReceiptType = "application/vnd.curfew.receipt.v1"

// A Receipt is a host's signed word on the end of a grant: what it removed,
// where it looked, and what is left (the aim: nothing).
type Receipt struct {
	Fleet, Host, Boot string
	Grant, Person     string
	Why               string    // "time", "revoked", "lease" or "lost"
	EndedAt           time.Time // when the host saw that the grant no longer stood
	DoneAt            time.Time // when it had looked again
	Removed           []string  // things taken away, in order
	Killed            uint64    // processes ended
	Looked            []string  // kinds of things looked for afterwards
	Left              []string  // what is still there, and why
}

// Clean reports whether nothing is left.
func (r Receipt) Clean() bool { return len(r.Left) == 0 }

// Bytes is the receipt's canonical form.
func (r Receipt) Bytes() []byte {
	var w canon.Writer
	w.Text(1, r.Fleet)
	w.Text(2, r.Host)
	w.Text(3, r.Boot)
	w.Text(4, r.Grant)
	w.Text(5, r.Person)
	w.Text(6, r.Why)
	w.Nanos(7, r.EndedAt)
	w.Nanos(8, r.DoneAt)
	w.Texts(9, r.Removed)
	w.Uint(10, r.Killed)
	w.Texts(11, r.Looked)
	w.Texts(12, r.Left)
	return w.Bytes()
}

func (r *Receipt) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&r.Fleet)
	case 2:
		return f.Text(&r.Host)
	case 3:
		return f.Text(&r.Boot)
	case 4:
		return f.Text(&r.Grant)
	case 5:
		return f.Text(&r.Person)
	case 6:
		return f.Text(&r.Why)
	case 7:
		return f.Nanos(&r.EndedAt)
	case 8:
		return f.Nanos(&r.DoneAt)
	case 9:
		return f.Texts(&r.Removed)
	case 10:
		return f.Uint(&r.Killed)
	case 11:
		return f.Texts(&r.Looked)
	case 12:
		return f.Texts(&r.Left)
	}
	return f.Unknown()
}

// Seal signs the receipt with the host's key and returns the envelope.
func (r Receipt) Seal(key ed25519.PrivateKey) []byte {
	return dsse.Sign(ReceiptType, r.Bytes(), key).Bytes()
}

// OpenReceipt checks that the host's key signed the envelope, and returns the
// receipt in it. The caller compares fleet, host and grant with what it
// expects.
func OpenReceipt(envelope []byte, host ed25519.PublicKey) (Receipt, error) {
	payload, err := signedBy(envelope, ReceiptType, host)
	if err != nil {
		return Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	var r Receipt
	if err := told(payload, r.field, &r); err != nil {
		return Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	return r, nil
}

// spelled is what has one spelling.
type spelled interface {
	field(f canon.Field) error
	Bytes() []byte
}

// opened reads what the key signed as that type.
func opened(envelope []byte, kind string, key ed25519.PublicKey, to spelled) error {
	payload, err := signedBy(envelope, kind, key)
	if err == nil {
		err = canon.Read(payload, to.field)
	}
	if err == nil {
		err = canon.Same(payload, to.Bytes())
	}
	return err
}

// signedBy returns what the envelope holds, if the host's key signed it as
// that type.
func signedBy(envelope []byte, kind string, host ed25519.PublicKey) ([]byte, error) {
	return dsse.Verify(envelope, kind, 1, func(id string) ed25519.PublicKey {
		if len(host) == ed25519.PublicKeySize && dsse.KeyID(host) == id {
			return host
		}
		return nil
	})
}
