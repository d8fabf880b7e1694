package api_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// exported is what the caller gets, verified with the log's key alone.
func exported(t *testing.T, p *person, q *api.ExportRecordRequest) ledger.Report {
	t.Helper()
	s, err := p.ExportRecord(t.Context(), q)
	must(t, err)
	defer s.Close()
	var file []byte
	for s.Receive() {
		file = append(file, s.Msg().Data...)
	}
	must(t, s.Err())
	c, err := p.GetCheckpoint(t.Context(), &api.GetCheckpointRequest{})
	must(t, err)
	key, err := ledger.ParseKey(c.Key)
	must(t, err)
	return ledger.Verify(file, ledger.Trust{Key: key})
}

// What sessions did is deleted when its time is over. The log verifies as
// before, and says what was deleted; that somebody had privilege stays.
func TestExportOfWhatWasDeleted(t *testing.T) {
	w := newWorld(t)
	r := w.issued(t)
	w.hostReports(t, r, w.clock.Now().Wall)
	if got := exported(t, w.ada, &api.ExportRecordRequest{}); len(got.Findings) > 0 || len(got.Deleted) > 0 || len(got.Signers) != 1 || got.Signers[0].Receipts != 2 || got.Signers[0].Seals != 1 || got.Unsealed != 0 {
		t.Fatalf("%+v", got)
	}
	must(t, w.store.Age(t.Context(), w.clock.Now().Wall))
	end := w.clock.Now().Wall.Add(24 * time.Hour)
	n, err := w.store.Forget(t.Context(), r.Role, end, end)
	if err != nil || n != 1 {
		t.Fatalf("%d were deleted: %v", n, err)
	}
	for _, q := range []*api.ExportRecordRequest{{}, {Grant: r.Grant}} {
		p := w.ada
		if q.Grant != "" {
			p = w.ben // who approved
		}
		got := exported(t, p, q)
		if len(got.Findings) > 0 || len(got.Deleted) != 1 || len(got.Signers) != 1 || got.Signers[0].Receipts != 2 || got.Signers[0].Seals != 1 || got.Unsealed != 0 {
			t.Errorf("%v: %+v", q, got)
		}
	}
	found, err := w.ada.SearchEvents(t.Context(), &api.SearchEventsRequest{Grant: r.Grant, Kind: "exec"})
	if err != nil || len(found.Events) != 1 || found.Events[0].Process != nil || !strings.Contains(found.Events[0].Text, "deleted") {
		t.Errorf("%v, %v", found, err)
	}
	acts, err := w.ada.SearchEvents(t.Context(), &api.SearchEventsRequest{Kind: "admin", Person: "ben", Words: "exported"})
	if err != nil || len(acts.Events) != 1 {
		t.Errorf("who exported is in the record: %v, %v", acts, err)
	}
}

// Recordings are for who may replay them: one who could have approved, and did not,
// exports the rest.
func TestWhoExportsRecordings(t *testing.T) {
	w := newWorld(t)
	r := w.issued(t)
	for _, c := range []struct {
		who  *person
		want connect.Code
	}{{w.ana, 0}, {w.ben, 0}, {w.ada, 0}, {w.cy, connect.CodePermissionDenied}, {w.eve, connect.CodeNotFound}} {
		s, err := c.who.ExportRecord(t.Context(), &api.ExportRecordRequest{Grant: r.Grant, Recordings: true})
		must(t, err)
		for s.Receive() {
		}
		var got connect.Code
		if s.Err() != nil {
			got = connect.CodeOf(s.Err())
		}
		must(t, s.Close())
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.who.name, s.Err(), c.want)
		}
	}
	if got := exported(t, w.cy, &api.ExportRecordRequest{Grant: r.Grant}); len(got.Findings) > 0 {
		t.Errorf("%+v", got)
	}
}

func TestSearchIsChecked(t *testing.T) {
	w := newWorld(t)
	for _, q := range []*api.SearchEventsRequest{{Outcome: "good"}, {Kind: "nothing"}, {Limit: 1001}, {Words: "rm -rf /"}, {Words: "*"}} {
		if _, err := w.ada.SearchEvents(t.Context(), q); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v: %v", q, err)
		}
	}
	r := w.issued(t)
	w.hostReports(t, r, w.clock.Now().Wall)
	for _, c := range []struct {
		q    *api.SearchEventsRequest
		want []string
	}{
		{&api.SearchEventsRequest{Role: r.Role, Outcome: "failed"}, []string{"leftovers"}},
		{&api.SearchEventsRequest{Role: r.Role, Outcome: "ok", Host: "db1"}, []string{"installed", "removed"}},
		{&api.SearchEventsRequest{Role: r.Role, Words: "systemctl re*"}, []string{"exec"}},
		{&api.SearchEventsRequest{Role: "other"}, nil},
	} {
		got, err := w.ada.SearchEvents(t.Context(), c.q)
		must(t, err)
		var kinds []string
		for _, e := range got.Events {
			kinds = append(kinds, e.Kind)
		}
		if !slices.Equal(kinds, c.want) {
			t.Errorf("%v: %v", c.q, kinds)
		}
	}
}
