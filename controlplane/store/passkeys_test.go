package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/controlplane/roster"
)

func key(id byte, person string) roster.Passkey {
	return roster.Passkey{ID: []byte{id, 0, 255}, Person: person, Name: "phone", Body: []byte{1}, AddedAt: noon}
}

// told returns what the record tells of people and the fleet.
func told(t *testing.T, s *Store) string {
	t.Helper()
	all, err := s.Events(t.Context(), roster.Search{Kind: "admin", Limit: 100})
	must(t, err)
	var b strings.Builder
	for _, e := range all {
		b.WriteString(e.Entry.Text + "\n")
	}
	return b.String()
}

func TestPasskeys(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addPerson(t, s, "ana")
	addPerson(t, s, "ben")
	must(t, s.AddPasskey(ctx, key(1, "ana")))
	want(t, "the same again", s.AddPasskey(ctx, key(1, "ben")), roster.ErrExists)
	want(t, "of nobody", s.AddPasskey(ctx, key(2, "nobody")), roster.ErrUnknown)
	f, err := s.Factors(ctx, "ana")
	if err != nil || f.TOTP || len(f.Passkeys) != 1 || f.Passkeys[0].Name != "phone" || !f.Passkeys[0].UsedAt.IsZero() {
		t.Errorf("%+v, %v", f, err)
	}
	if p, err := s.Person(ctx, "ana"); err != nil || !p.Enrolled {
		t.Errorf("a passkey is no factor: %+v, %v", p, err)
	}
	no := errors.New("no")
	err = s.UpdatePasskey(ctx, key(1, "").ID, func(k roster.Passkey) (roster.Passkey, error) {
		k.Body, k.UsedAt, k.Locked = []byte{2}, noon.Add(time.Minute), true
		return k, no
	})
	want(t, "refused", err, no)
	k, err := s.Passkey(ctx, key(1, "").ID)
	if err != nil || !k.Locked || k.Body[0] != 2 || !k.UsedAt.Equal(noon.Add(time.Minute)) {
		t.Errorf("what is kept beside a refusal: %+v, %v", k, err)
	}
	want(t, "removed by ben", s.RemovePasskey(ctx, k.ID, roster.Act{By: "ben", At: noon}), roster.ErrUnknown)
	want(t, "the last that ana has", s.RemovePasskey(ctx, k.ID, roster.Act{By: "ana", At: noon}), roster.ErrLastFactor)
	must(t, s.AddPasskey(ctx, key(3, "ana")))
	want(t, "beside one that is locked", s.RemovePasskey(ctx, key(3, "").ID, roster.Act{By: "ana", At: noon}), roster.ErrLastFactor)
	must(t, s.RemovePasskey(ctx, k.ID, roster.Act{By: "ana", At: noon}))
	_, err = s.Passkey(ctx, k.ID)
	want(t, "removed", err, roster.ErrUnknown)
	for _, text := range []string{`added passkey "phone"`, `passkey "phone" of ana was locked`, `removed passkey "phone"`} {
		if !strings.Contains(told(t, s), text) {
			t.Errorf("the record does not tell: %s", text)
		}
	}
}

func browser(id string) roster.Session {
	return roster.Session{ID: id, Person: "ana", Browser: true, Name: "Firefox on Linux", Begun: noon, Expires: noon.Add(time.Hour), Proved: noon}
}

func TestBrowserSessions(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addPerson(t, s, "ana")
	must(t, s.AddSession(ctx, browser("w-1"), noon))
	v, p, err := s.Session(ctx, "w-1", noon)
	if err != nil || p.Name != "ana" || !v.Browser || v.Name != "Firefox on Linux" || len(v.Device) > 0 {
		t.Errorf("%+v, %+v, %v", v, p, err)
	}
	must(t, s.Proved(ctx, "w-1", noon.Add(time.Minute)))
	if all, err := s.Sessions(ctx, "ana", noon); err != nil || len(all) != 1 || !all[0].Proved.Equal(noon.Add(time.Minute)) {
		t.Errorf("%+v, %v", all, err)
	}
	_, _, err = s.Session(ctx, "w-1", noon.Add(time.Hour))
	want(t, "at its end", err, roster.ErrUnknown)
	must(t, s.EndSession(ctx, v, roster.SignedOut, noon))
	_, _, err = s.Session(ctx, "w-1", noon)
	want(t, "ended", err, roster.ErrUnknown)
}

// Who is disabled between her proof and her session has none, also when the
// directory has her again.
func TestNoSessionForWhoWasDisabledMeanwhile(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addPerson(t, s, "ana")
	addPerson(t, s, "ben")
	_, err := s.DisablePerson(ctx, "ana", roster.Act{By: "ben", At: noon})
	must(t, err)
	want(t, "disabled", s.AddSession(ctx, browser("w-1"), noon), roster.ErrDisabled)
	if all, err := s.Sessions(ctx, "ana", noon); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// enrol uses an invite with a passkey.
func enrol(t *testing.T, s *Store, hash, id byte, adds bool) {
	t.Helper()
	i := roster.Invite{Hash: [32]byte{hash}, Person: "ana", Expires: noon.Add(time.Hour), Adds: adds}
	must(t, s.PutInvite(t.Context(), i, roster.Act{By: "root", At: noon}))
	k := key(id, "ana")
	must(t, s.UseInvite(t.Context(), roster.Enrolment{Invite: i.Hash, Passkey: &k, Session: browser("w-" + string(rune('a'+id)))}, noon))
}

func TestAnInviteTakesThePlaceOfAllOrComesBeside(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addPerson(t, s, "ana")
	has := func(passkeys, sessions int) {
		t.Helper()
		f, err := s.Factors(ctx, "ana")
		must(t, err)
		all, err := s.Sessions(ctx, "ana", noon)
		if err != nil || len(f.Passkeys) != passkeys || len(all) != sessions {
			t.Errorf("%d passkeys and %d sessions, %v", len(f.Passkeys), len(all), err)
		}
	}
	enrol(t, s, 1, 1, false)
	has(1, 1)
	enrol(t, s, 2, 2, true)
	has(2, 2)
	enrol(t, s, 3, 3, false)
	has(1, 1)
	_, err := s.DisablePerson(ctx, "ana", roster.Act{By: "root", At: noon})
	must(t, err)
	has(0, 0)
}

func TestSessionsLeaveTheirBeginningAndTheirEndInTheRecord(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addPerson(t, s, "ana")
	enrol(t, s, 1, 1, false)
	first, err := s.Sessions(ctx, "ana", noon)
	must(t, err)
	must(t, s.AddSession(ctx, browser("w-9"), noon))
	for range 2 { // the second time there is nothing to end
		must(t, s.EndSession(ctx, browser("w-9"), roster.SignedOut, noon))
	}
	must(t, s.TurnAway(ctx, roster.Act{By: "ana", At: noon}, "no"))
	enrol(t, s, 2, 2, false) // in place of the first
	all, err := s.Events(ctx, roster.Search{Kind: "sign-in"})
	must(t, err)
	var said []string
	for _, e := range all {
		said = append(said, e.Entry.Step+" "+e.Entry.Object+" "+e.Entry.Text)
	}
	on := " browser Firefox on Linux"
	if diff := cmp.Diff([]string{
		"signed-in " + first[0].ID + on, "signed-in w-9" + on, "signed-out w-9" + on, "turned-away  no", "cut-off " + first[0].ID + on, "signed-in w-c" + on,
	}, said); diff != "" {
		t.Error(diff)
	}
}
