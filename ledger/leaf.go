package ledger

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/canon"
)

// A Leaf is what the log holds of one entry: the entry as it came, where it
// came from, and its place. Entry n is leaf n-1 of a Merkle tree (RFC 6962).
type Leaf struct {
	Number     uint64 // from 1, without a hole
	Host       string // that sent it, by its certificate; empty: the control plane itself
	Outbox     string // the host's
	Seq        uint64 // within the outbox; 0: the control plane noted it about the host
	Foreign    bool   // it cannot be read, or is about what the host has no part in: it counts for nothing
	ReceiptKey []byte // that the host had, for an entry with a receipt
	Entry      []byte // verbatim
}

// ErrLeaf is the class of refusals of bytes that are no leaf.
var ErrLeaf = errors.New("malformed leaf")

// Bytes is the leaf's canonical form, over which the log hashes.
func (l Leaf) Bytes() []byte {
	var w canon.Writer
	w.Uint(1, l.Number)
	w.Text(2, l.Host)
	w.Text(3, l.Outbox)
	w.Uint(4, l.Seq)
	w.Bool(5, l.Foreign)
	w.Blob(6, l.ReceiptKey)
	w.Blob(7, l.Entry)
	return w.Bytes()
}

// ParseLeaf reads a leaf; it does not look into the entry.
func ParseLeaf(b []byte) (Leaf, error) {
	var l Leaf
	err := canon.Read(b, func(f canon.Field) error {
		switch f.Num {
		case 1:
			return f.Uint(&l.Number)
		case 2:
			return f.Text(&l.Host)
		case 3:
			return f.Text(&l.Outbox)
		case 4:
			return f.Uint(&l.Seq)
		case 5:
			return f.Bool(&l.Foreign)
		case 6:
			return f.Blob(&l.ReceiptKey)
		case 7:
			return f.Blob(&l.Entry)
		}
		return f.Unknown()
	})
	if err == nil {
		err = canon.Same(b, l.Bytes())
	}
	if err != nil {
		return Leaf{}, fmt.Errorf("%w: %w", ErrLeaf, err)
	}
	return l, nil
}

// Hash is the leaf's hash in the tree.
func (l Leaf) Hash() tlog.Hash { return tlog.RecordHash(l.Bytes()) }
