package controlplane

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// put has the backup take the place of the database.
func (w *town) put(t *testing.T, backup string) {
	t.Helper()
	b, err := os.ReadFile(backup)
	must(t, err)
	for _, end := range []string{"-wal", "-shm"} {
		if err := os.Remove(w.plan.Config.database() + end); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	must(t, os.WriteFile(w.plan.Config.database(), b, 0o600))
}

// A backup is made while the server runs, and restored when more has happened:
// the server does not start on it before the operator says so.
func TestBackupAndRestore(t *testing.T) {
	w, ctx := newTown(t), t.Context()
	w.start(t)
	ada := w.enrol(t)
	backup := filepath.Join(t.TempDir(), "backup")
	must(t, Backup(ctx, w.plan.Config, clock.System{}, backup))
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := Backup(ctx, w.plan.Config, clock.System{}, backup); !errors.Is(err, os.ErrExist) {
		t.Errorf("a backup was written over: %v", err)
	}
	_, err := ada.CreateJoinToken(ctx, &api.CreateJoinTokenRequest{Labels: map[string]string{"tier": "db"}})
	must(t, err)
	until(t, "the newest checkpoint is kept", func() bool {
		now, err := w.server.store.Tree(ctx)
		must(t, err)
		kept, _, err := w.server.book.Checkpoint(ctx)
		return err == nil && kept.Size == now.Size
	})
	w.stop(t)

	w.put(t, backup)
	c, err := ReadConfig(w.plan.ConfigFile)
	must(t, err)
	if _, err := Open(ctx, c, Options{Clock: clock.System{}}); !errors.Is(err, ErrSetBack) || !strings.Contains(err.Error(), "curfew-server restored --why") {
		t.Fatalf("started on a database that was set back: %v", err)
	}
	kept, err := Restored(ctx, c, clock.System{}, "the disk died")
	must(t, err)
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	w.start(t)
	if _, err := ada.Whoami(ctx, &api.WhoamiRequest{}); err == nil {
		t.Error("a session of before the restore counts")
	}
	told, err := w.server.store.Events(ctx, roster.Search{Kind: "admin", Words: []string{"the disk died"}})
	if err != nil || len(told) != 1 {
		t.Errorf("%v, %v", told, err)
	}
	w.stop(t)
}

// The whole machine was set back, its checkpoint too: nothing shows it but the
// operator's word.
func TestRestoreThatShowsNowhere(t *testing.T) {
	w, ctx := newTown(t), t.Context()
	kept, err := Restored(ctx, w.plan.Config, clock.System{}, "snapshot of the machine")
	if err != nil || kept != "" {
		t.Fatalf("%q, %v", kept, err)
	}
	w.start(t)
	w.stop(t)
}

// A server whose database is set back under it stops.
func TestDatabaseIsSetBackUnderTheServer(t *testing.T) {
	w := newTown(t)
	w.start(t)
	w.server.book.mu.Lock()
	w.server.book.newest.Size += 1000
	w.server.book.mu.Unlock()
	if err := <-w.done; !errors.Is(err, ErrSetBack) {
		t.Errorf("it ended with %v", err)
	}
}
