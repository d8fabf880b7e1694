package store

import (
	"strings"
	"testing"

	"curfew.internal/controlplane/roster"
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
