package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// takeIn is the migration that begins the log with what an older database
// has: its entries in their order, then the steps of requests in theirs.
func takeIn(d dialect) *goose.Migration {
	return goose.NewGoMigration(6, &goose.GoFunc{RunTx: func(ctx context.Context, inner *sql.Tx) error {
		t := &tx{conn: conn{inner, d}}
		if err := t.takeInEntries(ctx); err != nil {
			return fmt.Errorf("take entries into the log: %w", err)
		}
		if err := t.takeInSteps(ctx); err != nil {
			return fmt.Errorf("take steps of requests into the log: %w", err)
		}
		return nil
	}}, nil)
}

// someAtOnce is how many rows a migration holds in memory.
const someAtOnce = 1000

// takeInEntries numbers the entries without a hole and hashes them. Where a
// number was left out, those after it move up.
func (t *tx) takeInEntries(ctx context.Context) error {
	t.grown = growth{begun: true}
	for last := uint64(0); ; {
		some, err := list(ctx, t, scanLeaf, `SELECT id, host, outbox, seq, kind, receipt_key, raw FROM entries WHERE id > ? ORDER BY id LIMIT ?`, last, someAtOnce)
		if err != nil || len(some) == 0 {
			return err
		}
		for _, l := range some {
			last = l.Number
			l.Number = t.grown.from + uint64(len(t.grown.leaves)) + 1
			if l.Number != last {
				if err := t.exec(ctx, `UPDATE entries SET id = ? WHERE id = ?`, l.Number, last); err != nil {
					return err
				}
			}
			t.grown.leaves = append(t.grown.leaves, l.Hash())
		}
		if err := t.seal(ctx); err != nil {
			return err
		}
		t.grown = growth{begun: true, from: t.grown.from + uint64(len(some))}
	}
}

// step is a row of decisions.
type step struct {
	roster.Decision
	id            uint64
	request       string
	digest        []byte
	grant         string
	grantEnvelope []byte
}

func scanStep(r scanner) (step, error) {
	var s step
	err := r.Scan(&s.id, &s.request, instant{&s.At}, &s.What, &s.Person, &s.Host, &s.Text, &s.digest, &s.grant, &s.grantEnvelope)
	return s, err
}

func (t *tx) takeInSteps(ctx context.Context) error {
	for last := uint64(0); ; {
		some, err := list(ctx, t, scanStep, `SELECT d.id, d.request, d.at, d.what, d.person, d.host, d.text, r.digest, coalesce(g.id, ''), g.envelope
			FROM decisions d JOIN requests r ON r.id = d.request LEFT JOIN grants g ON g.request = d.request
			WHERE d.id > ? ORDER BY d.id LIMIT ?`, last, someAtOnce)
		if err != nil || len(some) == 0 {
			return err
		}
		for _, s := range some {
			last = s.id
			if err := t.takeInStep(ctx, s.entry()); err != nil {
				return err
			}
		}
		from := t.grown.from + uint64(len(t.grown.leaves))
		if err := t.seal(ctx); err != nil {
			return err
		}
		t.grown = growth{begun: true, from: from}
	}
}

// takeInStep keeps a step as the database's form of then has it.
func (t *tx) takeInStep(ctx context.Context, e ledger.Entry) error {
	number, err := t.number(ctx)
	if err != nil {
		return err
	}
	r := row{outbox: ownOutbox, kind: e.Kind.String(), entry: e, raw: e.Bytes()}
	err = t.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) + 1 FROM entries WHERE host = '' AND outbox = ?`, ownOutbox).Scan(&r.seq)
	if err != nil {
		return err
	}
	t.grown.leaves = append(t.grown.leaves, r.leaf(number).Hash())
	return t.run(ctx, `INSERT INTO entries (id, host, outbox, seq, kind, at, grant_id, person, words, receipt_ok, receipt_key, raw, request)
		VALUES (?, '', ?, ?, ?, ?, ?, ?, '', 0, ?, ?, ?)`, number, r.outbox, r.seq, r.kind, ns(e.At), e.Grant, e.Person, blob(nil), r.raw, e.Request)
}

func (s step) entry() ledger.Entry {
	e := ledger.Entry{
		Kind: ledger.Decision, At: s.At, Person: s.Person, Text: s.Text, Grant: s.grant, Request: s.request, Step: s.What, Digest: s.digest,
	}
	if s.Host != "" {
		e.Text = s.Host + ": " + s.Text
	}
	if s.What == roster.SignedStep {
		e.Signed = s.grantEnvelope
	}
	return e
}
