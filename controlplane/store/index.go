package store

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strings"

	"github.com/pressly/goose/v3"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// An index finds candidates for a search. What it finds too much the search
// leaves out; what has the words and names that are asked for it never misses.
type index struct {
	make []string // statements
	mend []string // the same, of the version after
	rid  []string // the same, of a later one: it needs no other index for what it finds
	take string   // takes in the entries after a number; empty: that happens by itself
	drop string   // takes out entries as they are, and
	back string   // takes them in again as they are; their numbers follow
	// narrow adds its condition, and says from where to read and by which
	// number to order.
	narrow func(w *where, q roster.Search) (from, number string)
}

// On SQLite one full text index has the words and, as k=exec, the names, so
// that several conditions are one walk over what they have in common.
var sqliteIndex = index{
	make: []string{
		`CREATE VIRTUAL TABLE entry_words USING fts5(words, content='', detail=none, columnsize=0, tokenize="unicode61 remove_diacritics 0 tokenchars '=-_.@'")`,
		`INSERT INTO entry_words (rowid, words) SELECT id, ` + indexedText("") + ` FROM entries ORDER BY id`,
		`CREATE TRIGGER entries_found AFTER INSERT ON entries BEGIN
			INSERT INTO entry_words (rowid, words) VALUES (NEW.id, ` + indexedText("NEW.") + `);
		END`,
	},
	// Once for all of a change: after each row the index would write to the disk.
	mend: []string{`DROP TRIGGER entries_found`},
	rid:  []string{`DROP INDEX entries_person`},
	take: `INSERT INTO entry_words (rowid, words) SELECT id, ` + indexedText("") + ` FROM entries WHERE id > ? ORDER BY id`,
	drop: `INSERT INTO entry_words (entry_words, rowid, words) SELECT 'delete', id, ` + indexedText("") + ` FROM entries WHERE id IN `,
	back: `INSERT INTO entry_words (rowid, words) SELECT id, ` + indexedText("") + ` FROM entries WHERE id IN `,
	narrow: func(w *where, q roster.Search) (from, number string) {
		var terms []string
		for key, v := range map[string]string{"k": q.Kind, "p": q.Person, "h": q.Host, "g": q.Grant, "r": q.Role, "o": q.Outcome} {
			if name.MatchString(v) {
				terms = append(terms, `"`+key+"="+v+`"`)
			} else if key == "p" && v != "" { // nobody's, but a host may have said it
				terms = append(terms, `"p=`+leading.FindString(v)+`"*`)
			}
		}
		for _, t := range wanted(q) {
			term := `"` + t.text + `"`
			if t.begins {
				term += "*"
			}
			terms = append(terms, term)
		}
		if len(terms) == 0 {
			return "entries e", "e.id"
		}
		w.and(`entry_words MATCH ?`, strings.Join(terms, " AND "))
		return "entry_words CROSS JOIN entries e ON e.id = entry_words.rowid", "entry_words.rowid"
	},
}

// indexedText is what SQLite's index has of a row.
func indexedText(row string) string {
	s := row + "words"
	for _, column := range []string{"kind", "person", "host", "grant_id", "role", "outcome"} {
		s += " || ' " + column[:1] + "=' || " + row + column
	}
	return s
}

// On PostgreSQL there is one over the words; it combines that with those of the
// columns by itself.
var postgresIndex = index{
	make: []string{`CREATE INDEX entries_words ON entries USING gin (to_tsvector('simple'::regconfig, words))`},
	narrow: func(w *where, q roster.Search) (from, number string) {
		var terms []string
		for _, t := range wanted(q) {
			term := "'" + t.text + "'"
			if t.begins {
				term += ":*"
			}
			terms = append(terms, term)
		}
		if len(terms) > 0 {
			w.and(`to_tsvector('simple'::regconfig, e.words) @@ to_tsquery('simple'::regconfig, ?)`, strings.Join(terms, " & "))
		}
		return "entries e", "e.id"
	},
}

// name is what the index has as one word.
var name = regexp.MustCompile(`^[a-z0-9][a-z0-9._@-]*$`)

// leading is what the index has of anything as the beginning of a word.
var leading = regexp.MustCompile(`^[a-zA-Z0-9._@-]*`)

// ascii is what both databases take for the same letters as we do.
var ascii = regexp.MustCompile(`^[a-z0-9]+$`)

// token is a word that is asked for.
type token struct {
	text   string
	begins bool // a longer one will do, which begins so
}

// wanted are the words that an entry has to have.
func wanted(q roster.Search) []token {
	var all []token
	add := func(text string, open bool) {
		words := tokens(text)
		for i, t := range words {
			if ascii.MatchString(t) {
				all = append(all, token{t, open && i == len(words)-1})
			}
		}
	}
	for _, word := range q.Words {
		text, open := strings.CutSuffix(word, "*")
		add(text, open)
	}
	add(q.Path, false)
	return all
}

// findable is the migration that makes what is there findable.
func findable(d dialect) *goose.Migration {
	return goose.NewGoMigration(52, &goose.GoFunc{RunTx: func(ctx context.Context, inner *sql.Tx) error {
		t := &tx{conn: conn{inner, d}}
		if err := t.fill(ctx); err != nil {
			return fmt.Errorf("make entries findable: %w", err)
		}
		return t.indexed(ctx, d.index.make)
	}}, nil)
}

// indexedAtOnce is the migration that has entries indexed with their change.
func indexedAtOnce(d dialect) *goose.Migration {
	return goose.NewGoMigration(53, &goose.GoFunc{RunTx: func(ctx context.Context, inner *sql.Tx) error {
		t := &tx{conn: conn{inner, d}}
		return t.indexed(ctx, d.index.mend)
	}}, nil)
}

// indexedOnce is the migration that leaves to the index over words what it finds
// by itself.
func indexedOnce(d dialect) *goose.Migration {
	return goose.NewGoMigration(157, &goose.GoFunc{RunTx: func(ctx context.Context, inner *sql.Tx) error {
		t := &tx{conn: conn{inner, d}}
		return t.indexed(ctx, d.index.rid)
	}}, nil)
}

// find makes what the change added to the record findable.
func (t *tx) find(ctx context.Context) error {
	if len(t.grown.leaves) == 0 {
		return nil
	}
	if take := t.dialect.index.take; take != "" {
		if err := t.run(ctx, take, t.grown.from); err != nil {
			return fmt.Errorf("index entries: %w", err)
		}
	}
	return t.putHours(ctx)
}

func (t *tx) indexed(ctx context.Context, statements []string) error {
	for _, s := range statements {
		if err := t.run(ctx, s); err != nil {
			return fmt.Errorf("index entries: %w", err)
		}
	}
	return nil
}

// stored is a row of entries, read again.
type stored struct {
	row
	id uint64
}

func scanStored(r scanner) (stored, error) {
	var k stored
	err := r.Scan(&k.id, &k.host, &k.kind, instant{&k.entry.At}, &k.entry.Grant, &k.vouched, &k.key, &k.raw, &k.words)
	return k, err
}

func (t *tx) fill(ctx context.Context) error {
	for last := uint64(0); ; {
		some, err := list(ctx, t, scanStored, `SELECT id, host, kind, at, grant_id, receipt_ok, receipt_key, raw, words FROM entries WHERE id > ? ORDER BY id LIMIT ?`, last, someAtOnce)
		if err != nil || len(some) == 0 {
			return err
		}
		for _, k := range some {
			last = k.id
			at := k.entry.At
			text := " " + strings.Join(tokens(k.words), " ")
			if e, err := ledger.ParseEntry(k.raw); err == nil && k.kind != roster.Malformed {
				k.entry = e
				text = words(e)
			}
			find, err := t.about(ctx, k.row)
			if err == nil {
				err = t.exec(ctx, `UPDATE entries SET words = ?, role = ?, outcome = ?, path = ? WHERE id = ?`, text, find.role, find.outcome, find.path, k.id)
			}
			if err != nil {
				return err
			}
			t.grown.at(hour(at), k.id)
		}
		if err := t.putHours(ctx); err != nil {
			return err
		}
		t.grown = growth{}
	}
}
