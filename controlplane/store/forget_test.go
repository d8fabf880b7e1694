package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

func TestForget(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	r, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	under := func(seq uint64, kind ledger.Kind, at time.Time) roster.Record {
		return entry(seq, func(e *ledger.Entry) { e.Kind, e.Grant, e.Person, e.At = kind, r.Grant.ID, "ana", at })
	}
	before, err := s.LastEvent(ctx)
	must(t, err)
	_, err = s.KeepRecords(ctx, "db1", "o", []roster.Record{
		under(1, ledger.Login, noon), under(2, ledger.Exec, noon), under(3, ledger.Exit, noon), under(4, ledger.Exec, noon.Add(time.Hour)), under(5, ledger.Gap, noon),
		entry(6, func(e *ledger.Entry) { e.Person = "ana" }), // under no role
	})
	must(t, err)
	was, err := s.Tree(ctx)
	must(t, err)
	must(t, s.Age(ctx, noon.Add(time.Minute)))
	roles, err := s.Roles(ctx)
	if diff := cmp.Diff([]string{r.Role}, roles); err != nil || diff != "" {
		t.Error(diff, err)
	}

	n, err := s.Forget(ctx, r.Role, noon.Add(time.Hour), noon.Add(2*time.Hour))
	if err != nil || n != 2 {
		t.Fatalf("%d were deleted: %v", n, err)
	}
	if n, err = s.Forget(ctx, r.Role, noon.Add(time.Hour), noon); err != nil || n != 0 {
		t.Errorf("%d were deleted again: %v", n, err)
	}
	found := func(q roster.Search) (ids []uint64) {
		t.Helper()
		all, err := s.Events(ctx, q)
		must(t, err)
		for _, v := range all {
			if v.ID > before {
				ids = append(ids, v.ID-before)
			}
		}
		return ids
	}
	if diff := cmp.Diff([]uint64{4, 6}, found(roster.Search{Words: []string{"echo"}, Kind: "exec"})); diff != "" {
		t.Error("by words: ", diff)
	}
	if diff := cmp.Diff([]uint64{1, 2, 3, 4, 5}, found(roster.Search{Role: r.Role, Host: "db1"})); diff != "" {
		t.Error("by role: ", diff)
	}
	all, err := s.Events(ctx, roster.Search{After: before + 1, Limit: 1})
	if err != nil || !all[0].Deleted || all[0].Entry.Process != nil || all[0].Entry.Person != "ana" || all[0].Entry.Grant != r.Grant.ID || !all[0].Entry.At.Equal(noon) {
		t.Errorf("%+v, %v", all, err)
	}
	if told := found(roster.Search{Kind: "admin", Words: []string{"deleted", "of", "role", r.Role}}); len(told) != 1 {
		t.Errorf("in the record: %v", told)
	}
	proven(t, s, was, before)
	for _, q := range []string{
		`UPDATE entries SET erased = 0`, `UPDATE entries SET raw = receipt_key, erased = 1 WHERE erased = 1`, `UPDATE entries SET erased = 1, host = 'x'`, `UPDATE entries SET id = id + 1000`,
	} {
		_, err := s.one.ExecContext(ctx, q)
		refused(t, err, "the log is only added to")
	}
}

// proven checks that the log holds what it held, and that of what was deleted
// it has the digest.
func proven(t *testing.T, s *Store, was ledger.Tree, before uint64) {
	t.Helper()
	again, err := s.TreeAt(t.Context(), was.Size)
	if err != nil || again != was {
		t.Errorf("the log was %+v, and is %+v, %v", was, again, err)
	}
	deleted, err := s.Deleted(t.Context(), was.Size)
	if diff := cmp.Diff([]uint64{before + 2, before + 3}, deleted); err != nil || diff != "" {
		t.Error(diff, err)
	}
	records, err := s.Proven(t.Context(), []uint64{before + 1, before + 2}, was.Size)
	must(t, err)
	if len(records[0].Leaf) == 0 || len(records[0].Digest) > 0 || len(records[1].Leaf) > 0 {
		t.Errorf("%+v", records)
	}
	must(t, tlog.CheckRecord(records[1].Proof, int64(was.Size), was.Root, int64(before)+1, tlog.Hash(records[1].Digest)))
}

func TestForgetGoesOnFromWhereItStopped(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	r, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	var batch []roster.Record
	for seq := range uint64(forgetAtOnce + 20) {
		batch = append(batch, entry(seq+1, func(e *ledger.Entry) { e.Grant, e.At = r.Grant.ID, noon }))
	}
	_, err = s.KeepRecords(ctx, "db1", "o", batch)
	must(t, err)
	must(t, s.Age(ctx, noon))
	var deleted []int
	for range 3 {
		n, err := s.Forget(ctx, r.Role, noon.Add(1), noon)
		must(t, err)
		deleted = append(deleted, n)
	}
	if diff := cmp.Diff([]int{forgetAtOnce, 20, 0}, deleted); diff != "" {
		t.Error(diff)
	}
}

// Root on a host sets its clock back by a year, so that what he does is too old
// at once. It is told for as long as all else that came when it did.
func TestForgetGoesByTheControlPlanesClock(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	r, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	const year = 365 * 24 * time.Hour
	for i, came := range []time.Time{noon, noon.Add(48 * time.Hour)} {
		_, err := s.KeepRecords(ctx, "db1", "o", []roster.Record{entry(uint64(i+1), func(e *ledger.Entry) { e.Grant, e.At = r.Grant.ID, noon.Add(-2*year) })})
		must(t, err)
		must(t, s.Age(ctx, came))
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{year, 0}, {year + 1, 1}, {year + 48*time.Hour, 0}, {year + 48*time.Hour + 1, 1}} {
		now := noon.Add(c.after)
		if n, err := s.Forget(ctx, r.Role, now.Add(-year), now); err != nil || n != c.want {
			t.Errorf("after %v %d were deleted, want %d: %v", c.after, n, c.want, err)
		}
	}
}

// What was noted by a clock that was ahead does not count once it is right.
func TestAgesOfAWrongClock(t *testing.T) {
	s, ctx := scene(t), t.Context()
	if at, err := s.Aged(ctx); err != nil || !at.IsZero() {
		t.Errorf("of a new record: %v, %v", at, err)
	}
	for _, at := range []time.Time{noon, noon.Add(1000 * time.Hour), noon.Add(time.Hour), noon.Add(time.Hour)} {
		must(t, s.Age(ctx, at))
		if aged, err := s.Aged(ctx); err != nil || !aged.Equal(at) {
			t.Errorf("it is %v, want %v: %v", aged, at, err)
		}
	}
}
