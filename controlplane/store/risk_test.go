package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/controlplane/roster"
)

// facts are those of risk, in short.
type facts struct {
	newNetwork, first string // yes, no or unknown
	refused           int
	age               time.Duration // negative: unknown
}

func risk(t *testing.T, s *Store, role, source string, at time.Time) facts {
	t.Helper()
	r, err := s.Risk(t.Context(), "ana", role, source, at)
	must(t, err)
	word := func(b *bool) string {
		switch {
		case b == nil:
			return "unknown"
		case *b:
			return "yes"
		}
		return "no"
	}
	k := facts{word(r.NewNetwork), word(r.FirstTime), *r.FactorRefused, -1}
	if r.FactorAge != nil {
		k.age = *r.FactorAge
	}
	return k
}

func granted(t *testing.T, s *Store, id, source string) {
	t.Helper()
	r := asked(id)
	r.Source = source
	_, err := s.Ask(t.Context(), r, noon, roster.Change{})
	must(t, err)
	_, err = s.Change(t.Context(), id, noon, approve)
	must(t, err)
}

func TestANetworkIsNewUntilSomethingWasGrantedFromIt(t *testing.T) {
	s := scene(t)
	unusual, day := facts{"yes", "yes", 0, -1}, 24*time.Hour
	if got := risk(t, s, "db-admin", "10.0.0.7", noon); got != unusual {
		t.Errorf("%+v", got)
	}
	r := asked("r-bbbbbbbbbbbbbbbb")
	r.Source = "10.0.0.7"
	_, err := s.Ask(t.Context(), r, noon, roster.Change{})
	must(t, err)
	if got := risk(t, s, "db-admin", "10.0.0.7", noon); got != unusual {
		t.Errorf("asking makes nothing usual: %+v", got)
	}
	granted(t, s, rid, "10.0.0.7")
	for _, c := range []struct {
		name, role, source string
		at                 time.Time
		want               facts
	}{
		{"the same", "db-admin", "10.0.0.7", noon, facts{"no", "no", 0, -1}},
		{"a neighbour", "db-admin", "10.0.0.250", noon, facts{"no", "no", 0, -1}},
		{"the same, written as IPv6", "db-admin", "::ffff:10.0.0.9", noon, facts{"no", "no", 0, -1}},
		{"another network", "db-admin", "10.0.1.7", noon, facts{"yes", "no", 0, -1}},
		{"another role", "look", "10.0.0.7", noon, facts{"no", "yes", 0, -1}},
		{"an address that is not known", "db-admin", "", noon, facts{"unknown", "no", 0, -1}},
		{"on the last day", "db-admin", "10.0.0.7", noon.Add(90*day - time.Second), facts{"no", "no", 0, -1}},
		{"too long ago", "db-admin", "10.0.0.7", noon.Add(90 * day), facts{"yes", "no", 0, -1}},
	} {
		if got := risk(t, s, c.role, c.source, c.at); got != c.want {
			t.Errorf("%s: %+v, not %+v", c.name, got, c.want)
		}
	}
	other, err := s.Risk(t.Context(), "ben", "db-admin", "10.0.0.7", noon)
	if err != nil || !*other.NewNetwork || !*other.FirstTime {
		t.Errorf("what ana was granted makes nothing usual for ben: %+v, %v", other, err)
	}
}

func TestRefusedFactorsCountForAnHour(t *testing.T) {
	s, ctx := scene(t), t.Context()
	i := roster.Invite{Hash: [32]byte{1}, Person: "ana", Expires: noon.Add(time.Hour)}
	must(t, s.PutInvite(ctx, i, roster.Act{By: "root", At: noon}))
	k := key(1, "ana")
	k.AddedAt = noon
	must(t, s.UseInvite(ctx, roster.Enrolment{Invite: i.Hash, Passkey: &k, Session: browser("w-a")}, noon))
	wrong := func(at time.Time) {
		t.Helper()
		must(t, s.UpdatePasskey(ctx, k.ID, func(k roster.Passkey) (roster.Passkey, error) {
			k.RefusedAt = at
			return k, nil
		}))
	}
	wrong(time.Time{}) // it was right
	if got := risk(t, s, "look", "", noon); got.refused != 0 || got.age != 0 {
		t.Errorf("%+v", got)
	}
	wrong(noon)
	wrong(noon.Add(time.Minute))
	for at, n := range map[time.Duration]int{time.Minute: 2, time.Hour - 1: 2, time.Hour: 1, time.Hour + time.Minute: 0} {
		if got := risk(t, s, "look", "", noon.Add(at)); got.refused != n || got.age != at {
			t.Errorf("after %v: %+v", at, got)
		}
	}
	wrong(noon.Add(3 * time.Hour))
	var kept int
	must(t, s.read.QueryRowContext(ctx, `SELECT count(*) FROM refused_factors`).Scan(&kept))
	if kept != 1 {
		t.Errorf("%d are kept that nobody asks about", kept-1)
	}
}

// What was out of the ordinary stays with the request as it was.
func TestRiskIsKeptWithTheRequest(t *testing.T) {
	s := scene(t)
	yes, n, age := true, 3, 90*time.Second
	r := asked(rid)
	r.Risk = roster.Risk{NewNetwork: &yes, FactorRefused: &n, FactorAge: &age}
	r.Doubts = []roster.Doubt{{If: "risk.new_network", Because: "it is <new> for \"ana\""}}
	_, err := s.Ask(t.Context(), r, noon, roster.Change{})
	must(t, err)
	got, err := s.Request(t.Context(), rid)
	must(t, err)
	if diff := cmp.Diff(r.Asked, got.Asked); diff != "" {
		t.Error(diff)
	}
}

// A code's secret from before is as old as the newest device that came with one;
// without any, its age is not known.
func TestMigrationTellsHowOldAFactorIs(t *testing.T) {
	ctx, place := t.Context(), emptyPlace(t)
	old := &Store{fleet: "lab", me: "old", changed: make(chan struct{})}
	must(t, old.connect(place))
	p, err := old.provider()
	must(t, err)
	_, err = p.UpTo(ctx, 152)
	must(t, err)
	do := func(q string, args ...any) {
		t.Helper()
		_, err := old.one.ExecContext(ctx, q, args...)
		must(t, err)
	}
	for i, name := range []string{"ana", "ben"} {
		do(`INSERT INTO people (name, full_name, uid, admin) VALUES (?, '', ?, 0)`, name, 70000+i)
		do(`INSERT INTO totp (person, secret, step, failures, retry_at) VALUES (?, ?, 0, 0, 0)`, name, []byte{1})
	}
	for i := range byte(2) {
		do(`INSERT INTO devices VALUES (?, 'ana', 'laptop', ?)`, make32(i), noon.Add(time.Duration(i)*time.Hour).UnixNano())
	}
	must(t, old.Close())

	s := openAt(t, place)
	if got := risk(t, s, "look", "", noon.Add(2*time.Hour)); got.age != time.Hour {
		t.Errorf("%+v", got)
	}
	if r, err := s.Risk(ctx, "ben", "look", "", noon); err != nil || r.FactorAge != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// What a server from before enrols in the place of another secret has no age.
func TestAnotherSecretHasAnotherAge(t *testing.T) {
	s, ctx := scene(t), t.Context()
	i := roster.Invite{Hash: [32]byte{1}, Person: "ana", Expires: noon.Add(time.Hour)}
	must(t, s.PutInvite(ctx, i, roster.Act{By: "root", At: noon}))
	e := roster.Enrolment{Invite: i.Hash, Factor: roster.TOTP{Secret: []byte{7}}, Session: roster.Session{ID: "s-a", Person: "ana", Device: make32(9), Expires: noon.Add(time.Hour)}}
	must(t, s.UseInvite(ctx, e, noon))
	if got := risk(t, s, "look", "", noon.Add(time.Minute)); got.age != time.Minute {
		t.Errorf("%+v", got)
	}
	must(t, s.write(ctx, func(t *tx) error { return t.run(ctx, `UPDATE totp SET secret = ?`, []byte{8}) }))
	if got := risk(t, s, "look", "", noon.Add(time.Minute)); got.age != -1 {
		t.Errorf("%+v", got)
	}
}

func make32(n byte) []byte {
	b := make([]byte, 32)
	b[0] = n
	return b
}
