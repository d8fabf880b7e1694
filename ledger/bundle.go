package ledger

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

// ManifestType names the manifest of an export in its envelope.
const ManifestType = "application/vnd.curfew.export.v1"

// A Range is the entries from one number to another, both included.
type Range struct{ From, To uint64 }

// A Manifest is the log's signed word on which entries an export holds, so
// that nobody on its way can leave some out.
type Manifest struct {
	Tree
	Fleet   string
	Asked   string // what was asked for, for people
	Numbers []Range
	Deleted []Range // of these, those of which the log has nothing but the digest any more
	Tapes   bool    // what recordings show comes along
	Erased  []Range // entries of segments of which that was deleted
}

// Bytes is the manifest's canonical form.
func (m Manifest) Bytes() []byte {
	var w canon.Writer
	w.Text(1, m.Fleet)
	w.Uint(2, m.Size)
	w.Blob(3, m.Root[:])
	w.Text(4, m.Asked)
	for _, r := range m.Numbers {
		w.Item(5, r.bytes())
	}
	for _, r := range m.Deleted {
		w.Item(6, r.bytes())
	}
	w.Bool(7, m.Tapes)
	for _, r := range m.Erased {
		w.Item(8, r.bytes())
	}
	return w.Bytes()
}

func (r Range) bytes() []byte {
	var w canon.Writer
	w.Uint(1, r.From)
	w.Uint(2, r.To)
	return w.Bytes()
}

func (r *Range) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Uint(&r.From)
	case 2:
		return f.Uint(&r.To)
	}
	return f.Unknown()
}

// Seal signs the manifest with the log's key and returns the envelope.
func (m Manifest) Seal(key ed25519.PrivateKey) []byte {
	return dsse.Sign(ManifestType, m.Bytes(), key).Bytes()
}

// OpenManifest checks that the log's key signed the envelope, and returns the
// manifest in it.
func OpenManifest(envelope []byte, key Key) (Manifest, error) {
	var m Manifest
	if err := opened(envelope, ManifestType, key.Public, &m); err != nil {
		return Manifest{}, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

func (m *Manifest) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&m.Fleet)
	case 2:
		return f.Uint(&m.Size)
	case 3:
		return hash(f, &m.Root)
	case 4:
		return f.Text(&m.Asked)
	case 5:
		return ranged(f, &m.Numbers)
	case 6:
		return ranged(f, &m.Deleted)
	case 7:
		return f.Bool(&m.Tapes)
	case 8:
		return ranged(f, &m.Erased)
	}
	return f.Unknown()
}

func ranged(f canon.Field, to *[]Range) error {
	var r Range
	err := f.Message(r.field)
	*to = append(*to, r)
	return err
}

func hash(f canon.Field, to *tlog.Hash) error {
	var b []byte
	if err := f.Blob(&b); err != nil {
		return err
	}
	if len(b) != tlog.HashSize {
		return fmt.Errorf("field %d is no hash: %w", f.Num, canon.ErrMalformed)
	}
	copy(to[:], b)
	return nil
}

// Ranges puts ascending numbers in the shortest form.
func Ranges(numbers []uint64) []Range {
	var all []Range
	for _, n := range numbers {
		all = added(all, n)
	}
	return all
}

// added are ranges with a number behind their last.
func added(all []Range, n uint64) []Range {
	if last := len(all) - 1; last >= 0 && all[last].To+1 == n {
		all[last].To = n
		return all
	}
	return append(all, Range{n, n})
}

// A Record is one entry in an export: its leaf's bytes, and why the checkpoint
// vouches for them. Of an entry that was deleted there is the leaf's digest.
type Record struct {
	Leaf   []byte
	Proof  tlog.RecordProof
	Digest []byte
}

// Bytes is the record as it stands in a bundle, which it may be added to.
func (r Record) Bytes() []byte {
	var in, w canon.Writer
	in.Blob(1, r.Leaf)
	for _, h := range r.Proof {
		in.Item(2, h[:])
	}
	in.Blob(3, r.Digest)
	w.Item(5, in.Bytes())
	return w.Bytes()
}

func (r *Record) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Blob(&r.Leaf)
	case 2:
		return proof(f, (*[]tlog.Hash)(&r.Proof))
	case 3:
		return f.Blob(&r.Digest)
	}
	return f.Unknown()
}

// deleted reports whether there is nothing left of the entry but its digest.
func (r Record) deleted() bool { return len(r.Leaf) == 0 && len(r.Digest) == tlog.HashSize }

// A Bundle is an export: entries, and what it takes to check them with nothing
// but the log's key.
type Bundle struct {
	Checkpoint []byte         // a signed note
	Manifest   []byte         // an envelope
	Older      []byte         // an earlier checkpoint, if the export goes on from one
	Growth     tlog.TreeProof // from Older to Checkpoint
	Records    []Record
	Tapes      []Tape // what recordings show, if that was asked for
}

// ErrBundle is the class of refusals of bytes that are no whole bundle.
var ErrBundle = errors.New("malformed bundle")

// Bytes is the bundle's canonical form.
func (b Bundle) Bytes() []byte {
	out := b.head()
	for _, r := range b.Records {
		out = append(out, r.Bytes()...)
	}
	for _, t := range b.Tapes {
		out = append(out, t.Bytes()...)
	}
	return out
}

func (b Bundle) head() []byte {
	var w canon.Writer
	w.Blob(1, b.Checkpoint)
	w.Blob(2, b.Manifest)
	w.Blob(3, b.Older)
	for _, h := range b.Growth {
		w.Item(4, h[:])
	}
	return w.Bytes()
}

// headField reads one field of what stands before the records.
func (b *Bundle) headField(f canon.Field) error {
	switch f.Num {
	case 1:
		return once(f, &b.Checkpoint)
	case 2:
		return once(f, &b.Manifest)
	case 3:
		return once(f, &b.Older)
	case 4:
		return proof(f, (*[]tlog.Hash)(&b.Growth))
	}
	return f.Unknown()
}

// once reads what stands there once, and is not empty. A file of nothing but the
// beginnings of heads would fill the memory before its end shows that.
func once(f canon.Field, to *[]byte) error {
	if len(*to) > 0 {
		return fmt.Errorf("field %d twice: %w", f.Num, canon.ErrNotCanonical)
	}
	err := f.Blob(to)
	if err == nil && len(*to) == 0 {
		err = fmt.Errorf("field %d is empty: %w", f.Num, canon.ErrNotCanonical)
	}
	return err
}

func proof(f canon.Field, to *[]tlog.Hash) error {
	var h tlog.Hash
	err := hash(f, &h)
	if err == nil && len(*to) == maxProof {
		err = fmt.Errorf("a proof of over %d hashes: %w", maxProof, canon.ErrMalformed)
	}
	*to = append(*to, h)
	return err
}
