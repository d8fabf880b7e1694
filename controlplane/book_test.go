package controlplane

import (
	"os"
	"testing"

	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// What was done in the last moment of a server is in the checkpoint that it
// leaves behind, so that a database from before that shows.
func TestAServerThatStopsLeavesTheNewestCheckpoint(t *testing.T) {
	w := newTown(t)
	w.start(t)
	ada := w.enrol(t)
	_, err := ada.CreateJoinToken(t.Context(), &api.CreateJoinTokenRequest{Labels: map[string]string{"tier": "db"}})
	must(t, err)
	book, s := w.server.book, w.server.store
	now, err := s.Tree(t.Context())
	must(t, err)
	w.stop(t)
	note, err := os.ReadFile(book.file)
	must(t, err)
	kept, err := ledger.OpenCheckpoint(note, book.Key())
	if err != nil || kept.Size < now.Size {
		t.Errorf("of %d entries it knows %d, %v", now.Size, kept.Size, err)
	}
}
