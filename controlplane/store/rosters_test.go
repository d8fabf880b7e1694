package store

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// Versions of the roster are kept in their order, and each host is told.
func TestRosters(t *testing.T) {
	s := scene(t)
	ctx := t.Context()
	if b, err := s.LastRoster(ctx); err != nil || b != nil {
		t.Fatalf("%x, %v", b, err)
	}
	var told []string
	s.OnSets(func(hosts []string) { told = append(told, hosts...) })
	add := func(version uint64) error {
		return s.AddRoster(ctx, grant.Roster{Version: version, Expires: noon.Add(time.Hour)}, bytes.Repeat([]byte{byte(version)}, 100), roster.Act{By: "ada", At: noon})
	}
	if err := add(2); !errors.Is(err, roster.ErrExists) {
		t.Errorf("the second before the first: %v", err)
	}
	for version := range uint64(3) {
		must(t, add(version+1))
	}
	if err := add(3); !errors.Is(err, roster.ErrExists) {
		t.Errorf("the third twice: %v", err)
	}
	if !slices.Contains(told, "db1") {
		t.Errorf("told: %v", told)
	}
	for _, c := range []struct {
		name  string
		after uint64
		most  int
		want  int
	}{
		{"all", 0, 1000, 3},
		{"those after the one that is held", 1, 1000, 2},
		{"as many as go into a message", 0, 250, 2},
		{"one, however small the message", 0, 1, 1},
		{"none, for who holds the last", 3, 1000, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := s.Rosters(ctx, c.after, c.most)
			must(t, err)
			if len(got) != c.want || c.want > 0 && got[0][0] != byte(c.after+1) {
				t.Errorf("%d versions: %x", len(got), got)
			}
		})
	}
	st, err := s.State(ctx, "db1")
	must(t, err)
	if last, err := s.LastRoster(ctx); err != nil || last[0] != 3 || st.Roster != 3 {
		t.Errorf("%x, %v, hosts are to hold %d", last, err, st.Roster)
	}
}
