package store

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
)

// copyOf is the database as it is now, in another place.
func copyOf(t *testing.T, s *Store, place string) string {
	t.Helper()
	if server != nil {
		must(t, s.Close()) // PostgreSQL copies what nobody uses
		u, err := url.Parse(place)
		must(t, err)
		return database(t, strings.TrimPrefix(u.Path, "/"))
	}
	file := filepath.Join(t.TempDir(), "backup")
	must(t, s.Backup(t.Context(), file))
	return file
}

// A backup is restored that is older than a revocation. Whatever becomes of it
// then, the grant does not come back.
func TestRestoredStateBringsNothingBack(t *testing.T) {
	place, ctx := newPlace(t), t.Context()
	s := openAt(t, place)
	addPerson(t, s, "ana")
	addPerson(t, s, "ben")
	addHost(t, s, "db1")
	addHost(t, s, "db2")
	ask(t, s, rid)
	_, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	waits := "r-bbbbbbbbbbbbbbbb"
	ask(t, s, waits)
	must(t, s.PutInvite(ctx, roster.Invite{Hash: [32]byte{9}, Person: "ben", Expires: noon.Add(time.Hour)}, roster.Act{At: noon}))
	must(t, s.PutJoinToken(ctx, roster.JoinToken{Hash: [32]byte{8}, Expires: noon.Add(time.Hour)}, noon))
	backup := copyOf(t, s, place)
	s = openAt(t, place)
	_, err = s.Change(ctx, rid, noon, to("revoked"))
	must(t, err)
	kept := opened(t, s, "db1").Revision

	old := openAt(t, backup)
	if o := opened(t, old, "db1"); o.Revision >= kept || len(o.Grants) != 1 {
		t.Fatalf("the backup has %+v", o)
	}
	// The host says what it keeps, and from then on it is sent nothing, though
	// the numbers grow past it.
	must(t, old.Seen(ctx, "db1", noon, roster.Host{Applied: kept}))
	for n := range 4 {
		must(t, old.Resign(ctx, "another key", noon.Add(time.Duration(n))))
	}
	must(t, old.Seen(ctx, "db1", noon, roster.Host{Applied: kept}))
	if v, err := old.State(ctx, "db1"); err != nil || v.Revision <= kept || !v.Ahead {
		t.Fatalf("the host would be sent a grant that was revoked: revision %d, %v", v.Revision, err)
	}
	if v, err := old.State(ctx, "db2"); err != nil || v.Ahead {
		t.Errorf("db2 said nothing: %v", err)
	}
	if h, err := old.Host(ctx, "db1"); err != nil || h.Ahead != kept {
		t.Errorf("the operator sees %+v, %v", h, err)
	}

	later := noon.Add(time.Hour)
	must(t, old.Restored(ctx, roster.Act{By: "root", At: later}, "the record was set back"))
	for _, h := range []string{"db1", "db2"} {
		if o := opened(t, old, h); o.Revision < uint64(later.UnixMilli()) || len(o.Grants) != 0 {
			t.Errorf("%s: %+v", h, o)
		}
	}
	for id, state := range map[string]string{rid: "revoked", waits: "denied"} {
		if r, err := old.Request(ctx, id); err != nil || r.State != state {
			t.Errorf("%s is %s, %v", id, r.State, err)
		}
	}
	want(t, "an invite of before", old.UpdateInvite(ctx, [32]byte{9}, func(i roster.Invite) (roster.Invite, error) { return i, nil }), roster.ErrUnknown)
	_, err = old.UseJoinToken(ctx, [32]byte{8}, newHost("db3"), noon)
	want(t, "a join code of before", err, roster.ErrUnknown)
	must(t, old.Seen(ctx, "db1", later, roster.Host{Applied: kept}))
	if v, err := old.State(ctx, "db1"); err != nil || v.Ahead {
		t.Errorf("the host is still sent nothing: %v", err)
	}
	logged(t, old)
	all, err := old.Events(ctx, roster.Search{Kind: "admin", Words: []string{"revision", "given", "restored"}})
	if err != nil || len(all) != 1 {
		t.Errorf("the record has %d words on it, %v", len(all), err)
	}
}

// A host that lies about what it keeps harms nobody but itself.
func TestHostThatClaimsEveryRevision(t *testing.T) {
	s, ctx := scene(t), t.Context()
	must(t, s.Seen(ctx, "db1", noon, roster.Host{Applied: 1<<64 - 1}))
	must(t, s.Restored(ctx, roster.Act{By: "root", At: noon}, "the record was set back"))
	if v, err := s.State(ctx, "db1"); err != nil || !v.Ahead {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := s.State(ctx, "db2"); err != nil || v.Ahead {
		t.Errorf("%+v, %v", v, err)
	}
}

// A file that has something in it is not written over.
func TestBackupWritesOverNothing(t *testing.T) {
	s := scene(t)
	file := filepath.Join(t.TempDir(), "backup")
	must(t, os.WriteFile(file, []byte("precious"), 0o600))
	if err := s.Backup(t.Context(), file); err == nil {
		t.Error("was written")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}
