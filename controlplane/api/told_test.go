package api_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	capi "curfew.internal/controlplane/api"
	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// busy is a store into which a host tells something whenever it was asked for the
// newest event.
type busy struct {
	capi.Store
	tell func()
}

func (b busy) LastEvent(ctx context.Context) (uint64, error) {
	id, err := b.Store.LastEvent(ctx)
	b.tell()
	return id, err
}

// What hosts tell that somebody has to look at is told once: whenever it comes, by
// one of the servers, and also if none ran when it came.
func TestWhatHostsTellIsAnAlertOnce(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	seq := uint64(0)
	tell := func() {
		seq++
		e := ledger.Entry{Kind: ledger.Privilege, At: noon, Host: "db1", Text: fmt.Sprintf("number-%d", seq)}
		if seq%2 == 0 {
			e.Kind, e.Text = ledger.Gap, e.Text+" "+ledger.Demanded
		}
		_, err := w.store.KeepRecords(ctx, "db1", "o", []roster.Record{{Seq: seq, Entry: e.Bytes()}})
		must(t, err)
	}
	serve := func() *capi.Server {
		return &capi.Server{
			Fleet: "lab", Store: busy{w.store, tell}, Desk: w.desk, Rules: w.rules, Authority: w.server.Authority, Clock: w.clock,
			Log: slog.New(slog.NewTextHandler(w.log, nil)),
		}
	}
	must(t, w.server.Alert(ctx)) // from here on
	one, other := serve(), serve()
	for range 2 {
		must(t, one.Alert(ctx))
		must(t, other.Alert(ctx))
	}
	tell()
	must(t, serve().Alert(ctx))
	must(t, w.server.Alert(ctx))
	for n := range seq {
		if told := strings.Count(w.log.String()+" ", fmt.Sprintf("number-%d ", n+1)) + strings.Count(w.log.String(), fmt.Sprintf("what=number-%d\n", n+1)); told != 1 {
			t.Errorf("number %d is told %d times", n+1, told)
		}
	}
}
