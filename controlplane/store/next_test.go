package store

import (
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"

	"curfew.internal/controlplane/roster"
)

// A server of the next version brings the database to its form while one of
// this version goes on, which may even start again.
func TestServerGoesOnUnderTheNextMigration(t *testing.T) {
	place, ctx := newPlace(t), t.Context()
	s, next := openAt(t, place), openAt(t, place)
	addPerson(t, s, "ana")
	addPerson(t, s, "ben")
	addHost(t, s, "db1")
	addHost(t, s, "db2")
	ask(t, s, rid)
	d := next.one.dialect
	p, err := goose.NewProvider(d.goose, next.writer, translated{fstest.MapFS{"99999_next.sql": {Data: []byte(`-- +goose Up
ALTER TABLE hosts ADD COLUMN next TEXT NOT NULL DEFAULT '';
ALTER TABLE requests ADD COLUMN next INTEGER NOT NULL DEFAULT 0;
ALTER TABLE grants ADD COLUMN next INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN next BLOB;
CREATE INDEX entries_next ON entries (next);
CREATE TABLE next (id INTEGER PRIMARY KEY AUTOINCREMENT, flag INTEGER NOT NULL CHECK (flag IN (0, 1))) STRICT;
-- +goose StatementBegin
CREATE TRIGGER next_stay BEFORE UPDATE OF flag ON next WHEN NEW.flag < OLD.flag BEGIN
	SELECT RAISE(ABORT, 'a flag stays up');
END;
-- +goose StatementEnd
`)}}, d.migration}, d.options...)
	must(t, err)
	_, err = p.ApplyVersion(ctx, 99999, true)
	must(t, err)
	_, err = next.one.ExecContext(ctx, `INSERT INTO next (flag) VALUES (?)`, true)
	must(t, err)
	_, err = next.one.ExecContext(ctx, `UPDATE next SET flag = ?`, false)
	refused(t, err, "a flag stays up")

	for _, s := range []*Store{s, openAt(t, place)} {
		if _, err := s.Request(ctx, rid); err != nil {
			t.Error(err)
		}
	}
	_, err = s.Change(ctx, rid, noon, approve)
	must(t, err)
	must(t, s.Seen(ctx, "db1", noon, roster.Host{Mode: "label"}))
	addHost(t, s, "db3")
	if o := opened(t, s, "db1"); len(o.Grants) != 1 {
		t.Errorf("%+v", o)
	}
	logged(t, s)
}
