package store

import (
	"database/sql"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// A database of the first version keeps all that it has, in its order, and the
// log takes it in.
func TestMigrationKeepsTheRecord(t *testing.T) {
	ctx, file := t.Context(), filepath.Join(t.TempDir(), "db")
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=foreign_keys(1)")
	must(t, err)
	dir, err := fs.Sub(migrations, "migrations")
	must(t, err)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
	must(t, err)
	_, err = p.UpTo(ctx, 1)
	must(t, err)
	e := ledger.Entry{Kind: ledger.Agent, At: noon, Host: "db1", Text: "started"}
	for _, q := range []string{
		`INSERT INTO people (name, full_name, uid, admin) VALUES ('ana', '', 70000, 0)`,
		`INSERT INTO devices VALUES (zeroblob(32), 'ana', 'laptop', 1)`,
		`INSERT INTO sessions VALUES ('s-a', 'ana', zeroblob(32), 9000000000000000000)`,
		`INSERT INTO hosts (name, labels, addresses, ssh_host_keys, receipt_key, identity, enrolled_at, fresh_at)
			VALUES ('db1', '{}', '[]', '[]', zeroblob(32), 'i', 1, 1)`,
		`INSERT INTO requests VALUES ('r-a', 'ana', '', 'asked', '{}', zeroblob(32), 1, 9000000000000000000, '', '', 1)`,
		`INSERT INTO grants (id, request, person, role, not_before, not_after, payload, envelope, issued_at)
			VALUES ('g-a', 'r-a', 'ana', 'ops', 1, 7, x'', x'07', 1)`,
		`INSERT INTO decisions (request, at, what, person, host, text) VALUES ('r-a', 1, 'asked', 'ana', '', 'please')`,
		`INSERT INTO decisions (request, at, what, person, host, text) VALUES ('r-a', 2, 'signed', '', '', 'grant g-a')`,
	} {
		_, err := db.ExecContext(ctx, q)
		must(t, err)
	}
	for seq := range 3 {
		_, err := db.ExecContext(ctx, `INSERT INTO entries VALUES (?, 'db1', 'o', ?, 'agent', ?, '', '', 'started', 0, x'', ?)`,
			seq+5, seq+1, noon.UnixNano(), e.Bytes())
		must(t, err)
	}
	must(t, db.Close())

	s := openAt(t, file)
	all, err := s.Events(ctx, roster.Search{Host: "db1"})
	if err != nil || len(all) != 3 || all[0].ID != 1 || all[2].Entry.Text != "started" {
		t.Errorf("%+v, %v", all, err)
	}
	must(t, s.PutJoinToken(ctx, roster.JoinToken{Hash: [32]byte{1}, By: "ana", Expires: noon}, noon))
	if id, err := s.LastEvent(ctx); err != nil || id != 6 {
		t.Errorf("the next event is %d, %v", id, err)
	}
	logged(t, s)
	steps, err := s.Events(ctx, roster.Search{Kind: ledger.Decision.String()})
	if err != nil || len(steps) != 2 || steps[0].ID != 4 || steps[0].Entry.Step != "asked" || string(steps[1].Entry.Signed) != "\x07" {
		t.Errorf("%+v, %v", steps, err)
	}
	v, _, err := s.Session(ctx, "s-a", noon)
	if err != nil || !v.Proved.IsZero() {
		t.Errorf("%+v, %v", v, err)
	}
	h, err := s.Host(ctx, "db1")
	if err != nil || h.Leaving != 0 || h.Unwired != nil {
		t.Errorf("%+v, %v", h, err)
	}
	due, err := s.Due(ctx, time.Unix(0, 7))
	if err != nil || len(due) != 1 {
		t.Errorf("a grant of then does not end: %v, %v", due, err)
	}
}
