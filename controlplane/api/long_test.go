package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// Whoever starts programs with megabytes of arguments has no search, no page and
// no tail take as much memory as all of them together.
func TestLongCommandLines(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.issued(t)
	const n, each = 12, 2 << 20
	for i := range uint64(n) {
		e := ledger.Entry{
			Kind: ledger.Exec, At: w.clock.Now().Wall, Host: "db1", Grant: r.Grant, Person: "ana", Session: 9, SessionSeq: i + 1,
			Process: &ledger.Process{Path: "/bin/true", Argv: []string{"true", fmt.Sprint("n", i), strings.Repeat("x", each)}},
		}
		_, err := w.store.KeepRecords(ctx, "db1", "o", []roster.Record{{Seq: i + 1, Entry: e.Bytes()}})
		must(t, err)
	}
	found := 0
	for q := (&api.SearchEventsRequest{Kind: "exec", Grant: r.Grant, Limit: 1000}); ; {
		got, err := w.ada.SearchEvents(ctx, q)
		must(t, err)
		if len(got.Events)*each > roster.EventBytes+each {
			t.Fatalf("%d of them on a page", len(got.Events))
		}
		for _, e := range got.Events {
			if e.Process.Argv[1] != fmt.Sprint("n", found) {
				t.Fatalf("%s is number %d", e.Process.Argv[1], found)
			}
			found++
		}
		if q.After = got.Next; got.Next == 0 {
			break
		}
	}
	if found != n {
		t.Errorf("%d are found, of %d", found, n)
	}
	story, err := w.ada.Timeline(ctx, &api.TimelineRequest{Grant: r.Grant})
	must(t, err)
	told, last := 0, ""
	for _, m := range story.Moments {
		if m.What == "exec" {
			told++
		}
		if m.What == "left-out" {
			last = m.Text
		}
	}
	if told == 0 || told*each > 16<<20 || !strings.Contains(last, "12 things") || !strings.Contains(last, r.Grant) {
		t.Errorf("%d are told, and %q", told, last)
	}
}

// A gap that a host tells of after a grant, and that began under it, is one of
// the grant's record.
func TestAGapThatIsToldLate(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.issued(t)
	start := w.clock.Now().Wall
	w.clock.pass(time.Minute)
	_, err := w.ana.Revoke(ctx, &api.RevokeRequest{Grant: r.Grant})
	must(t, err)
	for i, g := range []struct{ since, at time.Time }{
		{start, start.Add(9 * time.Hour)},
		{start.Add(8 * time.Hour), start.Add(9 * time.Hour)}, // after it was over
	} {
		e := ledger.Entry{Kind: ledger.Gap, Since: g.since, At: g.at, Host: "db1", Lost: 3, Text: "no room"}
		_, err := w.store.KeepRecords(ctx, "db1", "o", []roster.Record{{Seq: uint64(i) + 1, Entry: e.Bytes()}})
		must(t, err)
	}
	story, err := w.ada.Timeline(ctx, &api.TimelineRequest{Grant: r.Grant})
	if err != nil || story.Request.Gaps != 1 || story.Request.Lost != 3 {
		t.Errorf("%v gaps, %v", story.GetRequest().GetGaps(), err)
	}
}
