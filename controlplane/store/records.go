package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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
	err := s.write(ctx, func(t *tx) error {
		h, err := host(ctx, t, name)
		if err != nil {
			return err
		}
		err = t.QueryRowContext(ctx, `SELECT coalesce(max(up_to), 0) FROM outboxes WHERE host = ? AND outbox = ?`, name, outbox).Scan(&upTo)
		if err != nil {
			return err
		}
		k := keeper{tx: t, host: h, fleet: s.fleet, outbox: outbox}
		for _, r := range records {
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
	host   roster.Host
	fleet  string
	outbox string
}

// next keeps the record if it goes on from upTo, and returns where it ends
// then. What was kept already is passed over.
func (k keeper) next(ctx context.Context, upTo uint64, r roster.Record) (uint64, error) {
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
	return k.insert(ctx, 0, e.Kind.String(), e, e.Bytes())
}

func (k keeper) take(ctx context.Context, r roster.Record) error {
	e, err := ledger.ParseEntry(r.Entry)
	if err != nil {
		return k.insert(ctx, r.Seq, roster.Malformed, ledger.Entry{At: k.host.Seen, Host: k.host.Name, Text: err.Error()}, r.Entry)
	}
	strange, err := k.strange(ctx, e.Grant)
	if err != nil {
		return err
	}
	// Whoever reads the story of a grant, or of a host, is not told tales by one
	// that has no part in it. What came is kept: it may be what a machine still
	// had to say when it joined again under another name.
	foreign := ""
	switch {
	case e.Host != k.host.Name:
		foreign = "speaks for host " + e.Host + ": "
	case strange:
		foreign = "tells of grant " + e.Grant + ", which is not for this host: "
	}
	if foreign != "" {
		e.Text = foreign + e.Text
		e.Host, e.Grant, e.Person = k.host.Name, "", ""
		return k.insert(ctx, r.Seq, roster.Malformed, e, r.Entry)
	}
	return k.insert(ctx, r.Seq, e.Kind.String(), e, r.Entry)
}

// strange reports whether the grant is one of ours, but not for this host.
func (k keeper) strange(ctx context.Context, id string) (bool, error) {
	if id == "" {
		return false, nil
	}
	var is bool
	err := k.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM grants g WHERE g.id = ?) AND NOT EXISTS
		(SELECT 1 FROM grants g JOIN request_hosts r ON r.request = g.request WHERE g.id = ? AND r.host = ?)`, id, id, k.host.Name).Scan(&is)
	return is, err
}

func (k keeper) insert(ctx context.Context, seq uint64, kind string, e ledger.Entry, raw []byte) error {
	var valid bool
	var key []byte
	if (e.Kind == ledger.Removed || e.Kind == ledger.Leftovers) && kind != roster.Malformed {
		valid, key = k.vouched(e), k.host.ReceiptKey
	}
	e.Request = "" // of what hosts say, none is about a request
	return k.keep(ctx, row{host: k.host.Name, outbox: k.outbox, seq: seq, kind: kind, entry: e, raw: raw, vouched: valid, key: key})
}

// vouched reports whether the entry carries a receipt that the host signed, of
// the entry's kind and about what the entry is about.
func (k keeper) vouched(e ledger.Entry) bool {
	if e.Kind == ledger.Leftovers {
		r, err := ledger.OpenLeftovers(e.Receipt, k.host.ReceiptKey)
		return err == nil && r.Fleet == k.fleet && r.Host == k.host.Name && r.Grant == e.Grant && r.Person == e.Person
	}
	r, err := ledger.OpenReceipt(e.Receipt, k.host.ReceiptKey)
	return err == nil && r.Fleet == k.fleet && r.Host == k.host.Name && r.Grant == e.Grant && r.Person == e.Person
}

// words is what a search looks in.
func words(e ledger.Entry) string {
	all := []string{e.Text, e.Service}
	if p := e.Process; p != nil {
		all = append(all, strings.Join(p.Argv, " "), p.Path, p.Comm, p.Cwd)
	}
	return strings.ToLower(strings.Join(all, " "))
}

// literal takes the meaning from what LIKE would read as a pattern.
var literal = strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`)

const maxEvents = 1000

// Events returns the events that are searched for, oldest first.
func (s *Store) Events(ctx context.Context, q roster.Search) ([]roster.Event, error) {
	w := where{}
	w.and(`e.id > ?`, q.After)
	w.text(`e.grant_id = ?`, q.Grant)
	w.text(`e.person = ?`, q.Person)
	w.text(`e.host = ?`, q.Host)
	w.text(`e.kind = ?`, q.Kind)
	for _, word := range q.Words {
		w.and(`e.words LIKE ? ESCAPE '\'`, "%"+literal.Replace(strings.ToLower(word))+"%")
	}
	if !q.Since.IsZero() {
		w.and(`e.at >= ?`, ns(q.Since))
	}
	if !q.Until.IsZero() {
		w.and(`e.at < ?`, ns(q.Until))
	}
	if q.For != "" {
		w.and(`(e.grant_id IN (SELECT id FROM grants WHERE person = ? UNION
			SELECT g.id FROM grants g JOIN approvals a ON a.request = g.request WHERE a.person = ?)
			OR e.request IN (SELECT id FROM requests WHERE person = ? UNION SELECT request FROM approvals WHERE person = ?))`, q.For, q.For, q.For, q.For)
	}
	limit := min(q.Limit, maxEvents)
	if limit <= 0 {
		limit = 100
	}
	return list(ctx, s.read, scanEvent, `SELECT e.id, e.kind, e.host, e.at, coalesce(g.role, ''), e.receipt_ok, e.receipt_key, e.raw
		FROM entries e LEFT JOIN grants g ON g.id = e.grant_id WHERE `+w.String()+` ORDER BY e.id LIMIT ?`, append(w.args, limit)...)
}

// LastEvent is the id of the newest event.
func (s *Store) LastEvent(ctx context.Context) (uint64, error) {
	var id uint64
	err := s.read.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM entries`).Scan(&id)
	return id, err
}

func scanEvent(r scanner) (roster.Event, error) {
	var v roster.Event
	var raw []byte
	var at time.Time
	if err := r.Scan(&v.ID, &v.Kind, &v.Host, instant{&at}, &v.Role, &v.ReceiptOK, (*[]byte)(&v.ReceiptKey), &raw); err != nil {
		return v, err
	}
	e, err := ledger.ParseEntry(raw)
	if err != nil || v.Kind == roster.Malformed {
		// What it says does not count; what came is in the database.
		v.Entry = ledger.Entry{At: at, Host: v.Host, Text: fmt.Sprintf("%d bytes that are no entry of this host", len(raw))}
		return v, nil //nolint:nilerr // a malformed entry is an event too
	}
	v.Entry = e
	return v, nil
}

// where collects conditions.
type where struct {
	terms []string
	args  []any
}

func (w *where) and(term string, args ...any) {
	w.terms = append(w.terms, term)
	w.args = append(w.args, args...)
}

func (w *where) text(term, value string) {
	if value != "" {
		w.and(term, value)
	}
}

func (w *where) String() string { return strings.Join(w.terms, " AND ") }
