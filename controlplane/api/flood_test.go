package api_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// A rack has recordings of one segment each, the newest first, which say that
// they are of so many bytes.
type rack []uint64

func (r rack) Terminals(_ context.Context, q roster.TerminalSearch) ([]roster.Terminal, error) {
	var found []roster.Terminal
	for i, n := range r {
		t := roster.Terminal{Host: "db1", ID: fmt.Sprint("t", i), Bytes: n, Started: noon.Add(-time.Duration(i) * time.Minute)}
		if q.Until.IsZero() || t.Started.Before(q.Until) {
			found = append(found, t)
		}
	}
	return found[:min(len(found), q.Limit)], nil
}

func (rack) Segments(_ context.Context, _, _ string, after uint64, _ int) ([]roster.Segment, error) {
	if after > 0 {
		return nil, nil
	}
	return []roster.Segment{{Number: 1, Digest: []byte("x")}}, nil
}

func (rack) Get([]byte) ([]byte, error) {
	return []byte("{\"version\":2,\"width\":80,\"height\":24}\n[1.0,\"o\",\"DROP TABLE\\r\\n\"]\n"), nil
}

func (rack) Watch(string, uint64) func() { return func() {} }

func (rack) EndHostSession(context.Context, roster.Terminal, roster.Act, string) error { return nil }

func (rack) Tell(context.Context, roster.Act, string, ...any) error { return nil }

// A recording that is longer than a search looks through at a time hides
// neither itself nor what is older.
func TestNothingHidesBehindALongRecording(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.server.Terminals = rack{10 << 20, 300 << 20, 5 << 20, 1 << 20, 80 << 20}
	var found []string
	calls := 0
	for q := (&api.ListTerminalsRequest{Words: "drop table"}); ; calls++ {
		r, err := w.ada.ListTerminals(ctx, q)
		must(t, err)
		for _, one := range r.Terminals {
			found = append(found, one.Id)
		}
		if q.Until = r.Until; r.Until == nil {
			break
		}
		if !r.More || calls > 9 {
			t.Fatalf("more %v, after %d calls", r.More, calls)
		}
	}
	if fmt.Sprint(found) != "[t0 t1 t2 t3 t4]" {
		t.Errorf("%v", found)
	}
}
