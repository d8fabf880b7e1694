package store

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	life "curfew.internal/controlplane/request"
)

func TestTheDatabaseHoldsTheTableOfLives(t *testing.T) {
	s, err := Open(t.Context(), newPlace(t), "example")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	rows, err := s.read.QueryContext(t.Context(), "SELECT was, now FROM request_moves ORDER BY was, now")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var got [][2]life.State
	for rows.Next() {
		var m [2]life.State
		if err := rows.Scan(&m[0], &m[1]); err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(life.Moves(), got); diff != "" {
		t.Error(diff)
	}
}
