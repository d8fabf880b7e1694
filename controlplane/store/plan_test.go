package store

import (
	"strings"
	"testing"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// What is searched for is found by an index, and a page of what nearly every entry
// has by walking along the record: neither by collecting all of it first.
func TestHowSearchesAreFound(t *testing.T) {
	ctx := t.Context()
	s := scene(t)
	fill(ctx, t, s, 0, 4000)
	byIndex, along := "entry_words VIRTUAL TABLE INDEX", "entry_words VIRTUAL TABLE INDEX"
	if server != nil {
		byIndex, along = "Bitmap Index Scan on entries_words", "Index Scan using all_entries_pkey"
		if _, err := s.one.ExecContext(ctx, `ANALYZE entries`); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		q    roster.Search
		want string
	}{
		{"a rare word", roster.Search{Words: []string{"/etc/shadow"}}, byIndex},
		{"the beginning of a rare word", roster.Search{Words: []string{"unit-1777*"}}, byIndex},
		{"a word of every second entry", roster.Search{Words: []string{"restart"}, Limit: 20}, along},
	} {
		how, err := plan(ctx, s, c.q)
		if err != nil || !strings.Contains(how, c.want) || strings.Contains(how, "Sort") && c.want == along {
			t.Errorf("%s: %v %s", c.name, err, how)
		}
	}
}

// What hosts say of people is found by its own name, and by an index, whatever it is.
func TestNamesThatNobodyHasAreFound(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	names := []string{"ana", "Ana", "an", "ana b", "ana=b", "žofie", "ana\U0001f642", "_apt", "-", " ana", `"`, "a\x00na"}
	var records []roster.Record
	for i, n := range names {
		records = append(records, entry(uint64(i+1), func(e *ledger.Entry) { e.Person = n }))
	}
	before, err := s.LastEvent(ctx)
	must(t, err)
	_, err = s.KeepRecords(ctx, "db1", "o", records)
	must(t, err)
	for i, n := range names {
		got, err := s.Events(ctx, roster.Search{Person: n})
		if err != nil || len(got) != 1 || got[0].ID != before+uint64(i)+1 {
			t.Errorf("%q: %+v, %v", n, got, err)
		}
		if how, err := plan(ctx, s, roster.Search{Person: n}); err != nil || server == nil && !strings.Contains(how, "entry_words VIRTUAL TABLE INDEX") {
			t.Errorf("%q: %v %s", n, err, how)
		}
	}
	if got, err := s.Events(ctx, roster.Search{Person: "anab"}); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A file for what a statement has changed is written for nothing.
func TestStatementsOfSQLiteNeedNoFile(t *testing.T) {
	if server != nil {
		return
	}
	var inMemory int
	must(t, fresh(t).one.QueryRowContext(t.Context(), `PRAGMA temp_store`).Scan(&inMemory))
	if inMemory != 2 {
		t.Errorf("temp_store is %d", inMemory)
	}
}
