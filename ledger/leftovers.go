package ledger

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

// LeftoversType names a receipt for leftovers in its envelope.
const LeftoversType = "application/vnd.curfew.leftovers.v1"

// A LeftoversReceipt is a host's signed word on what the sessions of a grant
// left on it. It comes after the [Receipt] of the grant's end, which does not
// wait for it.
type LeftoversReceipt struct {
	Fleet, Host, Boot string
	Grant, Person     string
	Since             time.Time // from when on changes count
	DoneAt            time.Time // when the look was done
	Removed           []string  // what was found and removed
	Left              []string  // what was found and is still there
	Looked            []string  // where
	Skipped           []string  // where not, and why
}

// Bytes is the receipt's canonical form.
func (r LeftoversReceipt) Bytes() []byte {
	var w canon.Writer
	w.Text(1, r.Fleet)
	w.Text(2, r.Host)
	w.Text(3, r.Boot)
	w.Text(4, r.Grant)
	w.Text(5, r.Person)
	w.Nanos(6, r.Since)
	w.Nanos(7, r.DoneAt)
	w.Texts(8, r.Removed)
	w.Texts(9, r.Left)
	w.Texts(10, r.Looked)
	w.Texts(11, r.Skipped)
	return w.Bytes()
}

func (r *LeftoversReceipt) field(f canon.Field) error {
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
		return f.Nanos(&r.Since)
	case 7:
		return f.Nanos(&r.DoneAt)
	case 8:
		return f.Texts(&r.Removed)
	case 9:
		return f.Texts(&r.Left)
	case 10:
		return f.Texts(&r.Looked)
	case 11:
		return f.Texts(&r.Skipped)
	}
	return f.Unknown()
}

// Seal signs the receipt with the host's key and returns the envelope.
func (r LeftoversReceipt) Seal(key ed25519.PrivateKey) []byte {
	return dsse.Sign(LeftoversType, r.Bytes(), key).Bytes()
}

// OpenLeftovers checks that the host's key signed the envelope, and returns
// the receipt in it, as [OpenReceipt] does.
func OpenLeftovers(envelope []byte, host ed25519.PublicKey) (LeftoversReceipt, error) {
	payload, err := signedBy(envelope, LeftoversType, host)
	if err != nil {
		return LeftoversReceipt{}, fmt.Errorf("receipt for leftovers: %w", err)
	}
	var r LeftoversReceipt
	if err := told(payload, r.field, &r); err != nil {
		return LeftoversReceipt{}, fmt.Errorf("receipt for leftovers: %w", err)
	}
	return r, nil
}
