package remains

import (
	"encoding/json"
	"testing"
	"time"

	"curfew.internal/grant"
)

// The machine that the test runs on, read only.
func BenchmarkSnapshot(b *testing.B) {
	h := Host{Root: "/"}
	var last Before
	for b.Loop() {
		before, err := h.Snapshot(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		last = before
	}
	text, err := json.Marshal(last)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(last.Files)), "files")
	b.ReportMetric(float64(len(text)), "bytes")
	if b.N == 1 {
		b.Log(last.Skipped)
	}
}

func BenchmarkLook(b *testing.B) {
	h := Host{Root: "/"}
	before, err := h.Snapshot(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		found, err := h.Look(b.Context(), before, Session{Person: "cfw-ana", UID: grant.UIDMin + 7, Since: time.Now()})
		if err != nil {
			b.Fatal(err)
		}
		b.Log(found)
	}
}
