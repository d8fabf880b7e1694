package store

import (
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// logged checks that the log's tree is that of the entries, one leaf for each
// and in their order: it builds it again from nothing.
func logged(t *testing.T, s *Store) ledger.Tree {
	t.Helper()
	now, err := s.Tree(t.Context())
	must(t, err)
	leaves, err := list(t.Context(), s.read, scanLeaf, `SELECT id, host, outbox, seq, kind, receipt_key, raw FROM entries ORDER BY id`)
	must(t, err)
	if uint64(len(leaves)) != now.Size {
		t.Fatalf("%d entries in a log of %d", len(leaves), now.Size)
	}
	var all []tlog.Hash
	read := tlog.HashReaderFunc(func(places []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(places))
		for i, p := range places {
			out[i] = all[p]
		}
		return out, nil
	})
	for i, l := range leaves {
		if l.Number != uint64(i)+1 {
			t.Fatalf("entry %d is in place %d", l.Number, i+1)
		}
		more, err := tlog.StoredHashes(int64(i), l.Bytes(), read)
		must(t, err)
		all = append(all, more...)
	}
	root, err := tlog.TreeHash(int64(len(leaves)), read)
	must(t, err)
	var stored int
	must(t, s.read.QueryRowContext(t.Context(), `SELECT count(*) FROM log_hashes`).Scan(&stored))
	if root != now.Root || stored != len(all) {
		t.Fatalf("the log's tree is not that of its entries: %v with %d hashes, want %v with %d", now.Root, stored, root, len(all))
	}
	return now
}

func TestLogGrowsWithTheRecord(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	if at, err := s.Tree(ctx); err != nil || at.Size != 0 {
		t.Fatalf("%+v, %v", at, err)
	}
	addHost(t, s, "db1")
	trees := []ledger.Tree{logged(t, s)}
	seq := uint64(0)
	rapid.Check(t, func(r *rapid.T) {
		var batch []roster.Record
		for range rapid.IntRange(1, 40).Draw(r, "entries") {
			seq++
			e := ledger.Entry{Kind: ledger.Exec, At: noon, Host: "db1", Text: fmt.Sprint(seq)}
			batch = append(batch, roster.Record{Seq: seq, Entry: e.Bytes()})
		}
		_, err := s.KeepRecords(ctx, "db1", "o", batch)
		must(t, err)
		now, err := s.Tree(ctx)
		must(t, err)
		trees = append(trees, now)
		was := rapid.SampledFrom(trees).Draw(r, "earlier")
		p, err := s.Growth(ctx, was.Size, now.Size)
		must(t, err)
		must(t, ledger.Grew(was, now, p))
		n := rapid.Uint64Range(1, now.Size).Draw(r, "entry")
		all, err := s.Proven(ctx, []uint64{n}, now.Size)
		must(t, err)
		must(t, tlog.CheckRecord(all[0].Proof, int64(now.Size), now.Root, int64(n)-1, tlog.RecordHash(all[0].Leaf)))
	})
	logged(t, s)
}

// What is refused leaves nothing in the log.
func TestLogOfWhatWasRefused(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	was := logged(t, s)
	e := ledger.Entry{Kind: ledger.Agent, At: noon, Host: "db1"}.Bytes()
	if _, err := s.KeepRecords(ctx, "db1", "o", []roster.Record{{Seq: 1, Entry: e}, {Seq: 3, Entry: e}}); err == nil {
		t.Fatal("records out of order were taken")
	}
	if now := logged(t, s); now != was {
		t.Errorf("the log went from %+v to %+v", was, now)
	}
}

func TestLogIsOnlyAddedTo(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	for _, q := range []string{
		`UPDATE log_hashes SET place = place + 1`, `DELETE FROM log_hashes`, `UPDATE entries SET raw = receipt_key`, `UPDATE entries SET host = 'x'`,
	} {
		_, err := s.one.ExecContext(ctx, q)
		refused(t, err, "the log is only added to")
	}
}

// Entries that somebody put in beside the log are found when it grows.
func TestEntriesBesideTheLog(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	_, err := s.one.ExecContext(ctx, `INSERT INTO entries (id, host, outbox, seq, kind, at, grant_id, person, words, receipt_ok, receipt_key, raw)
		SELECT id + 1000, host, outbox, seq + 1000, kind, at, grant_id, person, words, receipt_ok, receipt_key, raw FROM entries LIMIT 3`)
	must(t, err)
	e := ledger.Entry{Kind: ledger.Agent, At: noon, Host: "db1"}.Bytes()
	if _, err := s.KeepRecords(ctx, "db1", "o", []roster.Record{{Seq: 1, Entry: e}}); err == nil {
		t.Error("the log grew over what it does not hold")
	}
}
