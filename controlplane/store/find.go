package store

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

const (
	// maxToken and maxWords keep what is indexed within what both databases
	// can index. A longer run of letters is cut into several; of an entry with
	// more than maxWords, the rest is not found by its words.
	maxToken = 500
	maxWords = 1 << 19
)

// words is what a search looks in: the entry's words in small letters, each
// with a space before it.
func words(e ledger.Entry) string {
	all := append(make([]string, 0, 24), e.Text, e.Service, e.Step, e.Object)
	if p := e.Process; p != nil {
		all = append(append(all, p.Argv...), p.Path, p.Comm, p.Cwd, p.Script)
		for _, v := range p.Env {
			if strings.HasPrefix(v, "LD_") { // the others are much alike, and would only swell what is searched
				all = append(all, v)
			}
		}
	}
	b := make([]byte, 0, 256) // which most entries' words fit in
	for _, text := range all {
		for t := range runs(text) {
			if len(b)+1+len(t) > maxWords {
				return string(b)
			}
			b = append(append(b, ' '), t...)
		}
	}
	return string(b)
}

// tokens are the runs of letters and digits of a text, in one form each.
func tokens(text string) []string { return slices.Collect(runs(text)) }

// runs are the tokens one by one. Most texts need no new bytes for that.
func runs(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for t := range strings.FieldsFuncSeq(roster.Letters(text), between) {
			for len(t) > maxToken {
				cut := maxToken
				for cut > 0 && t[cut]&0xc0 == 0x80 {
					cut--
				}
				if !yield(t[:cut]) {
					return
				}
				t = t[cut:]
			}
			if !yield(t) {
				return
			}
		}
	}
}

// between reports whether a letter stands between words.
func between(r rune) bool {
	if r < unicode.MaxASCII {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && (r < 'A' || r > 'Z')
	}
	return r == unicode.ReplacementChar || !unicode.IsLetter(r) && !unicode.IsNumber(r)
}

// searchable is what an entry is found by, beside its words.
type searchable struct{ role, outcome, path string }

// about is what an entry is found by.
func (t *tx) about(ctx context.Context, r row) (searchable, error) {
	v := roster.Event{Kind: r.kind, Host: r.host, ReceiptOK: r.vouched, ReceiptKey: r.key, Entry: r.entry}
	s := searchable{role: r.role, outcome: v.Outcome()}
	if p := r.entry.Process; p != nil {
		s.path = p.Path
	}
	if s.role != "" || r.entry.Grant == "" {
		return s, nil
	}
	role, known := t.roles[r.entry.Grant]
	if !known {
		err := t.QueryRowContext(ctx, `SELECT coalesce(max(role), '') FROM grants WHERE id = ?`, r.entry.Grant).Scan(&role)
		if err != nil {
			return s, err
		}
		if t.roles == nil {
			t.roles = map[string]string{}
		}
		t.roles[r.entry.Grant] = role
	}
	s.role = role
	return s, nil
}

const maxEvents = 1000

// Events returns the events that are searched for, oldest first: up to the
// limit, or to about [roster.EventBytes].
func (s *Store) Events(ctx context.Context, q roster.Search) ([]roster.Event, error) {
	query, args := s.search(q)
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err below tells
	var all []roster.Event
	for size := 0; size < roster.EventBytes && rows.Next(); {
		v, err := scanEvent(rows)
		if err != nil {
			return nil, err
		}
		all, size = append(all, v), size+v.Size
	}
	return all, rows.Err()
}

// search is the statement for a search.
func (s *Store) search(q roster.Search) (query string, args []any) {
	w := where{}
	from, number := s.read.dialect.index.narrow(&w, q)
	w.and(number+` > ?`, q.After)
	w.text(`e.grant_id = ?`, q.Grant)
	w.text(`e.person = ?`, q.Person)
	w.text(`e.host = ?`, q.Host)
	w.text(`e.kind = ?`, q.Kind)
	if q.Kind == "" {
		w.and(`e.kind <> 'sealed'`) // they tell of nothing that was done
	}
	if q.Kind == ledger.Gap.String() || q.Kind == ledger.Privilege.String() {
		w.and(`e.kind IN ('gap', 'privilege')`) // so that their own index is good for it
	}
	w.text(`e.role = ?`, q.Role)
	w.text(`e.outcome = ?`, q.Outcome)
	if q.Path != "" {
		under := strings.TrimSuffix(q.Path, "/") + "/"
		w.and(`(e.path = ? OR substr(e.path, 1, length(?)) = ?)`, q.Path, under, under)
	}
	for _, word := range q.Words {
		// The words of a word stand side by side. What has none stands nowhere.
		text, open := strings.CutSuffix(word, "*")
		all := tokens(text)
		if len(all) == 0 {
			w.and(`1 = 0`)
		}
		end := " %"
		if open {
			end = "%"
		}
		// PostgreSQL takes a LIKE for true of nearly nothing, and would collect and sort
		// all that has a frequent word; of a CASE it takes a third.
		w.and(`CASE WHEN e.words || ' ' LIKE ? THEN 1 ELSE 0 END > 0`, "% "+strings.Join(all, " ")+end)
	}
	w.span(number, q)
	if q.For != "" {
		w.and(`(e.grant_id IN (SELECT id FROM grants WHERE person = ? UNION
			SELECT g.id FROM grants g JOIN approvals a ON a.request = g.request WHERE a.person = ?)
			OR e.request IN (SELECT id FROM requests WHERE person = ? UNION SELECT request FROM approvals WHERE person = ?))`, q.For, q.For, q.For, q.For)
	}
	limit := min(q.Limit, maxEvents)
	if limit <= 0 {
		limit = 100
	}
	return `SELECT e.id, e.kind, e.host, e.at, e.role, e.receipt_ok, e.receipt_key, e.raw, e.erased, e.grant_id, e.person
		FROM ` + from + ` WHERE ` + w.String() + ` ORDER BY ` + number + ` LIMIT ?`, append(w.args, limit)
}

// span narrows a search to a time. Numbers go with the time only roughly, since
// a host may send late: for each hour that entries tell of, the database knows
// the first and the last of them.
func (w *where) span(number string, q roster.Search) {
	if !q.Since.IsZero() {
		w.and(`e.at >= ?`, ns(q.Since))
		w.and(number+` >= (SELECT coalesce(min(first), 9223372036854775807) FROM entry_hours WHERE hour >= ?)`, hour(q.Since))
	}
	if !q.Until.IsZero() {
		w.and(`e.at < ?`, ns(q.Until))
		w.and(number+` <= (SELECT coalesce(max(last), 0) FROM entry_hours WHERE hour <= ?)`, hour(q.Until))
	}
}

// hour counts the hours since 1970.
func hour(t time.Time) int64 {
	const length = int64(time.Hour)
	n := ns(t)
	return (n - (n%length+length)%length) / length
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
	var grant, person string
	err := r.Scan(&v.ID, &v.Kind, &v.Host, instant{&at}, &v.Role, &v.ReceiptOK, (*[]byte)(&v.ReceiptKey), &raw, &v.Deleted, &grant, &person)
	if err != nil {
		return v, err
	}
	v.Size = len(raw)
	if v.Deleted {
		v.Entry = ledger.Entry{Kind: ledger.KindNamed(v.Kind), At: at, Host: v.Host, Grant: grant, Person: person, Text: "what this entry told was deleted, as the retention of its role says"}
		return v, nil
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
