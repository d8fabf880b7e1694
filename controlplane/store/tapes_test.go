package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

func TestWhatTerminalsShowedIsForgotten(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, "r-aaaaaaaaaaaaaaaa")
	r, err := s.Change(ctx, "r-aaaaaaaaaaaaaaaa", noon, approve)
	must(t, err)
	over := r.Grant.NotAfter.Add(time.Second)
	keep := func(v ledger.Segment) {
		t.Helper()
		must(t, s.KeepSegment(ctx, v, v.Seal(hostKey), 7, there))
	}
	first := statement(1, nil)
	keep(first)
	forget := func(before time.Time) []roster.Terminal {
		t.Helper()
		must(t, s.ForgetTerminals(ctx, r.Role, before, over))
		all, err := s.Erasing(ctx)
		must(t, err)
		return all
	}
	deleted := func() bool {
		t.Helper()
		found, err := s.Terminals(ctx, roster.TerminalSearch{ID: tapeID, Limit: 1})
		must(t, err)
		return len(found) == 1 && found[0].Deleted
	}
	if all := forget(noon); len(all) != 0 || deleted() {
		t.Errorf("it is younger: %v", all)
	}
	if all := forget(over.Add(-2 * time.Second)); len(all) != 0 || deleted() {
		t.Errorf("its grant stood: %v", all)
	}
	must(t, s.ForgetTerminals(ctx, "another", over, over))
	if deleted() {
		t.Error("another role's went")
	}
	if all := forget(over); len(all) != 1 || all[0].ID != tapeID || !deleted() {
		t.Errorf("%v, deleted %v", all, deleted())
	}
	must(t, s.Erased(ctx, "db1", tapeID, 1))
	if taken, _, err := s.Taken(ctx, first); err != nil || taken != 0 {
		t.Errorf("what was deleted takes %d, %v", taken, err)
	}
	if all := forget(over); len(all) != 0 || !deleted() {
		t.Errorf("once more: %v", all)
	}
	if all, err := s.Segments(ctx, "db1", tapeID, 0, 10); err != nil || len(all) != 1 {
		t.Errorf("what its host signed went, too: %v %v", all, err)
	}
	// What a host hands in again, as it did not hear that it was taken, is not kept
	// once more. The next goes the same way, also while its files are deleted.
	if err := s.KeepSegment(ctx, first, first.Seal(hostKey), 7, there); !errors.Is(err, ErrErased) {
		t.Errorf("sent twice: %v", err)
	}
	keep(statement(2, first.Hash()))
	must(t, s.Erased(ctx, "db1", tapeID, 1))
	if all := forget(over); len(all) != 1 || !deleted() {
		t.Errorf("%v", all)
	}
	acts, err := s.Events(ctx, roster.Search{Kind: ledger.Admin.String(), Words: []string{"retention"}})
	must(t, err)
	if len(acts) != 1 || !strings.Contains(acts[0].Entry.Text, tapeID+" on db1") {
		t.Errorf("%+v", acts)
	}
}
