package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// ErrOutOfOrder means that records do not go on where the last ended.
var ErrOutOfOrder = errors.New("records are out of order")

// KeepRecords keeps what the host sent of its outbox and returns up to where
// all is kept. What it has already is passed over. An entry that cannot be
// read, or speaks for another host, is kept as it came and counts for nothing.
func (s *Store) KeepRecords(ctx context.Context, name, outbox string, records []roster.Record) (uint64, error) {
	var upTo uint64
	read := readAll(records)
	write := s.write
	if len(records) == 0 {
		write = s.writeTogether // a host that begins
	}
	err := write(ctx, func(t *tx) error {
		h, err := host(ctx, t, name)
		if err != nil {
			return err
		}
		err = t.QueryRowContext(ctx, `SELECT coalesce(max(up_to), 0) FROM outboxes WHERE host = ? AND outbox = ?`, name, outbox).Scan(&upTo)
		if err != nil {
			return err
		}
		k := keeper{tx: t, host: h, fleet: s.fleet, outbox: outbox, strangers: map[string]bool{}, came: map[uint64]sealable{}}
		t.grown.rows = slices.Grow(t.grown.rows, len(records)*columnsOfEntries)
		for _, r := range read {
			if upTo, err = k.next(ctx, upTo, r); err != nil {
				return err
			}
		}
		return t.run(ctx, `INSERT INTO outboxes VALUES (?, ?, ?) ON CONFLICT (host, outbox) DO UPDATE SET up_to = excluded.up_to`, name, outbox, upTo)
	})
	if err != nil {
		return 0, fmt.Errorf("keep records of %s: %w", name, err)
	}
	return upTo, nil
}

// keeper inserts records of one host.
type keeper struct {
	*tx
	host      roster.Host
	fleet     string
	outbox    string
	strangers map[string]bool     // grants that were looked up
	came      map[uint64]sealable // of the outbox, by number: what no seal was for yet
}

// asRead is a record, and what it says.
type asRead struct {
	roster.Record
	entry  ledger.Entry
	err    error // it is none
	digest []byte
	words  string
}

// readAll reads records on all processors, and before the change begins: other
// changes do not wait for it.
func readAll(records []roster.Record) []asRead {
	all := make([]asRead, len(records))
	parts := runtime.GOMAXPROCS(0)
	var g sync.WaitGroup
	for n := range parts {
		g.Go(func() {
			for i := n * len(all) / parts; i < (n+1)*len(all)/parts; i++ {
				r := asRead{Record: records[i], digest: ledger.EntryDigest(records[i].Entry)}
				r.entry, r.err = ledger.ParseEntry(r.Entry)
				r.words = words(r.entry)
				all[i] = r
			}
		})
	}
	g.Wait()
	return all
}

// next keeps the record if it goes on from upTo, and returns where it ends
// then. What was kept already is passed over.
func (k keeper) next(ctx context.Context, upTo uint64, r asRead) (uint64, error) {
	if r.Seq <= upTo {
		return upTo, nil
	}
	if upTo == 0 && r.Seq > 1 {
		if err := k.missing(ctx, r.Seq-1); err != nil {
			return upTo, err
		}
	} else if r.Seq != upTo+1 {
		return upTo, fmt.Errorf("record %d after %d: %w", r.Seq, upTo, ErrOutOfOrder)
	}
	return r.Seq, k.take(ctx, r)
}

// missing says in the record that the first entries of an outbox never came.
func (k keeper) missing(ctx context.Context, n uint64) error {
	e := ledger.Entry{Kind: ledger.Gap, At: k.host.Seen, Host: k.host.Name, Lost: n, Text: "the first records of this outbox never arrived"}
	return k.insert(ctx, e.Kind.String(), asRead{Record: roster.Record{Entry: e.Bytes()}, entry: e})
}

func (k keeper) take(ctx context.Context, r asRead) error {
	k.came[r.Seq] = sealable{r.digest, r.entry.Kind == ledger.Gap}
	if r.err != nil {
		r.entry, r.words = ledger.Entry{At: k.host.Seen, Host: k.host.Name, Text: r.err.Error()}, ""
		return k.insert(ctx, roster.Malformed, r)
	}
	strange, err := k.strange(ctx, r.entry.Grant)
	if err != nil {
		return err
	}
	// Whoever reads the story of a grant, or of a host, is not told tales by one
	// that has no part in it. What came is kept: it may be what a machine still
	// had to say when it joined again under another name.
	foreign := ""
	switch {
	case r.entry.Host != k.host.Name:
		foreign = "speaks for host " + r.entry.Host + ": "
	case strange:
		foreign = "tells of grant " + r.entry.Grant + ", which is not for this host: "
	}
	if foreign != "" {
		r.entry.Text, r.words = foreign+r.entry.Text, ""
		r.entry.Host, r.entry.Grant, r.entry.Person = k.host.Name, "", ""
		return k.insert(ctx, roster.Malformed, r)
	}
	return k.insert(ctx, r.entry.Kind.String(), r)
}

// strange reports whether the grant is one of ours, but not for this host.
func (k keeper) strange(ctx context.Context, id string) (bool, error) {
	if id == "" {
		return false, nil
	}
	is, known := k.strangers[id]
	if known {
		return is, nil
	}
	err := k.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM grants g WHERE g.id = ?) AND NOT EXISTS
		(SELECT 1 FROM grants g JOIN request_hosts r ON r.request = g.request WHERE g.id = ? AND r.host = ?)`, id, id, k.host.Name).Scan(&is)
	k.strangers[id] = is
	return is, err
}

func (k keeper) insert(ctx context.Context, kind string, r asRead) error {
	e := r.entry
	var valid bool
	var key []byte
	bad := ""
	switch {
	case kind == roster.Malformed:
	case e.Kind == ledger.Sealed:
		var err error
		if bad, err = k.sealed(ctx, r.Seq, e.Receipt); err != nil {
			return err
		}
		valid, key = bad == "", k.host.ReceiptKey
		clear(k.came)
	case e.Kind == ledger.Removed, e.Kind == ledger.Leftovers, e.Kind == ledger.Terminal && len(e.Receipt) > 0:
		valid, key = k.vouched(e), k.host.ReceiptKey
	}
	e.Request = "" // of what hosts say, none is about a request
	err := k.keep(ctx, row{
		host: k.host.Name, outbox: k.outbox, seq: r.Seq, kind: kind, entry: e, words: r.words, raw: r.Entry, vouched: valid, key: key,
	})
	if err == nil && bad != "" {
		err = k.alertOf(ctx, e, r.Seq, bad)
	}
	return err
}

// vouched reports whether the entry carries a receipt that the host signed, of
// the entry's kind and about what the entry is about.
func (k keeper) vouched(e ledger.Entry) bool {
	if e.Kind == ledger.Leftovers {
		r, err := ledger.OpenLeftovers(e.Receipt, k.host.ReceiptKey)
		return err == nil && r.Fleet == k.fleet && r.Host == k.host.Name && r.Grant == e.Grant && r.Person == e.Person
	}
	if e.Kind == ledger.Terminal {
		s, err := ledger.OpenSegment(e.Receipt, k.host.ReceiptKey)
		return err == nil && s.Fleet == k.fleet && s.Host == k.host.Name && s.Grant == e.Grant && s.Person == e.Person && s.Session == e.Session
	}
	r, err := ledger.OpenReceipt(e.Receipt, k.host.ReceiptKey)
	return err == nil && r.Fleet == k.fleet && r.Host == k.host.Name && r.Grant == e.Grant && r.Person == e.Person
}
