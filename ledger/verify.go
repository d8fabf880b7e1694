package ledger

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/dsse"
)

const (
	// maxExport bounds what a manifest makes its reader count.
	maxExport = 1 << 28
	// maxFindings are told one by one. A bundle of which much is missing has no end of them.
	maxFindings = 10_000
)

// Trust is what whoever checks a bundle holds already.
type Trust struct {
	Key   Key    // of the log
	Older []byte // a signed checkpoint that she kept; nil: none

	Witnesses []Witness // whose word on the checkpoint counts
	Quorum    int       // how many of them have to have given it
}

// A Finding is one thing that is wrong, at its place.
type Finding struct {
	Number uint64 // of the entry; 0: the bundle as a whole
	Text   string
}

// String is the finding for people.
func (f Finding) String() string {
	if f.Number == 0 {
		return f.Text
	}
	return fmt.Sprintf("entry %d: %s", f.Number, f.Text)
}

// A Report says what a bundle proves, and what is wrong with it. It is good
// only without a finding.
type Report struct {
	Checkpoint Checkpoint
	Since      []Checkpoint // earlier ones that it goes on from, shown by proof
	Cosigned   []Cosigner   // of the witnesses that were named
	Asked      string       // what the export was asked for
	Numbers    []Range      // the entries that it has
	Deleted    []Range      // those of which the log has only digests any more
	Signers    []Signer     // of its receipts
	Sessions   int          // whose numbers were looked at
	Terminals  int          // whose segments were looked at
	Open       int          // of these, recordings whose end is not in the bundle
	Tapes      int          // segments that show what their hosts signed
	Erased     []Range      // entries of segments of which the log says that what they show was deleted
	Unsealed   int          // entries of hosts that no seal is for, or none yet
	Findings   []Finding
	More       uint64 // findings beside these

	Takes []Take `json:"-"` // these segments, and the ends of recordings
}

// A Signer is a host whose key signed receipts and seals of the bundle.
type Signer struct {
	Host, KeyID     string
	Receipts, Seals int
}

// A Cosigner is a witness that was named, and when it cosigned the bundle's
// checkpoint, as it says; the zero time: it has not.
type Cosigner struct {
	Name string
	At   time.Time
}

// Verify is [VerifyFile] of a bundle in memory.
func Verify(file []byte, trust Trust) Report {
	return VerifyFile(inMemory(file), int64(len(file)), trust)
}

// VerifyFile checks an export with nothing but what the checker holds: that the
// key signed its checkpoint, that each entry is in the tree at its number, that
// the tree goes on from earlier checkpoints, that the witnesses that she names
// cosigned it, that hosts signed their receipts and sealed what else they told, that sessions have no hole that no gap tells
// of, that the segments of terminals go on one from another, and, where what they show comes along, that it is what hosts signed.
//
// It reads the file twice, and has one entry or one segment of it in memory at a
// time. Of each entry it keeps two numbers; of each session, recording, segment
// and seal some hundred bytes.
func VerifyFile(file File, size int64, trust Trust) Report {
	b, err := lay(file, size)
	v := verifier{
		trust: trust, bundle: b, signers: map[Signer]*Signer{}, told: map[box]outboxed{}, boxes: map[box]*seals{}, chains: map[Signer]*links{},
		heard: map[session]*heard{}, spare: map[string]uint64{}, reels: map[reel]Segment{}, said: map[uint64]Segment{},
	}
	if !v.checkpoint() {
		return v.Report
	}
	v.cosigned()
	v.growth()
	v.records(v.manifest(), err)
	v.unsealed()
	v.sessions()
	v.terminals()
	v.tapes(v.behind)
	for _, s := range v.signers {
		v.Signers = append(v.Signers, *s)
	}
	slices.SortFunc(v.Signers, func(a, b Signer) int { return compare(a.Host, b.Host, a.KeyID, b.KeyID) })
	slices.SortStableFunc(v.Findings, func(a, b Finding) int { return cmp.Compare(a.Number, b.Number) })
	return v.Report
}

// verifier is a check in the making.
type verifier struct {
	Report
	trust   Trust
	bundle  *laid
	signers map[Signer]*Signer
	deleted []Range // that the manifest says were
	erased  []Range // entries of segments of which it says that what they show was
	behind  error   // why the bundle cannot be read any further behind its records

	manifested Manifest // zero, if it does not count
	unknown    uint64   // numbers of sessions that what was deleted may have had
	gone       []uint64 // of these, those whose digest the checkpoint vouches for

	// What the entries told so far that the checkpoint vouches for, in their order.
	newest uint64             // its number
	passed int                // of the deleted, those before it
	told   map[box]outboxed   // the newest of each outbox, in a stretch without holes
	boxes  map[box]*seals     // what no seal is for yet
	chains map[Signer]*links  // of seals
	heard  map[session]*heard // of sessions
	spare  map[string]uint64  // lost on a host, nobody knows of which session
	reels  map[reel]Segment   // the newest segment of each recording
	said   map[uint64]Segment // segments whose data may be in the bundle, by their entries
}

// placed is an entry that the checkpoint vouches for.
type placed struct {
	Leaf
	entry Entry
}

func (v *verifier) find(number uint64, format string, args ...any) {
	if len(v.Findings) == maxFindings {
		v.More++
		return
	}
	v.Findings = append(v.Findings, Finding{number, fmt.Sprintf(format, args...)})
}

// checkpoint reports whether there is a checkpoint to hold the rest against.
func (v *verifier) checkpoint() bool {
	c, err := OpenCheckpoint(v.bundle.Checkpoint, v.trust.Key)
	if err != nil {
		v.find(0, "the bundle's checkpoint: %v", err)
		return false
	}
	v.Checkpoint = c
	return true
}

// cosigned looks which of the witnesses have cosigned the checkpoint. The same
// one counts once, however often it is named.
func (v *verifier) cosigned() {
	said := 0
	for i, w := range v.trust.Witnesses {
		if slices.ContainsFunc(v.trust.Witnesses[:i], func(o Witness) bool { return o.public.Equal(w.public) }) {
			continue
		}
		at, err := w.Cosigned(v.bundle.Checkpoint)
		switch {
		case err == nil:
			said++
		case !errors.Is(err, ErrUnsigned):
			v.find(0, "the checkpoint, of witness %s: %v", w.Name, err)
		}
		v.Cosigned = append(v.Cosigned, Cosigner{w.Name, at})
	}
	if said < v.trust.Quorum {
		v.find(0, "%d of the witnesses that you named cosigned the checkpoint, and you ask for %d: somebody may be shown another log", said, v.trust.Quorum)
	}
}

// growth looks at the earlier checkpoints: that of the bundle, and that of the
// checker.
func (v *verifier) growth() {
	var older Checkpoint
	if len(v.bundle.Older) == 0 && len(v.bundle.Growth) > 0 {
		v.find(0, "the bundle has a proof of growth, and not from where")
	}
	if len(v.bundle.Older) > 0 {
		var err error
		if older, err = OpenCheckpoint(v.bundle.Older, v.trust.Key); err == nil {
			err = Grew(older.Tree, v.Checkpoint.Tree, v.bundle.Growth)
		}
		if err != nil {
			v.find(0, "the bundle's earlier checkpoint: %v", err)
			older = Checkpoint{}
		} else {
			v.Since = append(v.Since, older)
		}
	}
	if len(v.trust.Older) == 0 {
		return
	}
	kept, err := OpenCheckpoint(v.trust.Older, v.trust.Key)
	if err != nil {
		v.find(0, "the checkpoint that you kept: %v", err)
		return
	}
	v.kept(kept, older)
}

// kept compares what the checker kept with the two trees that are known to be
// one.
func (v *verifier) kept(kept, older Checkpoint) {
	switch kept.Size {
	case v.Checkpoint.Size, older.Size:
		known := v.Checkpoint
		if kept.Size != v.Checkpoint.Size {
			known = older
		}
		if err := Grew(kept.Tree, known.Tree, nil); err != nil {
			v.find(0, "the checkpoint that you kept: %v", err)
			return
		}
		if !slices.Contains(v.Since, kept) && kept.Size != v.Checkpoint.Size {
			v.Since = append(v.Since, kept)
		}
		return
	}
	if kept.Size > v.Checkpoint.Size {
		v.find(0, "the checkpoint that you kept is of %d entries, the bundle's of %d: the bundle is older, or the log was set back", kept.Size, v.Checkpoint.Size)
		return
	}
	v.find(0, "the bundle does not prove that it goes on from the checkpoint that you kept, of %d entries: export it again with --from that file", kept.Size)
}

// manifest returns the numbers of the entries that the bundle is to have. If
// the manifest does not count, that is what the records say themselves.
func (v *verifier) manifest() []Range {
	m, err := OpenManifest(v.bundle.Manifest, v.trust.Key)
	if err == nil && (m.Fleet != v.Checkpoint.Fleet || m.Tree != v.Checkpoint.Tree) {
		err = fmt.Errorf("manifest: it is about another state of the log than the checkpoint")
	}
	for _, all := range [][]Range{m.Numbers, m.Deleted, m.Erased} {
		if err == nil {
			err = ordered(all, m.Size)
		}
	}
	if err == nil {
		v.Asked, v.manifested, v.deleted, v.erased = m.Asked, m, m.Deleted, m.Erased
		return m.Numbers
	}
	v.find(0, "what the bundle is to hold is not known: %v", err)
	var numbers []uint64
	for i := range v.bundle.records {
		r, err := v.bundle.record(i)
		if l, lerr := ParseLeaf(r.Leaf); err == nil && lerr == nil {
			numbers = append(numbers, l.Number)
		}
	}
	slices.Sort(numbers)
	return Ranges(slices.Compact(numbers))
}

// ordered reports an error unless ranges name numbers of a tree of a size, each once
// and in their order.
func ordered(ranges []Range, size uint64) error {
	last := uint64(0)
	for i, r := range ranges {
		if r.To-r.From > maxExport {
			return fmt.Errorf("manifest: it promises more than a bundle can hold")
		}
		if r.From == 0 || r.From > r.To || r.To > size || i > 0 && r.From <= last+1 {
			return fmt.Errorf("manifest: its numbers are out of order")
		}
		last = r.To
	}
	return nil
}

// record checks the record of entry n, which stands in a place of the bundle.
func (v *verifier) record(n uint64, place int) bool {
	r, err := v.bundle.record(place)
	if err == nil && r.deleted() {
		v.digest(n, r)
		return false
	}
	var l Leaf
	if err == nil {
		l, err = ParseLeaf(r.Leaf)
	}
	switch {
	case err == nil && len(r.Digest) > 0:
		v.find(n, "a digest was put in beside it")
		return false
	case err != nil:
		v.find(n, "what stands in its place cannot be read: %v", err)
		return false
	case l.Number != n:
		v.find(n, "in its place stands what calls itself entry %d", l.Number)
		return false
	case n > v.Checkpoint.Size:
		v.find(n, "the checkpoint has only %d entries", v.Checkpoint.Size)
		return false
	}
	size := int64(v.Checkpoint.Size)                                                                                //nolint:gosec // below maxSize, as n is
	if err := tlog.CheckRecord(r.Proof, size, v.Checkpoint.Root, int64(n-1), tlog.RecordHash(r.Leaf)); err != nil { //nolint:gosec // as above
		v.find(n, "it was changed, or its proof was: the checkpoint does not vouch for it")
		return false
	}
	if within(v.deleted, n) {
		v.find(n, "it was put back: the log had nothing but its digest when this was exported")
	}
	v.vouched(l)
	return true
}

// digest checks what is left of an entry that was deleted. That it was, the log
// itself has to say: on the way, somebody could take out what he likes.
func (v *verifier) digest(n uint64, r Record) {
	if !within(v.deleted, n) {
		v.find(n, "what it said was taken out: the log had it when this was exported")
		return
	}
	if n > v.Checkpoint.Size || tlog.CheckRecord(r.Proof, int64(v.Checkpoint.Size), v.Checkpoint.Root, int64(n-1), tlog.Hash(r.Digest)) != nil { //nolint:gosec // below maxSize
		v.find(n, "its digest was changed, or its proof was: the checkpoint does not vouch for it")
		return
	}
	v.gone = append(v.gone, n)
}

// vouched looks into an entry that is what the log took in.
func (v *verifier) vouched(l Leaf) {
	p := placed{Leaf: l}
	var err error
	if !l.Foreign {
		if p.entry, err = ParseEntry(l.Entry); err != nil {
			v.find(l.Number, "the log took in what is no entry: %v", err)
			return
		}
		if err := v.receipt(p); err != nil {
			v.find(l.Number, "%v", err)
		}
	}
	v.complete(p)
	v.seal(p)
	if !l.Foreign {
		v.hear(p)
		v.terminal(p)
	}
}

// receipt checks the receipt of an entry that has to have one.
func (v *verifier) receipt(p placed) error {
	var fleet, host, grant, person string
	switch p.entry.Kind { //nolint:exhaustive // the others carry no receipt
	case Removed:
		r, err := OpenReceipt(p.entry.Receipt, p.ReceiptKey)
		if err != nil {
			return fmt.Errorf("its receipt is not signed by the host's key: %w", err)
		}
		fleet, host, grant, person = r.Fleet, r.Host, r.Grant, r.Person
	case Leftovers:
		r, err := OpenLeftovers(p.entry.Receipt, p.ReceiptKey)
		if err != nil {
			return fmt.Errorf("its receipt is not signed by the host's key: %w", err)
		}
		fleet, host, grant, person = r.Fleet, r.Host, r.Grant, r.Person
	case Terminal:
		if len(p.entry.Receipt) == 0 {
			return nil // it tells of a session without a terminal
		}
		s, err := OpenSegment(p.entry.Receipt, p.ReceiptKey)
		if err != nil {
			return fmt.Errorf("its word on a terminal is not signed by the host's key: %w", err)
		}
		if s.Session != p.entry.Session {
			return fmt.Errorf("its word on a terminal is about session %x, not about %x", s.Session, p.entry.Session)
		}
		fleet, host, grant, person = s.Fleet, s.Host, s.Grant, s.Person
	default:
		return nil
	}
	if fleet != v.Checkpoint.Fleet || host != p.Host || grant != p.entry.Grant || person != p.entry.Person {
		return fmt.Errorf("its receipt is about %s on %s, not about %s on %s", grant, host, p.entry.Grant, p.Host)
	}
	v.signed(Signer{Host: p.Host, KeyID: dsse.KeyID(ed25519.PublicKey(p.ReceiptKey))}).Receipts++
	return nil
}

// signed is the account of a host's key.
func (v *verifier) signed(by Signer) *Signer {
	if v.signers[by] == nil {
		v.signers[by] = &by
	}
	return v.signers[by]
}
