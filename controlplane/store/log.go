package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// ErrLog means that the database holds entries and hashes that do not belong
// together: somebody else wrote into it.
var ErrLog = errors.New("the log's hashes are not those of its entries")

// row is an entry as it is kept.
type row struct {
	host, outbox string
	seq          uint64
	kind         string
	entry        ledger.Entry
	words        string // of the entry; empty: not counted yet
	raw          []byte
	vouched      bool   // its receipt is signed by the key
	key          []byte // of the host, for an entry with a receipt
	role         string // of the request; empty: that of the entry's grant
}

func (r row) leaf(number uint64) ledger.Leaf {
	return ledger.Leaf{
		Number: number, Host: r.host, Outbox: r.outbox, Seq: r.seq, Foreign: r.kind == roster.Malformed, ReceiptKey: r.key, Entry: r.raw,
	}
}

// growth is what a transaction adds to the log.
type growth struct {
	begun  bool
	from   uint64 // the log's size before
	leaves []tlog.Hash
	hours  map[int64]ledger.Range // the first and last entry that tells of each
	own    uint64                 // how many of the record the control plane made itself; 0: not known yet
	rows   []any                  // of entries that are still to be inserted, column after column
}

// ofEntries are the columns that an entry has when it is new.
const ofEntries = `entries (id, host, outbox, seq, kind, at, grant_id, person, words, receipt_ok, receipt_key, raw, request, role, outcome, path)`

var columnsOfEntries = strings.Count(ofEntries, ",") + 1

// keep takes an entry into the record and the log, which grows by it when the
// transaction is committed. Until [tx.put] no statement finds it.
func (t *tx) keep(ctx context.Context, r row) error {
	number, err := t.number(ctx)
	if err != nil {
		return err
	}
	find, err := t.about(ctx, r)
	if err != nil {
		return err
	}
	if r.words == "" {
		r.words = words(r.entry)
	}
	t.grown.rows = append(t.grown.rows,
		number, r.host, r.outbox, r.seq, r.kind, ns(r.entry.At), r.entry.Grant, r.entry.Person, r.words, r.vouched, blob(r.key), blob(r.raw), r.entry.Request,
		find.role, find.outcome, find.path)
	t.grown.leaves = append(t.grown.leaves, r.leaf(number).Hash())
	t.grown.at(hour(r.entry.At), number)
	return nil
}

// put inserts the entries that were kept.
func (t *tx) put(ctx context.Context) error {
	rows := t.grown.rows
	t.grown.rows = nil
	return t.insert(ctx, ofEntries, columnsOfEntries, rows)
}

// number is that of the next entry.
func (t *tx) number(ctx context.Context) (uint64, error) {
	if !t.grown.begun {
		var hashes int64
		err := t.QueryRowContext(ctx, `SELECT (SELECT coalesce(max(id), 0) FROM entries), (SELECT coalesce(max(place) + 1, 0) FROM log_hashes)`).Scan(&t.grown.from, &hashes)
		if err == nil && hashes != tlog.StoredHashCount(int64(t.grown.from)) { //nolint:gosec // databases count in signed integers
			err = ErrLog
		}
		if err != nil {
			return 0, err
		}
		t.grown.begun = true
	}
	return t.grown.from + uint64(len(t.grown.leaves)) + 1, nil
}

// at notes that an entry tells of an hour.
func (g *growth) at(hour int64, number uint64) {
	if g.hours == nil {
		g.hours = map[int64]ledger.Range{}
	}
	first := number
	if was, ok := g.hours[hour]; ok {
		first = was.From
	}
	g.hours[hour] = ledger.Range{From: first, To: number}
}

// seal adds the hashes of what was kept to the log. Of the tree that is there
// it reads the right edge alone.
func (t *tx) seal(ctx context.Context) error {
	if len(t.grown.leaves) == 0 {
		return nil
	}
	if err := t.put(ctx); err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	first := tlog.StoredHashCount(int64(t.grown.from)) //nolint:gosec // databases count in signed integers
	var fresh []tlog.Hash
	stored := hashes{ctx, t}
	read := tlog.HashReaderFunc(func(places []int64) ([]tlog.Hash, error) {
		all := make([]tlog.Hash, len(places))
		for i, p := range places {
			if p >= first {
				all[i] = fresh[p-first]
				continue
			}
			one, err := stored.ReadHashes([]int64{p})
			if err != nil {
				return nil, err
			}
			all[i] = one[0]
		}
		return all, nil
	})
	for i, leaf := range t.grown.leaves {
		more, err := tlog.StoredHashesForRecordHash(int64(t.grown.from)+int64(i), leaf, read) //nolint:gosec // as above
		if err != nil {
			return fmt.Errorf("log: %w", err)
		}
		fresh = append(fresh, more...)
	}
	return t.putHashes(ctx, first, fresh)
}

func (t *tx) putHours(ctx context.Context) error {
	for hour, r := range t.grown.hours {
		err := t.run(ctx, `INSERT INTO entry_hours VALUES (?, ?, ?) ON CONFLICT (hour) DO UPDATE SET last = excluded.last`, hour, r.From, r.To)
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) putHashes(ctx context.Context, first int64, fresh []tlog.Hash) error {
	rows := make([]any, 0, 2*len(fresh))
	for i := range fresh {
		rows = append(rows, first+int64(i), fresh[i][:])
	}
	if err := t.insert(ctx, `log_hashes (place, hash)`, 2, rows); err != nil {
		return fmt.Errorf("%w: %w", ErrLog, err)
	}
	return nil
}

// hashes reads the log's tree.
type hashes struct {
	ctx context.Context //nolint:containedctx // the library's interface has none
	querier
}

// ReadHashes implements [tlog.HashReader].
func (r hashes) ReadHashes(places []int64) ([]tlog.Hash, error) {
	found := map[int64]tlog.Hash{}
	_, err := list(r.ctx, r, func(s scanner) (struct{}, error) {
		var place int64
		var h []byte
		if err := s.Scan(&place, &h); err != nil {
			return struct{}{}, err
		}
		found[place] = tlog.Hash(h)
		return struct{}{}, nil
	}, `SELECT place, hash FROM log_hashes WHERE place IN `+among(places), args(places)...)
	all := make([]tlog.Hash, len(places))
	for i, p := range places {
		h, ok := found[p]
		if !ok && err == nil {
			err = fmt.Errorf("%w: none stands at %d", ErrLog, p)
		}
		all[i] = h
	}
	return all, err
}

// Tree is the log as it stands.
func (s *Store) Tree(ctx context.Context) (ledger.Tree, error) {
	var size uint64
	if err := s.read.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM entries`).Scan(&size); err != nil {
		return ledger.Tree{}, err
	}
	return s.TreeAt(ctx, size)
}

// TreeAt is the log as it stood at a size that it has, or had.
func (s *Store) TreeAt(ctx context.Context, size uint64) (ledger.Tree, error) {
	root, err := tlog.TreeHash(int64(size), hashes{ctx, s.read}) //nolint:gosec // as above
	if err != nil {
		return ledger.Tree{}, fmt.Errorf("log of %d entries: %w", size, err)
	}
	return ledger.Tree{Size: size, Root: root}, nil
}

// Growth proves that the log of one size goes on from that of a smaller.
func (s *Store) Growth(ctx context.Context, from, to uint64) (tlog.TreeProof, error) {
	if from == 0 || from == to {
		return nil, nil
	}
	p, err := tlog.ProveTree(int64(to), int64(from), hashes{ctx, s.read}) //nolint:gosec // as above
	if err != nil {
		return nil, fmt.Errorf("log from %d to %d entries: %w", from, to, err)
	}
	return p, nil
}

// Selected returns the numbers of the entries that are asked for, of the log of
// a size. With those of a grant come the gaps that their hosts tell of in
// between, which may be about it, and the seals up to the one that the last of
// them is under.
func (s *Store) Selected(ctx context.Context, q roster.Selection, size uint64) ([]uint64, error) {
	if q.Grant == "" && q.Request == "" {
		return list(ctx, s.read, scanNumber, `SELECT id FROM entries WHERE id <= ? AND id >=
			(SELECT coalesce(min(id), ?) FROM entries WHERE at >= ?) ORDER BY id`, size, size+1, ns(q.Since))
	}
	return list(ctx, s.read, scanNumber, `WITH about AS (SELECT id, host FROM entries WHERE id <= ? AND
			(grant_id = ? AND grant_id <> '' OR request = ? AND request <> ''))
		, spans AS (SELECT host, min(id) AS first, max(id) AS last FROM about WHERE host <> '' GROUP BY host)
		SELECT id FROM about UNION SELECT e.id FROM entries e JOIN spans a ON e.host = a.host AND e.id BETWEEN a.first AND a.last
			WHERE e.kind = 'gap' AND e.grant_id = ''
		UNION SELECT e.id FROM entries e JOIN spans a ON e.host = a.host AND e.id > a.first AND e.id <=
			(SELECT coalesce(min(s.id), a.last) FROM entries s WHERE s.kind = 'sealed' AND s.host = a.host AND s.id > a.last AND s.id <= ?)
			WHERE e.kind = 'sealed'
		ORDER BY 1`, size, q.Grant, q.Request, size)
}

func scanNumber(r scanner) (uint64, error) {
	var n uint64
	err := r.Scan(&n)
	return n, err
}

// Proven returns entries by their numbers, with the proofs that the log of a
// size holds them.
func (s *Store) Proven(ctx context.Context, numbers []uint64, size uint64) ([]ledger.Record, error) {
	rows, err := list(ctx, s.read, scanPossible, `SELECT id, host, outbox, seq, kind, receipt_key, raw, erased FROM entries
		WHERE id IN `+among(numbers)+` ORDER BY id`, args(numbers)...)
	if err != nil {
		return nil, err
	}
	all := make([]ledger.Record, len(rows))
	for i, l := range rows {
		p, err := tlog.ProveRecord(int64(size), int64(l.Number)-1, hashes{ctx, s.read}) //nolint:gosec // as above
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", l.Number, err)
		}
		all[i] = ledger.Record{Leaf: l.Bytes(), Proof: p}
		if l.erased {
			h, err := hashes{ctx, s.read}.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(l.Number)-1)}) //nolint:gosec // as above
			if err != nil {
				return nil, err
			}
			all[i] = ledger.Record{Digest: h[0][:], Proof: p}
		}
	}
	return all, nil
}

func scanLeaf(r scanner) (ledger.Leaf, error) {
	var l ledger.Leaf
	var kind string
	err := r.Scan(&l.Number, &l.Host, &l.Outbox, &l.Seq, &kind, &l.ReceiptKey, &l.Entry)
	l.Foreign = kind == roster.Malformed
	return l, err
}

// possible is a leaf of which nothing but its hash may be left.
type possible struct {
	ledger.Leaf
	erased bool
}

// and scans a column behind those of a leaf.
type and struct {
	scanner
	more any
}

func (a and) Scan(to ...any) error { return a.scanner.Scan(append(to, a.more)...) }

func scanPossible(r scanner) (possible, error) {
	var p possible
	var err error
	p.Leaf, err = scanLeaf(and{r, &p.erased})
	return p, err
}
