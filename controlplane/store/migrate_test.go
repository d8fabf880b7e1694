package store

import (
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// A database of the first version keeps all that it has, in its order, and the
// log takes it in.
func TestMigrationKeepsTheRecord(t *testing.T) {
	ctx, place := t.Context(), emptyPlace(t)
	old := &Store{}
	must(t, old.connect(place))
	p, err := old.provider()
	must(t, err)
	_, err = p.UpTo(ctx, 1)
	must(t, err)
	none, key := []byte{}, make([]byte, 32)
	do := func(q string, args ...any) {
		t.Helper()
		_, err := old.one.ExecContext(ctx, q, args...)
		must(t, err)
	}
	e := ledger.Entry{Kind: ledger.Agent, At: noon, Host: "db1", Text: "started"}
	do(`INSERT INTO people (name, full_name, uid, admin) VALUES ('ana', '', 70000, 0)`)
	do(`INSERT INTO devices VALUES (?, 'ana', 'laptop', 1)`, key)
	do(`INSERT INTO sessions VALUES ('s-a', 'ana', ?, 9000000000000000000)`, key)
	do(`INSERT INTO hosts (name, labels, addresses, ssh_host_keys, receipt_key, identity, enrolled_at, fresh_at)
		VALUES ('db1', '{}', '[]', '[]', ?, 'i', 1, 1)`, key)
	do(`INSERT INTO requests VALUES ('r-a', 'ana', '', 'asked', '{}', ?, 1, 9000000000000000000, '', '', 1)`, key)
	do(`INSERT INTO grants (id, request, person, role, not_before, not_after, payload, envelope, issued_at)
		VALUES ('g-a', 'r-a', 'ana', 'ops', 1, 7, ?, ?, 1)`, none, []byte{7})
	do(`INSERT INTO decisions (request, at, what, person, host, text) VALUES ('r-a', 1, 'asked', 'ana', '', 'please')`)
	do(`INSERT INTO decisions (request, at, what, person, host, text) VALUES ('r-a', 2, 'signed', '', '', 'grant g-a')`)
	for seq := range 3 {
		do(`INSERT INTO entries VALUES (?, 'db1', 'o', ?, 'agent', ?, '', '', 'started', 0, ?, ?)`, seq+5, seq+1, noon.UnixNano(), none, e.Bytes())
	}
	must(t, old.Close())

	s := openAt(t, place)
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

// What a host says of its time, and the control plane repeats, does not tell how
// old the record is.
func TestMigrationAgesTheRecordByNoHostsClock(t *testing.T) {
	ctx, place := t.Context(), emptyPlace(t)
	old := &Store{fleet: "lab", me: "old", changed: make(chan struct{})}
	must(t, old.connect(place))
	p, err := old.provider()
	must(t, err)
	_, err = p.UpTo(ctx, 151)
	must(t, err)
	must(t, old.Tell(ctx, roster.Act{By: "ana", At: noon}, "added somebody"))
	for _, at := range []time.Time{noon.Add(-1000 * time.Hour), noon.Add(1000 * time.Hour)} {
		must(t, old.write(ctx, func(t *tx) error {
			return t.own(ctx, ledger.Entry{Kind: ledger.Gap, At: at, Host: "db1", Text: roster.BadSeal + " db1"}, "")
		}))
	}
	must(t, old.Close())

	s := openAt(t, place)
	if aged, err := s.Aged(ctx); err != nil || !aged.Equal(noon) {
		t.Errorf("noted at %v, want %v: %v", aged, noon, err)
	}
	var early int
	must(t, s.read.QueryRowContext(ctx, `SELECT count(*) FROM record_ages WHERE at < ?`, ns(noon)).Scan(&early))
	if early > 0 {
		t.Error("a host has said that its entries are old")
	}
}
